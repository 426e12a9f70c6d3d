//! `assigned_address`: an address is assigned to this machine, on a certain interface where one is named.
//!
//! Owns a snapshot of the machine's addresses, shared by all checks of the kind and at most 50 ms old, so that
//! thousands of them cost one system call. Link state and prefix length play no part.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Boxed, Check, Report};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The address.
    pub address: IpAddr,
    /// Name of the interface that must have it; any where `None`.
    pub interface: Option<String>,
}

type Snapshot = Arc<Vec<(String, IpAddr)>>;

/// How old a snapshot may be.
const FRESH: Duration = Duration::from_millis(50);

static LATEST: Mutex<Option<(Instant, Snapshot)>> = Mutex::new(None);

/// The check.
#[derive(Debug)]
pub struct AddressCheck {
    spec: Spec,
}

impl AddressCheck {
    /// A check for the address.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }

    fn look(&self) -> Report {
        let snapshot = match addresses() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                return Report::unknown(format!("can't list the addresses of this machine: {error}"));
            }
        };
        let Spec { address, interface } = &self.spec;
        let owners: Vec<&str> = snapshot
            .iter()
            .filter(|(_, assigned)| assigned == address)
            .map(|(interface, _)| interface.as_str())
            .collect();
        match interface {
            _ if owners.is_empty() => Report::fail(format!("{address} is not assigned")),
            Some(name) if !owners.contains(&name.as_str()) => {
                Report::fail(format!("{address} is assigned to {}, not to {name}", owners.join(", ")))
            }
            _ => Report::pass(),
        }
    }
}

impl Check for AddressCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(async { self.look() })
    }
}

/// Interface and address of everything assigned now, or a moment ago.
fn addresses() -> nix::Result<Snapshot> {
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, snapshot)) = latest.as_ref()
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(snapshot));
    }
    let list: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()?
        .filter_map(|entry| {
            let storage = entry.address?;
            let ip = storage
                .as_sockaddr_in()
                .map(|v4| SocketAddr::from(*v4).ip())
                .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            Some((entry.interface_name, ip))
        })
        .collect();
    let snapshot = Arc::new(list);
    *latest = Some((Instant::now(), Arc::clone(&snapshot)));
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Sample;

    fn look(address: &str, interface: Option<&str>) -> Report {
        let spec = Spec { address: address.parse().unwrap(), interface: interface.map(str::to_owned) };
        AddressCheck::new(spec).look()
    }

    #[test]
    fn the_address_must_be_there_and_on_the_named_interface() {
        assert_eq!(look("127.0.0.1", None).sample, Sample::Pass);
        assert_eq!(look("127.0.0.1", Some("lo")).sample, Sample::Pass);
        assert_eq!(look("203.0.113.77", None).reason, "203.0.113.77 is not assigned");
        assert_eq!(look("127.0.0.1", Some("eth9")).reason, "127.0.0.1 is assigned to lo, not to eth9");
    }
}
