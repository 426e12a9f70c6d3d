//! Rows about what a speaker refuses, survives and ignores.

use std::time::Duration;

use nix::sys::signal::Signal;
use switchover_agent::announce::Announcer;
use switchover_agent::config::Secret;
use switchover_agent::config::bgp::{BfdSettings, NeighbourSettings};

use super::{Cell, Column, V4, both, comes_true, is_up, shown, start};
use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, EXABGP, FRR, GOBGP, Lab};
use crate::{OUR_ASN, neighbour, plain, speaker, withdraw};

fn daemon(host: u8) -> &'static str {
    match host {
        FRR => "bgpd",
        BIRD => "bird",
        GOBGP => "gobgpd",
        _ => "exabgp",
    }
}

/// A neighbour that hangs is told that its hold time is over; one that comes back is met again.
pub async fn hanging(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering { hold: 3, ..Peering::with(OUR_ASN) });
    let settings = NeighbourSettings { hold_time: 3, ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&[V4])).await.unwrap();
    let up = comes_true(async || is_up(&announcer)).await;
    if host == FRR {
        // bgpd has left the group of the shell that started it.
        let file = format!("/var/run/frr/{}/bgpd.pid", lab.frr_name());
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        let told = comes_true(async || expired(&announcer)).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGCONT).unwrap();
        column.insert("Hanging neighbour: hold timer expired", both(up, told));
    } else {
        lab.signal(daemon(host), Signal::SIGSTOP);
        let told = comes_true(async || expired(&announcer)).await;
        lab.signal(daemon(host), Signal::SIGCONT);
        column.insert("Hanging neighbour: hold timer expired", both(up, told));
    }
}

fn expired(announcer: &switchover_agent::announce::speaker::SpeakerAnnouncer) -> bool {
    let sent = announcer.neighbours()[0].notification_sent.clone();
    sent.is_some_and(|notice| (notice.code, notice.subcode) == (4, 0))
}

/// The neighbour is another AS than configured, or has our own identifier: both are told so.
pub async fn refused(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering::with(OUR_ASN));
    let settings = NeighbourSettings { remote_asn: 64_999, ..neighbour(&lab, host) };
    let announcer = speaker(&lab, OUR_ASN, vec![settings]);
    let told = async || {
        let sent = announcer.neighbours()[0].notification_sent.clone();
        sent.is_some_and(|notice| (notice.code, notice.subcode) == (2, 2))
    };
    column.insert("Wrong AS: refused", comes_true(told).await);
}

/// A wrong key never becomes a session.
pub async fn wrong_key(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering { password: Some("right".to_owned()), ..Peering::with(OUR_ASN) });
    let key = |text: &str| NeighbourSettings {
        password: Some(Secret::new(text)),
        connect_timeout_ms: 700,
        ..neighbour(&lab, host)
    };
    let announcer = speaker(&lab, OUR_ASN, vec![key("wrong")]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let refused = if announcer.neighbours()[0].established_count == 0 { Cell::Yes } else { Cell::No };
    drop(announcer);
    let announcer = speaker(&lab, OUR_ASN, vec![key("right")]);
    let taken = comes_true(async || is_up(&announcer)).await;
    column.insert("TCP-MD5, wrong key: no session", both(refused, taken));
}

/// The neighbour's own routes: seen, not kept, and not said to anybody.
pub async fn imports_nothing(host: u8, column: &mut Column) {
    let route = "198.51.100.0/24";
    let mut lab = Lab::new(&[]).unwrap();
    let peering = match host {
        FRR => Peering {
            globals: format!(
                "ip route {route} Null0\nrouter bgp {}\n no bgp network import-check\n address-family ipv4 unicast\n  \
                 network {route}\n exit-address-family\nexit\n",
                crate::bgp_lab::asn(FRR)
            ),
            ..Peering::with(OUR_ASN)
        },
        BIRD => Peering {
            globals: format!("protocol static {{ ipv4; route {route} blackhole; }}"),
            bird_ipv4: "export all; next hop self;".to_owned(),
            ..Peering::with(OUR_ASN)
        },
        _ => Peering::with(OUR_ASN),
    };
    if host == EXABGP {
        lab.file("exabgp.commands", &format!("announce route {route} next-hop self\n"));
    }
    start(&mut lab, host, &peering);
    if host == GOBGP {
        lab.gobgp(&["global", "rib", "add", route]).unwrap();
    }
    // A second neighbour that would have to be told if anything were re-advertised.
    let other = if host == BIRD { GOBGP } else { BIRD };
    start(&mut lab, other, &Peering::with(OUR_ASN));
    let mut announcer = speaker(&lab, OUR_ASN, vec![neighbour(&lab, host), neighbour(&lab, other)]);
    announcer.set(&plain(&[V4])).await.unwrap();
    let seen = comes_true(async || announcer.neighbours()[0].received_prefixes.0 > 0).await;
    let ours = comes_true(async || !shown(&lab, other, V4).is_empty()).await;
    let only_ours = if shown(&lab, other, route).is_empty() { Cell::Yes } else { Cell::No };
    column.insert("Received routes: none kept, none passed on", both(both(seen, ours), only_ours));
    announcer.shutdown(withdraw("bye")).await;
}

/// OPEN with extended optional parameters, which FRR sends where it is told to. Told so, FRR 8.4 also refuses an OPEN in
/// the usual form, so what shows is that we understood its OPEN and answered with a KEEPALIVE.
pub async fn extended_parameters(host: u8, column: &mut Column) {
    let row = "Extended optional parameters understood";
    if host != FRR {
        column.insert(row, Cell::NotApplicable);
        return;
    }
    let mut lab = Lab::new(&[]).unwrap();
    let extra = " neighbor {us} extended-optional-parameters".to_owned();
    start(&mut lab, host, &Peering { extra, ..Peering::with(OUR_ASN) });
    let announcer = speaker(&lab, OUR_ASN, vec![neighbour(&lab, host)]);
    let answered = async || {
        let status = &announcer.neighbours()[0];
        status.received.open > 0 && status.sent.keepalive > 0
    };
    let understood = comes_true(answered).await;
    let complained = announcer.neighbours()[0].notification_sent.is_some();
    column.insert(row, if complained { Cell::No } else { understood });
}

/// BFD over more than one hop.
pub async fn bfd_multihop(host: u8, column: &mut Column) {
    let row = "BFD, multihop";
    let (extra, globals) = match host {
        FRR => (" neighbor {us} ebgp-multihop 64\n neighbor {us} bfd 3 500 500", String::new()),
        BIRD => {
            let timing = "min rx interval 500 ms; min tx interval 500 ms; multiplier 3;";
            ("bfd on; multihop;", format!("protocol bfd {{ multihop {{ {timing} }}; }}"))
        }
        _ => {
            column.insert(row, Cell::NotApplicable);
            return;
        }
    };
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering { extra: extra.to_owned(), globals, ..Peering::with(OUR_ASN) });
    let timing = BfdSettings { transmit_ms: 500, receive_ms: 500, multiplier: 3, multihop: true };
    let settings = NeighbourSettings { bfd: Some(timing), multihop_ttl: Some(64), ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    let up = comes_true(async || {
        is_up(&announcer)
            && match host {
                FRR => lab.vtysh_json("show bfd peers json").to_string().contains("\"status\":\"up\""),
                _ => lab.birdc("show bfd sessions").contains("Up "),
            }
    });
    column.insert(row, up.await);
    announcer.shutdown(withdraw("bye")).await;
}
