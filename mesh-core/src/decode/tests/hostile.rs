//! Anything at all: no bytes make the decoder panic, and what it takes is what the model promises.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::Index;

use super::{DecodeResource, Decoded, Message, decoder, manager};
use crate::model::{Action, ClusterChoice, Endpoints, HeaderTest, Pattern, RouteTable, StringMatch};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

/// Something valid of each type, to be spoiled.
fn valid(type_url: &str) -> Vec<u8> {
    match type_url {
        LISTENER => super::listener::server(super::listener::chain(&manager())).encode_to_vec(),
        ROUTE_CONFIGURATION => super::route::rich(),
        CLUSTER => super::cluster::rich(),
        _ => super::endpoints::rich(),
    }
}

fn check(decoded: Decoded) {
    match decoded {
        Decoded::Err { faults, .. } => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.rule.is_empty()));
        }
        Decoded::Ok { name, value } => {
            assert!(!name.is_empty());
            if let Some(table) = value.downcast_ref::<RouteTable>() {
                check_routes(table);
            }
            if let Some(endpoints) = value.downcast_ref::<Endpoints>() {
                check_endpoints(endpoints);
            }
        }
    }
}

fn check_routes(table: &RouteTable) {
    for host in &table.virtual_hosts {
        assert!(!host.domains.is_empty());
        for route in &host.routes {
            for header in &route.matches.headers {
                if let HeaderTest::String(test) = &header.test {
                    check_string(test);
                }
            }
            let Action::Forward(forward) = &route.action else { continue };
            if let ClusterChoice::Weighted(weighted) = &forward.cluster {
                assert!(weighted.clusters.iter().all(|cluster| cluster.weight > 0));
                let sum: u64 = weighted.clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
                assert_eq!(sum, u64::from(weighted.total));
                assert!(sum > 0);
            }
            if let Some(retry) = &forward.retry {
                assert!(retry.num_retries > 0);
                assert!(!retry.backoff.base.is_zero() && retry.backoff.base <= retry.backoff.max);
            }
        }
    }
}

fn check_string(test: &StringMatch) {
    if let Pattern::Prefix(text) | Pattern::Suffix(text) | Pattern::Contains(text) = &test.pattern {
        assert!(!text.is_empty());
    }
}

fn check_endpoints(endpoints: &Endpoints) {
    let mut priorities: Vec<u32> = endpoints.localities.iter().map(|locality| locality.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    assert!(priorities.iter().zip(0..).all(|(priority, rank)| *priority == rank), "{priorities:?}");
    for locality in &endpoints.localities {
        assert!(locality.weight > 0 && locality.endpoints.iter().all(|endpoint| endpoint.weight > 0));
        let sum: u64 = locality.endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        assert!(u32::try_from(sum).is_ok());
    }
    assert!(endpoints.drops.iter().all(|drop| drop.fraction.numerator <= drop.fraction.denominator));
}

#[derive(Debug, Clone)]
enum Spoil {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Repeat(Index, Index),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        any::<Index>().prop_map(Spoil::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Insert(at, byte)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Spoil::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, spoil: &Spoil) {
    if bytes.is_empty() {
        return;
    }
    match spoil {
        Spoil::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Spoil::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Spoil::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Spoil::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
        Spoil::Repeat(from, to) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let again = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend(again);
        }
    }
}

#[test]
fn what_is_spoiled_is_valid_before() {
    for type_url in TYPES {
        match decoder().decode(type_url, &valid(type_url)) {
            Decoded::Ok { .. } => {}
            Decoded::Err { faults, .. } => panic!("{type_url}: {faults:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for type_url in TYPES {
            check(decoder().decode(type_url, &bytes));
        }
    }

    #[test]
    fn spoiled_resources_are_taken_or_refused(spoils in prop::collection::vec(spoil(), 1..6)) {
        for type_url in TYPES {
            let mut bytes = valid(type_url);
            spoils.iter().for_each(|spoil| apply(&mut bytes, spoil));
            check(decoder().decode(type_url, &bytes));
        }
    }

    /// Numbers where numbers go: the sums and gaps that byte noise rarely finds.
    #[test]
    fn weights_and_priorities_hold_together(
        weights in prop::collection::vec(prop_oneof![Just(None), (0u32..3).prop_map(Some), Just(Some(u32::MAX))], 0..6),
        priorities in prop::collection::vec(0u32..4, 6),
    ) {
        check(decoder().decode(ROUTE_CONFIGURATION, &super::route::weighted(&weights)));
        check(decoder().decode(CLUSTER_LOAD_ASSIGNMENT, &super::endpoints::weighted(&weights, &priorities)));
    }
}
