//! Which `network` statements in FRR are ours, also after a crash: written down before a statement is made and struck
//! out after it is gone.
//!
//! Owns one small file beside the control socket, which counts until the machine starts anew, as FRR's running
//! configuration does. With it a prefix that a crash left is removed even when the file no longer names it; a statement that
//! was never ours is in nobody's memory and stays. Never reads or changes FRR.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::announce::PrefixKey;
use crate::config::bgp::valid_interface;

/// Largest file that is read: some hundred thousand prefixes.
const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

/// The statements that are ours.
#[derive(Debug, Default)]
pub struct Memory {
    path: Option<PathBuf>,
    known: BTreeSet<PrefixKey>,
    /// Whether a failure to write was told.
    told: bool,
}

impl Memory {
    /// What the former process with this control socket and this `vtysh` left. A file that is not there is an empty
    /// memory; lines that make no sense are left out.
    pub fn beside(socket: &Path, vtysh: &Path) -> Self {
        let digest = hex::encode(&Sha256::digest(vtysh.as_os_str().as_encoded_bytes())[..4]);
        let path = socket.with_extension(format!("frr-{digest}.routes"));
        let known = match read(&path) {
            // What another boot left says nothing about an FRR that has started since.
            Ok(text) if text.lines().next() == Some(boot().as_str()) => {
                text.lines().skip(1).filter_map(line).collect()
            }
            Ok(_) => BTreeSet::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "which routes a former process left is not known");
                BTreeSet::new()
            }
        };
        Self { path: Some(path), known, told: false }
    }

    /// What is ours.
    pub fn known(&self) -> &BTreeSet<PrefixKey> {
        &self.known
    }

    /// Before statements are made.
    pub fn add<'a>(&mut self, keys: impl Iterator<Item = &'a PrefixKey>) {
        let before = self.known.len();
        self.known.extend(keys.cloned());
        if self.known.len() != before {
            self.write();
        }
    }

    /// After FRR was seen to have exactly these of ours.
    pub fn settle<'a>(&mut self, keys: impl Iterator<Item = &'a PrefixKey>) {
        let now: BTreeSet<PrefixKey> = keys.cloned().collect();
        if now != self.known {
            self.known = now;
            self.write();
        }
    }

    /// A memory that cannot be kept is told once, and holds up no route.
    fn write(&mut self) {
        let Some(path) = &self.path else { return };
        let mut text = boot();
        text.push('\n');
        for key in &self.known {
            let _ = writeln!(text, "{key}");
        }
        let fresh = path.with_extension("new");
        if let Err(error) = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path))
            && !std::mem::replace(&mut self.told, true)
        {
            warn!(path = %path.display(), %error, "which routes are ours is not kept for the next start");
        }
    }
}

/// The kernel's name for this run of the machine.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn read(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > SIZE_LIMIT {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    std::fs::read_to_string(path)
}

/// `PREFIX` or `PREFIX vrf NAME`; the name becomes part of a command.
fn line(text: &str) -> Option<PrefixKey> {
    let (prefix, vrf) = text.split_once(" vrf ").map_or((text, None), |(prefix, vrf)| (prefix, Some(vrf)));
    let prefix = prefix.parse::<ipnet::IpNet>().ok()?.trunc();
    let vrf = match vrf {
        Some(name) if valid_interface(name) => Some(name.to_owned()),
        Some(_) => return None,
        None => None,
    };
    Some(PrefixKey { prefix, vrf })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(prefix: &str, vrf: Option<&str>) -> PrefixKey {
        PrefixKey { prefix: prefix.parse().unwrap(), vrf: vrf.map(str::to_owned) }
    }

    #[tokio::test]
    async fn what_was_added_is_known_to_the_next_process_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, vtysh) = (folder.path().join("control.sock"), Path::new("/usr/bin/vtysh"));
        let keys = [key("203.0.113.1/32", None), key("2001:db8::/48", Some("red"))];
        let mut memory = Memory::beside(&socket, vtysh);
        assert!(memory.known().is_empty());
        memory.add(keys.iter());
        assert_eq!(Memory::beside(&socket, vtysh).known(), &BTreeSet::from(keys.clone()));
        assert!(Memory::beside(&socket, Path::new("/opt/vtysh")).known().is_empty(), "another FRR");
        memory.settle(keys[..1].iter());
        assert_eq!(Memory::beside(&socket, vtysh).known().len(), 1);
        let path = memory.path.clone().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(&boot(), "another-boot")).unwrap();
        assert!(Memory::beside(&socket, vtysh).known().is_empty(), "the machine has started anew since");
    }

    #[test]
    fn lines_that_would_become_commands_are_left_out() {
        assert_eq!(line("203.0.113.1/32 vrf red"), Some(key("203.0.113.1/32", Some("red"))));
        for bad in ["", "203.0.113.1/33", "x", "203.0.113.1/32 vrf a b", "203.0.113.1/32 vrf "] {
            assert_eq!(line(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_holds_up_nothing() {
        let mut memory = Memory::beside(Path::new("/proc/nowhere/control.sock"), Path::new("/usr/bin/vtysh"));
        memory.add([key("203.0.113.1/32", None)].iter());
        assert_eq!(memory.known().len(), 1);
    }
}
