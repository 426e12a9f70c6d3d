//! The announcer on BIRD 2: a file that BIRD's configuration includes, then `birdc configure`.
//!
//! Owns that one file. It is replaced atomically, BIRD is told, and the result is read back; where BIRD refuses the
//! file the old one comes back, so that a later restart of BIRD does not fail on ours. `birdc` ends with code 0 even
//! on errors, so its text decides.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use tokio::process::Command;
use tracing::{error, info, warn};

use super::{AnnounceError, Announcer, Changes, PrefixKey, RouteAttributes, Shutdown};
use crate::bgp::Community;
use crate::config::bgp::Family;

/// Largest answer of `birdc` that is looked at: 100,000 prefixes and then some.
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

/// How prefixes stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BirdStyle {
    /// `define NAME = [ … ];` per family, for the operator's own export filter. Carries no attributes. A prefix that
    /// is never wanted stands in each, because BIRD refuses an empty set.
    Sets {
        /// Name of the IPv4 set.
        v4: String,
        /// Name of the IPv6 set.
        v6: String,
        /// Stands in the IPv4 set always.
        dummy_v4: IpNet,
        /// Stands in the IPv6 set always.
        dummy_v6: IpNet,
    },
    /// `protocol static` per family, with all attributes; the operator's filter exports those protocols.
    Static {
        /// Name of the IPv4 protocol.
        v4: String,
        /// Name of the IPv6 protocol.
        v6: String,
    },
}

/// BIRD and our file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirdSettings {
    /// The file that BIRD includes.
    pub file: PathBuf,
    /// What stands in it.
    pub style: BirdStyle,
    /// The program.
    pub birdc: PathBuf,
    /// BIRD's control socket; `None` = its default.
    pub socket: Option<PathBuf>,
    /// Longest run time of one `birdc`.
    pub timeout: Duration,
}

impl BirdSettings {
    /// Usual settings around a file.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            style: BirdStyle::Static { v4: "switchover_v4".to_owned(), v6: "switchover_v6".to_owned() },
            birdc: "/usr/sbin/birdc".into(),
            socket: None,
            timeout: Duration::from_secs(5),
        }
    }
}

/// BIRD as an announcer.
#[derive(Debug)]
pub struct BirdAnnouncer {
    name: String,
    settings: BirdSettings,
    desired: BTreeMap<PrefixKey, RouteAttributes>,
}

fn transient(reason: String) -> AnnounceError {
    AnnounceError::transient("bird", "change BIRD", reason)
}

fn permanent(reason: String) -> AnnounceError {
    AnnounceError::permanent("bird", "change BIRD", reason)
}

/// Whether a text can be a BIRD symbol, and so is safe in the file and on the command line.
fn symbol(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 63
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl BirdAnnouncer {
    /// An announcer on this file. Contacts nothing yet.
    ///
    /// # Errors
    /// A name is not a BIRD symbol.
    pub fn new(name: &str, settings: BirdSettings) -> Result<Self, AnnounceError> {
        let (BirdStyle::Sets { v4, v6, .. } | BirdStyle::Static { v4, v6 }) = &settings.style;
        if let Some(bad) = [v4, v6].into_iter().find(|name| !symbol(name)) {
            return Err(permanent(format!(
                "BIRD: {bad:?} is not a symbol: a letter, then letters, digits and _"
            )));
        }
        Ok(Self { name: name.to_owned(), settings, desired: BTreeMap::new() })
    }

    fn render(&self, desired: &BTreeMap<PrefixKey, RouteAttributes>) -> Result<String, AnnounceError> {
        let mut text = String::from("# Written by switchover-agent; changes are lost.\n");
        let of = |family: Family| {
            let v4 = family == Family::Ipv4;
            desired.iter().filter(move |(key, _)| key.prefix.addr().is_ipv4() == v4)
        };
        match &self.settings.style {
            BirdStyle::Sets { v4, v6, dummy_v4, dummy_v6 } => {
                for (family, name, dummy) in [(Family::Ipv4, v4, dummy_v4), (Family::Ipv6, v6, dummy_v6)] {
                    let mut prefixes: BTreeSet<IpNet> = of(family).map(|(key, _)| key.prefix).collect();
                    prefixes.insert(*dummy);
                    let list: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                    text.push_str(&format!("define {name} = [\n  {}\n];\n", list.join(",\n  ")));
                }
            }
            BirdStyle::Static { v4, v6 } => {
                for (family, name, channel) in [(Family::Ipv4, v4, "ipv4"), (Family::Ipv6, v6, "ipv6")] {
                    text.push_str(&format!("protocol static {name} {{\n  {channel};\n"));
                    for (key, attributes) in of(family) {
                        let says = statements(attributes)
                            .map_err(|what| permanent(format!("{}: {what}", key.prefix)))?;
                        text.push_str(&format!("  route {} blackhole{says};\n", key.prefix));
                    }
                    text.push_str("}\n");
                }
            }
        }
        Ok(text)
    }

    async fn birdc(&self, command: &str) -> Result<String, AnnounceError> {
        let mut process = Command::new(&self.settings.birdc);
        if let Some(socket) = &self.settings.socket {
            process.arg("-s").arg(socket);
        }
        process.arg(command).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(self.settings.timeout, process.output())
            .await
            .map_err(|_| {
                transient(format!("birdc {command:?}: no answer within {:?}", self.settings.timeout))
            })?
            .map_err(|error| permanent(format!("{}: {error}", self.settings.birdc.display())))?;
        let end = output.stdout.len().min(OUTPUT_LIMIT);
        let text = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        if complaint.contains("Unable to connect") || !text.contains("ready.") {
            return Err(transient(format!("birdc {command:?}: {}{complaint}", text.trim())));
        }
        Ok(text)
    }

    /// Prefixes that stand in BIRD now, as BIRD says.
    async fn read(&self) -> Result<BTreeSet<PrefixKey>, AnnounceError> {
        let (questions, dummies): ([String; 2], Vec<IpNet>) = match &self.settings.style {
            BirdStyle::Sets { v4, v6, dummy_v4, dummy_v6 } => {
                ([format!("eval {v4}"), format!("eval {v6}")], vec![*dummy_v4, *dummy_v6])
            }
            BirdStyle::Static { v4, v6 } => {
                ([format!("show route protocol {v4}"), format!("show route protocol {v6}")], Vec::new())
            }
        };
        let mut found = BTreeSet::new();
        for question in questions {
            let text = self.birdc(&question).await?;
            if text.contains("syntax error") || text.contains("not a protocol") {
                return Err(transient(format!(
                    "BIRD does not know our file {}: is it included?",
                    self.settings.file.display()
                )));
            }
            let words = text.split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | ',' | '{' | '}'));
            let prefixes = words.filter(|w| w.contains('/')).filter_map(|word| word.parse::<IpNet>().ok());
            found.extend(
                prefixes.filter(|p| !dummies.contains(p)).map(|prefix| PrefixKey { prefix, vrf: None }),
            );
        }
        Ok(found)
    }

    async fn change(
        &mut self,
        desired: &BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Result<Changes, AnnounceError> {
        if let Some(key) = desired.keys().find(|key| key.vrf.is_some()) {
            return Err(permanent(format!(
                "{} in VRF {:?}: the BIRD announcer has no VRFs",
                key.prefix, key.vrf
            )));
        }
        let text = self.render(desired)?;
        let old = tokio::fs::read_to_string(&self.settings.file).await.unwrap_or_default();
        let wanted: BTreeSet<PrefixKey> = desired.keys().cloned().collect();
        let before = self.read().await;
        if old == text && before.as_ref().is_ok_and(|before| *before == wanted) {
            self.desired.clone_from(desired);
            return Ok(Changes::default());
        }
        replace(&self.settings.file, &text).await?;
        let answer = self.birdc("configure").await?;
        if !answer.contains("Reconfigur") || answer.contains("error") {
            replace(&self.settings.file, &old).await?;
            return Err(permanent(format!(
                "BIRD refuses {}: {}",
                self.settings.file.display(),
                answer.trim()
            )));
        }
        self.confirm(&wanted).await?;
        let before = before.unwrap_or_default();
        let same = |key: &&PrefixKey| self.desired.get(*key) == desired.get(*key);
        let changes = Changes {
            announced: wanted.difference(&before).cloned().collect(),
            updated: wanted.intersection(&before).filter(|key| !same(key)).cloned().collect(),
            withdrawn: before.difference(&wanted).cloned().collect(),
            diagnoses: BTreeMap::new(),
            unsure: false,
        };
        let (announced, withdrawn) = (changes.announced.len(), changes.withdrawn.len());
        info!(announcer = %self.name, announced, withdrawn, "BIRD");
        self.desired.clone_from(desired);
        Ok(changes)
    }

    /// Waits, within the limit, until BIRD has what it was told: it reconfigures in the background.
    async fn confirm(&self, wanted: &BTreeSet<PrefixKey>) -> Result<(), AnnounceError> {
        let end = tokio::time::Instant::now() + self.settings.timeout;
        loop {
            let now = self.read().await?;
            if now == *wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                return Err(transient(format!(
                    "BIRD has {} prefixes instead of {}",
                    now.len(),
                    wanted.len()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn finish(&mut self, drain: Duration) {
        if !drain.is_zero() && matches!(self.settings.style, BirdStyle::Static { .. }) {
            let mut draining = self.desired.clone();
            draining.values_mut().for_each(|attributes| attributes.graceful_shutdown = true);
            match self.change(&draining).await {
                Ok(_) => tokio::time::sleep(drain).await,
                Err(error) => warn!(announcer = %self.name, %error, "no drain: withdrawing at once"),
            }
        }
        if let Err(failure) = self.change(&BTreeMap::new()).await {
            error!(announcer = %self.name, error = %failure, file = %self.settings.file.display(),
                "routes may still be announced");
        }
    }
}

/// The filter statements that give a static route its attributes, in braces; empty where there are none.
fn statements(attributes: &RouteAttributes) -> Result<String, String> {
    let mut says: Vec<String> = Vec::new();
    says.extend(attributes.med.map(|med| format!("bgp_med = {med};")));
    says.extend(attributes.local_pref.map(|preference| format!("bgp_local_pref = {preference};")));
    let mut communities = Vec::new();
    for text in &attributes.communities {
        communities.push(text.parse::<Community>().map_err(|error| error.to_string())?);
    }
    if attributes.graceful_shutdown {
        communities.push(Community::Standard(crate::bgp::community::GRACEFUL_SHUTDOWN));
    }
    for community in communities {
        let parts = community.to_string().replace(':', ",");
        says.push(match community {
            Community::Standard(_) => format!("bgp_community.add(({parts}));"),
            Community::Large(..) => format!("bgp_large_community.add(({parts}));"),
            Community::Extended(raw) => {
                let (high, low) = (raw >> 32, raw & 0xFFFF_FFFF);
                format!("bgp_ext_community.add((generic,0x{high:x},0x{low:x}));")
            }
        });
    }
    if attributes.next_hop.is_some() {
        return Err(
            "the BIRD announcer cannot set a next hop: use `next hop self` or `next hop address`".to_owned()
        );
    }
    if attributes.as_path_prepend > 0 {
        return Err("the BIRD announcer cannot prepend: BIRD knows the AS only per neighbour".to_owned());
    }
    Ok(if says.is_empty() { String::new() } else { format!(" {{ {} }}", says.join(" ")) })
}

/// Writes beside the file, flushes to disk, renames over it.
async fn replace(file: &Path, text: &str) -> Result<(), AnnounceError> {
    let (file, text) = (file.to_owned(), text.to_owned());
    let shown = file.display().to_string();
    let work = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        use std::io::Write;
        let mut temporary = file.clone().into_os_string();
        temporary.push(".new");
        let mut handle = std::fs::File::create(&temporary)?;
        if let Ok(metadata) = std::fs::metadata(&file) {
            handle.set_permissions(metadata.permissions())?;
        }
        handle.write_all(text.as_bytes())?;
        handle.sync_all()?;
        std::fs::rename(&temporary, &file)
    });
    match work.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(permanent(format!("write {shown}: {error}"))),
        Err(error) => Err(transient(format!("write {shown}: {error}"))),
    }
}

impl Announcer for BirdAnnouncer {
    fn name(&self) -> &str {
        &self.name
    }

    fn set<'a>(
        &'a mut self,
        desired: &'a BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Pin<Box<dyn Future<Output = Result<Changes, AnnounceError>> + Send + 'a>> {
        Box::pin(self.change(desired))
    }

    fn current<'a>(
        &'a mut self,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeSet<PrefixKey>, AnnounceError>> + Send + 'a>> {
        Box::pin(self.read())
    }

    fn shutdown<'a>(&'a mut self, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if let Shutdown::Withdraw { drain_ms, reason } = how {
                info!(announcer = %self.name, reason, "withdrawing everything");
                self.finish(Duration::from_millis(drain_ms)).await;
            }
        })
    }
}
