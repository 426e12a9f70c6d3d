//! The wanted routes as one immutable table, and the difference between two of them.
//!
//! Pure. A table is made once per change and shared by all sessions, so that ten neighbours cost one copy; a session
//! remembers the last table that it sent, and what it has to send is the difference to the newest. Intermediate
//! tables that a slow neighbour never got are skipped, which bounds its output by construction.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::announce::RouteAttributes;

/// Wanted routes: sorted prefixes, each with the number of its attribute group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    generation: u64,
    groups: Vec<RouteAttributes>,
    routes: Vec<(IpNet, u32)>,
}

/// What makes one table from another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// No longer wanted.
    pub withdraw: Vec<IpNet>,
    /// New, or with other attributes; prefixes that share all attributes are together.
    pub announce: Vec<(RouteAttributes, Vec<IpNet>)>,
}

impl Table {
    /// A table of these routes; equal attributes are stored once.
    pub fn new<'a>(generation: u64, wanted: impl Iterator<Item = (IpNet, &'a RouteAttributes)>) -> Self {
        let mut numbers: BTreeMap<&RouteAttributes, u32> = BTreeMap::new();
        let mut routes: Vec<(IpNet, u32)> = Vec::new();
        for (prefix, attributes) in wanted {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            routes.push((prefix.trunc(), *numbers.entry(attributes).or_insert(next)));
        }
        let mut groups = vec![RouteAttributes::default(); numbers.len()];
        for (attributes, number) in numbers {
            groups[number as usize] = attributes.clone();
        }
        routes.sort_by_key(|(prefix, _)| *prefix);
        routes.dedup_by_key(|(prefix, _)| *prefix);
        Self { generation, groups, routes }
    }

    /// Which change of the wanted set this is; 0 = nothing was ever wanted.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many prefixes are wanted.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Every wanted prefix, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.routes.iter().map(|(prefix, _)| *prefix)
    }

    /// The same routes, all with GRACEFUL_SHUTDOWN.
    pub fn draining(&self, generation: u64) -> Self {
        let groups =
            self.groups.iter().map(|g| RouteAttributes { graceful_shutdown: true, ..g.clone() }).collect();
        Self { generation, groups, routes: self.routes.clone() }
    }

    /// The same table without some prefixes.
    pub fn without(&self, prefixes: &BTreeSet<IpNet>) -> Self {
        let mut rest = self.clone();
        rest.routes.retain(|(prefix, _)| !prefixes.contains(prefix));
        rest
    }

    /// What to send to somebody who has `sent`, limited to the prefixes that `covers` accepts.
    pub fn since(&self, sent: &Self, covers: impl Fn(&IpNet) -> bool) -> Delta {
        let mut withdraw = Vec::new();
        let mut announce: Vec<Vec<IpNet>> = vec![Vec::new(); self.groups.len()];
        let mut old = sent.routes.iter().filter(|(p, _)| covers(p)).peekable();
        for (prefix, group) in self.routes.iter().filter(|(p, _)| covers(p)) {
            while let Some((gone, _)) = old.next_if(|(p, _)| p < prefix) {
                withdraw.push(*gone);
            }
            let same = old
                .next_if(|(p, _)| p == prefix)
                .is_some_and(|(_, was)| sent.groups[*was as usize] == self.groups[*group as usize]);
            if !same {
                announce[*group as usize].push(*prefix);
            }
        }
        withdraw.extend(old.map(|(prefix, _)| *prefix));
        let announce = self.groups.iter().cloned().zip(announce).filter(|(_, p)| !p.is_empty()).collect();
        Delta { withdraw, announce }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(generation: u64, routes: &[(&str, u32)]) -> Table {
        let wanted: BTreeMap<IpNet, RouteAttributes> = routes
            .iter()
            .map(|(p, med)| (p.parse().unwrap(), RouteAttributes { med: Some(*med), ..Default::default() }))
            .collect();
        Table::new(generation, wanted.iter().map(|(p, a)| (*p, a)))
    }

    #[test]
    fn only_the_difference_is_sent_and_equal_attributes_share_a_group() {
        let old = table(1, &[("10.0.0.1/32", 1), ("10.0.0.2/32", 1), ("10.0.0.3/32", 1)]);
        let new =
            table(2, &[("10.0.0.2/32", 1), ("10.0.0.3/32", 9), ("10.0.0.4/32", 9), ("2001:db8::/64", 9)]);
        let delta = new.since(&old, |_| true);
        assert_eq!(delta.withdraw, ["10.0.0.1/32".parse::<IpNet>().unwrap()]);
        assert_eq!(delta.announce.len(), 1);
        assert_eq!(delta.announce[0].0.med, Some(9));
        assert_eq!(delta.announce[0].1.len(), 3);
        assert_eq!(new.since(&new, |_| true), Delta::default());
    }

    #[test]
    fn a_family_that_the_neighbour_lacks_is_left_out() {
        let old = Table::default();
        let new = table(1, &[("10.0.0.2/32", 1), ("2001:db8::/64", 1)]);
        let delta = new.since(&old, |p| p.addr().is_ipv4());
        assert_eq!(delta.announce[0].1, ["10.0.0.2/32".parse::<IpNet>().unwrap()]);
    }

    proptest::proptest! {
        #[test]
        fn applying_a_difference_gives_the_new_table(
            a in proptest::collection::btree_map(0u8..40, 0u32..3, 0..30),
            b in proptest::collection::btree_map(0u8..40, 0u32..3, 0..30),
        ) {
            let make = |routes: &BTreeMap<u8, u32>| -> Vec<(String, u32)> {
                routes.iter().map(|(n, med)| (format!("10.0.0.{n}/32"), *med)).collect()
            };
            let (a, b) = (make(&a), make(&b));
            let texts = |v: &[(String, u32)]| {
                let routes: Vec<(&str, u32)> = v.iter().map(|(p, med)| (p.as_str(), *med)).collect();
                table(1, &routes)
            };
            let (old, new) = (texts(&a), texts(&b));
            let delta = new.since(&old, |_| true);
            let mut state: BTreeMap<IpNet, Option<u32>> =
                a.iter().map(|(p, m)| (p.parse().unwrap(), Some(*m))).collect();
            for prefix in &delta.withdraw {
                proptest::prop_assert!(state.remove(prefix).is_some(), "withdrew what was never sent");
            }
            for (attributes, prefixes) in &delta.announce {
                for prefix in prefixes {
                    state.insert(*prefix, attributes.med);
                }
            }
            let want: BTreeMap<IpNet, Option<u32>> =
                b.iter().map(|(p, med)| (p.parse().unwrap(), Some(*med))).collect();
            proptest::prop_assert_eq!(state, want);
        }
    }
}
