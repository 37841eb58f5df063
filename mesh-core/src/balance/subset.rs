//! Which endpoints of a very large set a client is connected to.
//!
//! A policy that keeps every endpoint connected must not open a hundred thousand connections. Each client takes a part of
//! its own, by rendezvous hashing as in gRFC A68: the parts of many clients cover the set evenly, and few of its members
//! change when endpoints come and go.

use std::net::{IpAddr, SocketAddr};

use twox_hash::XxHash64;

use super::ready::mix;
use crate::model::{Endpoint, Endpoints};

/// Of each locality so many times its share are kept in order, to stand in for those that fail.
const RESERVE: usize = 2;

/// The endpoints of a set that are taken first.
#[derive(Debug)]
pub struct Subset {
    groups: Vec<Group>,
}

/// Those of one locality of one priority, which keeps its share of the whole.
#[derive(Debug)]
struct Group {
    share: usize,
    /// In the order in which they are taken.
    ranked: Vec<Place>,
}

/// Which endpoint of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its locality's index.
    pub locality: usize,
    /// Its index there.
    pub endpoint: usize,
}

impl Place {
    /// The endpoint.
    pub fn of<'a>(&self, endpoints: &'a Endpoints) -> Option<&'a Endpoint> {
        endpoints.localities.get(self.locality)?.endpoints.get(self.endpoint)
    }
}

impl Subset {
    /// About `most` of `endpoints`, of each locality and priority its share and at least one. None: they are no more than
    /// that, and all are taken. `seed` is the client's own.
    pub fn new(endpoints: &Endpoints, most: usize, seed: u64) -> Option<Self> {
        let total = endpoints.len();
        if total <= most {
            return None;
        }
        let mut groups = Vec::new();
        let mut left = most.saturating_mul(RESERVE).max(1);
        let mut order: Vec<usize> = (0..endpoints.localities.len()).collect();
        // A set of nothing but small localities is cut off where it is needed least.
        order.sort_by_key(|index| endpoints.localities[*index].priority);
        for locality in order {
            let members = &endpoints.localities[locality].endpoints;
            let takes = members.iter().enumerate().filter(|(_, endpoint)| endpoint.health.takes_requests());
            let mut ranked: Vec<(u64, usize)> =
                takes.map(|(index, endpoint)| (rank(endpoint.address, seed), index)).collect();
            let share = members.len().saturating_mul(most).div_ceil(total).max(1).min(left);
            if ranked.is_empty() || share == 0 {
                continue;
            }
            left -= share;
            let kept = share.saturating_mul(RESERVE).min(ranked.len());
            ranked.select_nth_unstable(kept - 1);
            ranked.truncate(kept);
            ranked.sort_unstable();
            // Collected from a reference: by value it would keep the room for all.
            let ranked = ranked.iter().map(|(_, endpoint)| Place { locality, endpoint: *endpoint }).collect();
            groups.push(Group { share, ranked });
        }
        Some(Self { groups })
    }

    /// Those to be connected to now, in the order of the set: of each locality its share of such that have not failed, as
    /// far as there are any in reserve, and those before them that have, as they may come back.
    pub fn choose(&self, is_failed: impl Fn(Place) -> bool) -> Vec<Place> {
        let mut chosen = Vec::new();
        for group in &self.groups {
            let mut well = 0;
            let wanted = group.ranked.iter().take_while(|place| {
                let more = well < group.share;
                well += usize::from(!is_failed(**place));
                more
            });
            chosen.extend(wanted.copied());
        }
        chosen.sort_unstable();
        chosen
    }
}

fn rank(address: SocketAddr, seed: u64) -> u64 {
    let port = address.port().to_be_bytes();
    let hash = match address.ip() {
        IpAddr::V4(ip) => XxHash64::oneshot(seed, &[&ip.octets()[..], &port].concat()),
        IpAddr::V6(ip) => XxHash64::oneshot(seed, &[&ip.octets()[..], &port].concat()),
    };
    mix(hash)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Health, Locality, LocalityEndpoints, Metadata};

    fn locality(number: u8, priority: u32, count: u32) -> LocalityEndpoints {
        let endpoint = |index: u32| {
            let [_, a, b, c] = index.to_be_bytes();
            Endpoint {
                address: SocketAddr::from(([number, a, b, c], 80)),
                additional: Vec::new(),
                weight: 1,
                health: Health::Unknown,
                hostname: "".into(),
                metadata: Metadata::new(),
            }
        };
        let locality = Arc::new(Locality { zone: number.to_string().into(), ..Locality::default() });
        let endpoints = (0..count).map(endpoint).collect();
        LocalityEndpoints { locality, priority, weight: 1, metadata: Metadata::new(), endpoints }
    }

    fn set(localities: Vec<LocalityEndpoints>) -> Endpoints {
        Endpoints { localities, drops: Vec::new(), overprovisioning_factor: 140 }
    }

    fn addresses(endpoints: &Endpoints, seed: u64) -> BTreeSet<SocketAddr> {
        let subset = Subset::new(endpoints, 100, seed).unwrap();
        subset.choose(|_| false).iter().map(|place| place.of(endpoints).unwrap().address).collect()
    }

    #[test]
    fn a_set_that_is_not_too_large_is_taken_whole() {
        assert!(Subset::new(&set(vec![locality(1, 0, 60), locality(2, 0, 40)]), 100, 1).is_none());
    }

    #[test]
    fn each_locality_and_priority_keeps_its_share_and_at_least_one() {
        let endpoints = set(vec![locality(1, 0, 7_500), locality(2, 0, 2_499), locality(3, 1, 1)]);
        let chosen = Subset::new(&endpoints, 100, 1).unwrap().choose(|_| false);
        let of = |locality| chosen.iter().filter(|place| place.locality == locality).count();
        assert_eq!([of(0), of(1), of(2)], [75, 25, 1]);
    }

    /// However many localities a control plane makes up.
    #[test]
    fn no_set_makes_more_connections_than_twice_the_bound() {
        let many = (0..250).map(|number| locality(number, 0, 2)).collect();
        let chosen = Subset::new(&set(many), 100, 1).unwrap().choose(|_| false);
        assert_eq!(chosen.len(), 200);
    }

    #[test]
    fn clients_cover_the_set_evenly_and_keep_their_part_when_it_changes() {
        let endpoints = set(vec![locality(1, 0, 1_000)]);
        let mut counts = std::collections::BTreeMap::<SocketAddr, u32>::new();
        for seed in 0..500 {
            addresses(&endpoints, seed).into_iter().for_each(|address| *counts.entry(address).or_default() += 1);
        }
        assert_eq!(counts.len(), 1_000, "everyone is called");
        // 50 on average; the binomial's standard deviation is 6.7.
        assert!(counts.values().all(|count| (15..=90).contains(count)), "{:?}", counts.values().max());
        let fewer = set(vec![locality(1, 0, 990)]);
        let kept = addresses(&endpoints, 7).intersection(&addresses(&fewer, 7)).count();
        assert!(kept >= 90, "{kept} of 100 stay though 10 of 1,000 went");
    }

    #[test]
    fn what_fails_is_stood_in_for_and_not_given_up() {
        let endpoints = set(vec![locality(1, 0, 1_000)]);
        let subset = Subset::new(&endpoints, 100, 1).unwrap();
        let first = subset.choose(|_| false);
        let failed = first[..30].to_vec();
        let second = subset.choose(|place| failed.contains(&place));
        assert_eq!(second.len(), 130);
        assert!(first.iter().all(|place| second.contains(place)));
        assert_eq!(subset.choose(|_| true).len(), 200, "the reserve has an end");
    }

    #[test]
    fn what_takes_no_requests_takes_no_place() {
        let mut only = locality(1, 0, 1_000);
        for endpoint in &mut only.endpoints[10..] {
            endpoint.health = Health::Unhealthy;
        }
        assert_eq!(Subset::new(&set(vec![only]), 100, 1).unwrap().choose(|_| false).len(), 10);
    }
}
