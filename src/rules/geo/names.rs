//! Names and the marker: what our pools and origins are called, and how a pool says whose it is.
//!
//! Pure. The names are those of the predecessor, so that its pools are taken over. The marker is part of a pool's
//! description: `managed-by=switchover-agent lb=HOST cluster=C geo=G owner=O[,O2] [state=empty|leaving]`. It is read up
//! to the first word that is none of these, so whatever people (or later versions, which append) wrote stays theirs.

use std::ops::Range;

use super::Steps;

/// First word of the marker.
const MANAGED_BY: &str = "managed-by=switchover-agent";

/// The locations that are known by name, with coordinates in ten-thousandths of a degree.
pub const PLACES: [(&str, Steps, Steps); 4] = [
    ("eu", 501_109, 86_821),
    ("us_east", 407_128, -740_060),
    ("us_west", 340_522, -1_182_437),
    ("asia", 356_762, 1_396_503),
];

/// The beginning of every pool's name.
pub const POOL_PREFIX: &str = "k8s-pool-";

/// FNV-1a, 64 bits: stable across releases and machines, which the standard library's hasher is not.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Six hexadecimal digits that stand for a text.
pub fn short_hash(text: &str) -> String {
    format!("{:06x}", fnv(text) >> 40)
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether a cluster's name can stand in a pool's name as it is.
pub fn is_plain(cluster: &str) -> bool {
    cluster.chars().all(plain)
}

/// The name of a cluster's pool. Characters that Cloudflare refuses become `-`, and then a hash tells such names
/// apart.
pub fn pool_name(cluster: &str, geo: &str) -> String {
    if is_plain(cluster) {
        return format!("{POOL_PREFIX}{cluster}-{geo}");
    }
    let cleaned: String = cluster.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    format!("{POOL_PREFIX}{cleaned}-{}-{geo}", short_hash(cluster))
}

/// The name of the only origin of a pool.
pub fn single_origin(geo: &str) -> String {
    format!("origin-{geo}")
}

/// The name of one of several origins.
pub fn origin(geo: &str, address: &str) -> String {
    format!("origin-{geo}-{}", short_hash(address))
}

/// The name of an origin in a pool that several clusters share on purpose.
pub fn shared_origin(geo: &str, owner: &str, address: &str) -> String {
    format!("origin-{geo}-{}-{}", short_hash(owner), short_hash(address))
}

/// Whether an origin's name says that it is ours.
pub fn is_own_origin(name: &str, geo: &str) -> bool {
    name.strip_prefix("origin-")
        .and_then(|rest| rest.strip_prefix(geo))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Why a pool of ours is out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rest {
    /// It has no address; it stays and is enabled again when there is one.
    Empty,
    /// It is about to be deleted.
    Leaving,
}

/// What a pool's description says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Marker {
    /// The load balancer that it belongs to.
    pub lb: String,
    /// The cluster's label value.
    pub cluster: String,
    /// Location.
    pub geo: String,
    /// Who writes it; more than one is a conflict, or a shared pool.
    pub owners: Vec<String>,
    /// Why we disabled it; `None` = we did not.
    pub rest: Option<Rest>,
}

impl Marker {
    /// Reads the marker out of a description; `None` = there is none or it is not whole.
    pub fn read(description: &str) -> Option<Self> {
        Self::find(description).map(|(_, marker)| marker)
    }

    /// The first whole marker and where it stands.
    fn find(description: &str) -> Option<(Range<usize>, Self)> {
        let whole_word = |at: usize| at == 0 || description[..at].ends_with(char::is_whitespace);
        let starts = description.match_indices(MANAGED_BY).map(|(at, _)| at).filter(|at| whole_word(*at));
        starts.into_iter().find_map(|start| Self::read_at(description, start))
    }

    fn read_at(description: &str, start: usize) -> Option<(Range<usize>, Self)> {
        let (mut lb, mut cluster, mut geo, mut owners, mut rest) = (None, None, None, None, None);
        let mut end = start + MANAGED_BY.len();
        loop {
            let tail = &description[end..];
            let blank = tail.len() - tail.trim_start().len();
            let word = tail.trim_start().split(char::is_whitespace).next().unwrap_or_default();
            let Some((key, value)) = word.split_once('=').filter(|_| blank > 0) else { break };
            let text = || Some(value.to_owned());
            match key {
                "lb" if lb.is_none() => lb = text(),
                "cluster" if cluster.is_none() => cluster = text(),
                "geo" if geo.is_none() => geo = text(),
                "owner" if owners.is_none() => owners = Some(value.split(',').map(str::to_owned).collect()),
                "state" if rest.is_none() && value == "empty" => rest = Some(Rest::Empty),
                "state" if rest.is_none() && value == "leaving" => rest = Some(Rest::Leaving),
                _ => break,
            }
            end += blank + word.len();
        }
        Some((start..end, Self { lb: lb?, cluster: cluster?, geo: geo?, owners: owners?, rest }))
    }

    /// Whether nobody but `owner` writes the pool.
    pub fn is_only(&self, owner: &str) -> bool {
        self.owners.len() == 1 && self.owners[0] == owner
    }

    /// Puts the marker into a description; what a person wrote around it stays to the letter.
    pub fn write_into(&self, description: &str) -> String {
        match Self::find(description) {
            Some((place, _)) => format!("{}{self}{}", &description[..place.start], &description[place.end..]),
            None if description.trim().is_empty() => self.to_string(),
            None => format!("{description} {self}"),
        }
    }
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owners = self.owners.join(",");
        write!(f, "{MANAGED_BY} lb={} cluster={} geo={} owner={owners}", self.lb, self.cluster, self.geo)?;
        match self.rest {
            None => Ok(()),
            Some(Rest::Empty) => f.write_str(" state=empty"),
            Some(Rest::Leaving) => f.write_str(" state=leaving"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_beside_what_a_person_wrote() {
        let marker = Marker {
            lb: "x.test".into(),
            cluster: "c1".into(),
            geo: "eu".into(),
            owners: vec!["a".into()],
            rest: Some(Rest::Empty),
        };
        let text = marker.write_into("call 555 first");
        assert_eq!(Marker::read(&text), Some(marker.clone()));
        assert!(text.starts_with("call 555 first "));
        let awake = Marker { rest: None, ..marker };
        let text = awake.write_into(&text);
        assert_eq!(Marker::read(&text), Some(awake));
        assert_eq!(text.matches("owner=").count(), 1);
        assert_eq!(Marker::read("lb=x.test owner=a"), None);
    }

    #[test]
    fn words_of_people_and_of_later_versions_are_not_the_marker_s() {
        let marker = Marker {
            lb: "x.test".into(),
            cluster: "c1".into(),
            geo: "eu".into(),
            owners: vec!["a".into()],
            rest: None,
        };
        let around = format!("owner=jane\n  on call:  555 {marker} v=2 owner=joe state=empty  (see wiki)");
        assert_eq!(Marker::read(&around), Some(marker.clone()));
        assert_eq!(marker.write_into(&around), around, "nothing to say, nothing changed");
        let empty = Marker { rest: Some(Rest::Empty), ..marker.clone() };
        let text = empty.write_into(&around);
        assert_eq!(text, around.replace("owner=a v=2", "owner=a state=empty v=2"));
        assert_eq!(Marker::read(&text), Some(empty));
        // A marker that lost a word is none; the next whole one counts.
        let broken = format!("{MANAGED_BY} lb=x.test cluster=c1; {marker}");
        assert_eq!(Marker::read(&broken), Some(marker));
        assert_eq!(Marker::read(&format!("x{MANAGED_BY} lb=x cluster=c geo=g owner=o")), None);
    }

    #[test]
    fn names_that_differ_stay_different() {
        assert_eq!(pool_name("prod-1", "us_east"), "k8s-pool-prod-1-us_east");
        assert_ne!(pool_name("prod.eu", "eu"), pool_name("prod-eu", "eu"));
        assert_ne!(pool_name("prod.eu", "eu"), pool_name("prod/eu", "eu"));
        assert!(is_own_origin("origin-eu-12", "eu") && is_own_origin("origin-eu", "eu"));
        assert!(!is_own_origin("origin-europe", "eu") && !is_own_origin("manual-1", "eu"));
    }
}
