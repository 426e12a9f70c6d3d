//! The four daemons: how each is configured, started and asked.

use std::fs;

use serde_json::Value;

use super::{BIRD, EXABGP, FRR, GOBGP, Lab, asn};

/// How a neighbour daemon is to treat us.
#[derive(Debug, Clone, Default)]
pub struct Peering {
    /// Our AS as the daemon expects it.
    pub our_asn: u32,
    /// The daemon's AS; 0 = its usual one.
    pub asn: u32,
    /// TCP-MD5 key.
    pub password: Option<String>,
    /// GTSM on.
    pub gtsm: bool,
    /// Further lines for the neighbour, in the daemon's own words.
    pub extra: String,
    /// Further lines outside the neighbour.
    pub globals: String,
    /// Hold time in seconds; 0 = 9.
    pub hold: u16,
    /// Host that the daemon re-advertises everything to, with its AS.
    pub downstream: Option<u8>,
    /// Our address, if it is not host 1.
    pub our_address: Option<String>,
    /// The session runs over IPv6.
    pub over_ipv6: bool,
    /// Further words for BIRD's IPv4 channel.
    pub bird_ipv4: String,
}

impl Peering {
    pub fn with(our_asn: u32) -> Self {
        Self { our_asn, ..Self::default() }
    }

    fn hold(&self) -> u16 {
        if self.hold == 0 { 9 } else { self.hold }
    }

    fn own(&self, host: u8) -> u32 {
        if self.asn == 0 { asn(host) } else { self.asn }
    }
}

impl Lab {
    fn our(&self, peering: &Peering) -> String {
        peering.our_address.clone().unwrap_or_else(|| self.end(peering, 1))
    }

    /// A host's end of the session.
    fn end(&self, peering: &Peering, host: u8) -> String {
        if peering.over_ipv6 { self.v6(host).to_string() } else { self.v4(host).to_string() }
    }

    // ----- FRR

    /// Name of the FRR path space of this lab.
    pub fn frr_name(&self) -> String {
        self.namespace.clone()
    }

    pub fn start_frr(&mut self, peering: &Peering, daemons: &[&str]) {
        let name = self.frr_name();
        for folder in ["/etc/frr", "/var/run/frr"] {
            let path = format!("{folder}/{name}");
            fs::create_dir_all(&path).unwrap();
            super::must("chown", &["frr:frr", &path]);
            self.frr_paths.push(path.into());
        }
        fs::write(format!("/etc/frr/{name}/vtysh.conf"), "").unwrap();
        let config = self.frr_config(peering);
        fs::write(format!("/etc/frr/{name}/frr.conf"), config).unwrap();
        for daemon in daemons {
            self.start_frr_daemon(daemon);
            // bgpd tells bfdd of its sessions through zebra, once: a bfdd that is not there yet never learns of them,
            // and one that does not find zebra at once comes back ten seconds later.
            let ready = |text: &str| *daemon != "bfdd" || text.contains("bfd");
            for _ in 0..480 {
                if self.vtysh(&["show zebra client"]).is_ok_and(|text| ready(&text)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(25));
            }
        }
        // A daemon is there once it answers.
        for _ in 0..400 {
            let with_bfd = daemons.contains(&"bfdd");
            if self.vtysh(&["show bgp vrfs"]).is_ok()
                && (!with_bfd || self.vtysh(&["show bfd peers"]).is_ok())
            {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        super::must("vtysh", &["-N", &name, "-b"]);
    }

    pub fn start_frr_daemon(&mut self, daemon: &str) {
        let (name, address) = (self.frr_name(), format!("-l {} -l {}", self.v4(FRR), self.v6(FRR)));
        let path = format!("/usr/lib/frr/{daemon}");
        let log = format!("file:/var/run/frr/{name}/{daemon}.log");
        // FRR drops to its own user, which clears the parent-death signal: a shell keeps it and passes it on.
        let listen = if daemon == "bgpd" { address } else { String::new() };
        let line = format!("{path} -N {name} --log {log} {listen} & pid=$!; trap 'kill -9 $pid' TERM; wait");
        self.spawn(daemon, &[], &["sh", "-c", &line]);
    }

    fn frr_config(&self, p: &Peering) -> String {
        let (us, own, hold) = (self.our(p), p.own(FRR), p.hold());
        let password =
            p.password.as_ref().map(|k| format!(" neighbor {us} password {k}\n")).unwrap_or_default();
        let gtsm = if p.gtsm { format!(" neighbor {us} ttl-security hops 1\n") } else { String::new() };
        let extra = p.extra.replace("{us}", &us);
        let (router, our_asn) = (self.v4(FRR), p.our_asn);
        let gr = if p.extra.contains("graceful-restart") { "" } else { "bgp graceful-restart-disable" };
        format!(
            "frr defaults traditional\nrouter bgp {own}\n bgp router-id {router}\n \
             no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n {gr}\n \
             timers bgp {} {hold}\n neighbor {us} remote-as {our_asn}\n neighbor {us} passive\n{password}{gtsm}{extra}\n \
             address-family ipv4 unicast\n  neighbor {us} activate\n \
             exit-address-family\n address-family ipv6 unicast\n  neighbor {us} activate\n exit-address-family\n\
             exit\n{}\n",
            hold / 3,
            p.globals
        )
    }

    pub fn vtysh(&self, commands: &[&str]) -> Result<String, String> {
        let name = self.frr_name();
        let mut arguments = vec!["-N", name.as_str()];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        super::run("vtysh", &arguments)
    }

    pub fn vtysh_json(&self, command: &str) -> Value {
        self.vtysh(&[command]).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    /// The route as FRR shows it in detail; null where it has none.
    pub fn frr_route(&self, prefix: &str) -> Value {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let shown = self.vtysh_json(&format!("show bgp {family} unicast {prefix} json"));
        shown.pointer("/paths/0").cloned().unwrap_or_default()
    }

    // ----- BIRD

    pub fn start_bird(&mut self, peering: &Peering) {
        let config = self.bird_config(peering);
        self.start_bird_with(&config);
    }

    /// BIRD as our neighbour, with ExaBGP behind it, which sees what the world sees while we restart gracefully.
    pub fn start_bird_before_exabgp(&mut self, our_asn: u32) {
        let bird = Peering {
            extra: "graceful restart aware;".to_owned(),
            downstream: Some(EXABGP),
            ..Peering::with(our_asn)
        };
        self.start_bird(&bird);
        let our_address = Some(self.v4(BIRD).to_string());
        self.start_exabgp(&Peering { our_address, hold: 30, ..Peering::with(asn(BIRD)) });
    }

    pub fn start_bird_with(&mut self, config: &str) {
        let (file, control) = (self.file("bird.conf", config), self.path("bird.ctl"));
        self.spawn("bird", &[], &["/usr/sbin/bird", "-f", "-c", &file, "-s", &control]);
        for _ in 0..400 {
            if self.birdc("show status").contains("up and running") {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("BIRD does not answer: {}", self.log("bird.log"));
    }

    pub fn bird_config(&self, p: &Peering) -> String {
        let (us, me, own, our, hold) = (self.our(p), self.end(p, BIRD), p.own(BIRD), p.our_asn, p.hold());
        let router = self.v4(BIRD);
        let password = p.password.as_ref().map(|k| format!("password \"{k}\";")).unwrap_or_default();
        let gtsm = if p.gtsm { "ttl security on;" } else { "" };
        let next = p.downstream.map(|host| {
            let (address, asn) = (self.v4(host), asn(host));
            format!(
                "protocol bgp behind {{ local {me} as {own}; neighbor {address} as {asn}; multihop; hold time 30; strict bind yes; connect delay time 1; \
                 ipv4 {{ import none; export all; }}; }}\n"
            )
        });
        let link = if p.extra.contains("multihop") || p.gtsm { "" } else { "direct;" };
        format!(
            "log stderr all;\nrouter id {router};\nprotocol device {{}}\n{}\n\
             protocol bgp agent {{ local {me} as {own}; neighbor {us} as {our}; {link} strict bind yes; hold time {hold}; \
             connect delay time 1; error wait time 1,2; {password} {gtsm} {}\n\
             ipv4 {{ import all; export none; {} }}; ipv6 {{ import all; export none; }}; }}\n{}",
            p.globals,
            p.extra,
            p.bird_ipv4,
            next.unwrap_or_default()
        )
    }

    pub fn birdc(&self, command: &str) -> String {
        super::run("birdc", &["-s", &self.path("bird.ctl"), command]).unwrap_or_default()
    }

    /// Everything that BIRD knows of a prefix, as text; empty where it has no route.
    pub fn bird_route(&self, prefix: &str) -> String {
        let text = self.birdc(&format!("show route {prefix} all"));
        if text.contains("BGP.origin") { text } else { String::new() }
    }

    // ----- GoBGP

    pub fn start_gobgp(&mut self, p: &Peering) {
        let (us, me, own, our, hold) = (self.our(p), self.end(p, GOBGP), p.own(GOBGP), p.our_asn, p.hold());
        let router = self.v4(GOBGP);
        let password = p.password.as_ref().map(|k| format!("auth-password = \"{k}\"")).unwrap_or_default();
        let gtsm =
            if p.gtsm { "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n" } else { "" };
        let config = format!(
            "[global.config]\nas = {own}\nrouter-id = \"{router}\"\nlocal-address-list = [\"{me}\"]\n\
             [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{us}\"\npeer-as = {our}\n{password}\n\
             [neighbors.transport.config]\npassive-mode = true\nlocal-address = \"{me}\"\n{gtsm}\
             [neighbors.timers.config]\nhold-time = {hold}\nkeepalive-interval = {}\n{}\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv6-unicast\"\n{}\n",
            hold / 3,
            p.extra,
            p.globals
        );
        let file = self.file("gobgp.toml", &config);
        self.spawn(
            "gobgpd",
            &[],
            &[
                "/usr/bin/gobgpd",
                "-t",
                "toml",
                "-f",
                &file,
                "--api-hosts",
                "127.0.0.1:50051",
                "--log-level",
                "debug",
            ],
        );
        for _ in 0..400 {
            if self.gobgp(&["neighbor"]).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("gobgpd does not answer: {}", self.log("gobgpd.log"));
    }

    pub fn gobgp(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = vec!["/usr/bin/gobgp"];
        command.extend(arguments);
        self.inside(&command)
    }

    /// GoBGP's table of a family by prefix: the attributes of each first path.
    pub fn gobgp_rib(&self, family: &str) -> Value {
        self.inside_json(&["/usr/bin/gobgp", "global", "rib", "-a", family, "-j"])
    }

    // ----- ExaBGP

    /// ExaBGP, whose received messages land in `exabgp.json`, one JSON object per line. Lines written to the file
    /// `exabgp.commands` before the start are its announcements.
    pub fn start_exabgp(&mut self, p: &Peering) {
        let script = format!(
            "#!/bin/sh\n[ -f {0}/exabgp.commands ] && cat {0}/exabgp.commands\ncat > {0}/exabgp.json\nexit 0\n",
            self.dir.path().display()
        );
        let script = self.file("exabgp.sh", &script);
        super::must("chmod", &["755", &script]);
        let (us, me, own, our, hold) = (self.our(p), self.end(p, EXABGP), p.own(EXABGP), p.our_asn, p.hold());
        let router = self.v4(EXABGP);
        let password = p.password.as_ref().map(|k| format!("md5-password \"{k}\";")).unwrap_or_default();
        let gtsm = if p.gtsm { "outgoing-ttl 255; incoming-ttl 255;" } else { "" };
        let config = format!(
            "process api {{ run {script}; encoder json; }}\nneighbor {us} {{ router-id {router}; local-address {me}; \
             local-as {own}; peer-as {our}; hold-time {hold}; passive true; {password} {gtsm} {}\n\
             family {{ ipv4 unicast; ipv6 unicast; }} api {{ processes [ api ]; neighbor-changes; \
             receive {{ parsed; update; }} }} }}\n{}",
            p.extra, p.globals
        );
        let file = self.file("exabgp.conf", &config);
        let me = me.to_string();
        let environment = [
            ("exabgp.daemon.user", "root"),
            ("exabgp.daemon.daemonize", "false"),
            ("exabgp.tcp.bind", me.as_str()),
            ("exabgp.api.ack", "false"),
            ("exabgp.api.cli", "false"),
            ("exabgp.log.level", "DEBUG"),
        ];
        self.spawn("exabgp", &environment, &["/usr/sbin/exabgp", &file]);
    }

    /// Everything that ExaBGP told its script so far.
    pub fn exabgp_events(&self) -> Vec<Value> {
        self.log("exabgp.json").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
