//! Longest-prefix lookup: few prefixes, so a sorted list beats a trie.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::listener::canonical;

/// Values by address range, and one for "not said", which ranks below `/0`.
#[derive(Debug)]
pub(super) struct PrefixMap<T> {
    ranges: Vec<(IpNet, T)>,
    unspecified: Option<T>,
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self { ranges: Vec::new(), unspecified: None }
    }
}

impl<T: Default> PrefixMap<T> {
    /// The value of `range`, made on first use.
    pub(super) fn entry(&mut self, range: Option<IpNet>) -> &mut T {
        let Some(range) = range.map(canonical) else {
            return self.unspecified.get_or_insert_with(T::default);
        };
        let at = match self.ranges.iter().position(|(known, _)| *known == range) {
            Some(at) => at,
            None => {
                self.ranges.push((range, T::default()));
                self.ranges.len() - 1
            }
        };
        &mut self.ranges[at].1
    }

    /// Call once everything is in: sorts by length, longest first.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&mut T)) {
        self.ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
        self.ranges.iter_mut().map(|(_, value)| value).chain(&mut self.unspecified).for_each(&mut each);
    }

    /// The value of the longest range that holds `address`.
    pub(super) fn find(&self, address: IpAddr) -> Option<&T> {
        let longest = self.ranges.iter().find(|(range, _)| range.contains(&address));
        longest.map(|(_, value)| value).or(self.unspecified.as_ref())
    }

    /// The value for "not said".
    pub(super) fn unspecified(&self) -> Option<&T> {
        self.unspecified.as_ref()
    }
}
