//! What the policies promise, as tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::model::{Endpoint, Health, Locality};

/// How a test wants a candidate to be.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Ready,
    Idle,
    Failed,
}
use Is::{Failed, Idle, Ready};

/// A list of candidates under construction: address `10.0.0.N:80` for the Nth.
#[derive(Default)]
struct List(Vec<Arc<Candidate>>);

impl List {
    fn of(states: &[Is]) -> Self {
        states.iter().fold(Self::default(), |list, is| list.and(*is, 1, 0, "a", 1))
    }

    fn and(mut self, is: Is, weight: u32, priority: u32, zone: &str, locality_weight: u32) -> Self {
        let number = self.0.len();
        let state = Arc::new(CandidateState::default());
        match is {
            Ready => state.set_ready(),
            Idle => {}
            Failed => state.set_failed(),
        }
        self.0.push(Arc::new(Candidate {
            endpoint: Arc::new(Endpoint {
                address: SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 80)),
                additional: Vec::new(),
                weight,
                health: Health::Unknown,
                hostname: "".into(),
                metadata: BTreeMap::new(),
            }),
            locality: Arc::new(Locality { zone: zone.into(), ..Locality::default() }),
            priority,
            locality_weight,
            state,
            observer: None,
        }));
        self
    }

    fn named(mut self, names: &[&str]) -> Self {
        for (candidate, name) in self.0.iter_mut().zip(names) {
            let mut endpoint = (*candidate.endpoint).clone();
            endpoint.metadata.insert("envoy.lb".into(), serde_json::json!({ "hash_key": name }));
            *candidate = Arc::new(Candidate { endpoint: Arc::new(endpoint), ..copy(candidate) });
        }
        self
    }

    fn with_health(mut self, index: usize, health: Health) -> Self {
        let mut endpoint = (*self.0[index].endpoint).clone();
        endpoint.health = health;
        self.0[index] = Arc::new(Candidate { endpoint: Arc::new(endpoint), ..copy(&self.0[index]) });
        self
    }
}

fn copy(candidate: &Candidate) -> Candidate {
    Candidate {
        endpoint: candidate.endpoint.clone(),
        locality: candidate.locality.clone(),
        priority: candidate.priority,
        locality_weight: candidate.locality_weight,
        state: candidate.state.clone(),
        observer: None,
    }
}

fn input(random: u64) -> PickInput<'static> {
    PickInput { hash: None, tried: &[], override_host: None, metadata: None, random }
}

fn hashed(hash: u64) -> PickInput<'static> {
    PickInput { hash: Some(hash), ..input(0) }
}

/// How often each candidate is picked over `n` picks with well-spread randomness.
fn counts(picker: &Arc<dyn Picker>, n: u64) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for turn in 0..n {
        match picker.pick(&input(ready::mix(turn))) {
            Pick::Candidate(index) => *counts.entry(index).or_insert(0) += 1,
            other => panic!("turn {turn}: {other:?}"),
        }
    }
    counts
}

fn policies() -> Vec<Arc<dyn PolicyConfig>> {
    vec![
        Arc::new(RoundRobinConfig),
        Arc::new(RandomConfig),
        Arc::new(LeastRequestConfig::default()),
        Arc::new(PickFirstConfig { shuffle: false }),
        Arc::new(PickFirstConfig { shuffle: true }),
        Arc::new(RingHashConfig::default()),
        Arc::new(MaglevConfig { table_size: 251, use_hostname: false }),
        Arc::new(ClientSideWrrConfig::default()),
        Arc::new(WrrLocality { child: Arc::new(RoundRobinConfig) }),
    ]
}

#[test]
fn every_policy_picks_ready_endpoints_only() {
    let cases: &[(&[Is], &[usize])] =
        &[(&[Failed, Ready, Failed], &[1]), (&[Ready], &[0]), (&[Failed, Failed, Ready, Ready], &[2, 3])];
    for policy in policies() {
        for (states, allowed) in cases {
            let picker = policy.build(&List::of(states).0, None, 1);
            for (index, _) in counts(&picker, 50) {
                assert!(allowed.contains(&index), "{policy:?} picked {index}");
            }
        }
    }
}

#[test]
fn every_policy_waits_while_one_may_connect_and_fails_when_all_have_failed() {
    for policy in policies() {
        for states in [&[Failed, Failed][..], &[]] {
            let picker = policy.build(&List::of(states).0, None, 1);
            assert_eq!(picker.pick(&input(7)), Pick::Fail, "{policy:?}");
        }
        let picker = policy.build(&List::of(&[Failed, Idle]).0, None, 1);
        let connect = (!policy.connects_all()).then_some(1);
        assert_eq!(picker.pick(&input(7)), Pick::Wait { connect }, "{policy:?}");
    }
}

#[test]
fn every_policy_avoids_what_was_tried_where_another_will_do() {
    for policy in policies() {
        let list = List::of(&[Ready, Ready, Ready]).0;
        let picker = policy.build(&list, None, 1);
        for random in (0..50).map(ready::mix) {
            let avoid = PickInput { tried: &[0, 2], ..input(random) };
            assert_eq!(picker.pick(&avoid), Pick::Candidate(1), "{policy:?}");
            let all = PickInput { tried: &[0, 1, 2], ..input(random) };
            assert!(matches!(picker.pick(&all), Pick::Candidate(_)), "{policy:?}");
        }
    }
}

#[test]
fn every_policy_steps_over_an_endpoint_that_died_after_the_picker_was_built() {
    for policy in policies() {
        let list = List::of(&[Ready, Ready]).0;
        let picker = policy.build(&list, None, 1);
        list[0].state.set_failed();
        assert_eq!(counts(&picker, 20), BTreeMap::from([(1, 20)]), "{policy:?}");
        list[1].state.set_ejected(true);
        assert!(!matches!(picker.pick(&input(3)), Pick::Candidate(_)), "{policy:?}: ejected");
    }
}

#[test]
fn round_robin_takes_turns_by_weight() {
    let even = RoundRobinConfig.build(&List::of(&[Ready, Ready, Ready]).0, None, 0);
    let first: Vec<Pick> = (0..6).map(|_| even.pick(&input(9))).collect();
    assert_eq!(first, [0, 1, 2, 0, 1, 2].map(Pick::Candidate));
    let list = List::default().and(Ready, 1, 0, "a", 1).and(Ready, 2, 0, "a", 1).and(Ready, 5, 0, "a", 1);
    let uneven = RoundRobinConfig.build(&list.0, None, 0);
    assert_eq!(counts(&uneven, 800), BTreeMap::from([(0, 100), (1, 200), (2, 500)]), "exact over whole rounds");
}

#[test]
fn round_robin_goes_on_where_its_predecessor_stopped() {
    let list = List::of(&[Ready, Ready, Ready]).0;
    let first = RoundRobinConfig.build(&list, None, 0);
    assert_eq!(first.pick(&input(0)), Pick::Candidate(0));
    let second = RoundRobinConfig.build(&list, Some(&first), 0);
    assert_eq!(second.pick(&input(0)), Pick::Candidate(1));
}

/// gRFC A48.
#[test]
fn least_request_prefers_the_less_loaded_draw() {
    let list = List::of(&[Ready, Ready]).0;
    let _busy: Vec<PickGuard> = (0..3).map(|_| PickGuard::new(list[0].state.clone(), None, false)).collect();
    let picker = LeastRequestConfig { choice_count: 10, ..LeastRequestConfig::default() }.build(&list, None, 0);
    let counts = counts(&picker, 2000);
    // Only when all ten draws are the busy one (one in 1,024) is it picked.
    assert!(counts[&1] > 1950, "{counts:?}");
}

#[test]
fn least_request_follows_the_weights_when_nobody_is_loaded() {
    let list = List::default().and(Ready, 1, 0, "a", 1).and(Ready, 3, 0, "a", 1).0;
    let counts = counts(&LeastRequestConfig::default().build(&list, None, 0), 4000);
    assert!((counts[&0] as i64 - 1000).abs() < 150, "{counts:?}");
}

/// gRFC A27.
#[test]
fn localities_get_their_weight_and_those_without_a_ready_endpoint_nothing() {
    let policy = WrrLocality { child: Arc::new(RoundRobinConfig) };
    let list = List::default()
        .and(Ready, 1, 0, "a", 1)
        .and(Ready, 1, 0, "b", 3)
        .and(Ready, 1, 0, "b", 3)
        .and(Failed, 1, 0, "c", 100);
    let counts = counts(&policy.build(&list.0, None, 0), 4000);
    assert!((counts[&0] as i64 - 1000).abs() < 150, "{counts:?}");
    assert!((counts[&1] as i64 - 1500).abs() < 150, "{counts:?}");
    assert!(!counts.contains_key(&3));
}

#[test]
fn a_dead_locality_hands_over_to_another() {
    let policy = WrrLocality { child: Arc::new(RoundRobinConfig) };
    let list = List::default().and(Ready, 1, 0, "a", 1000).and(Ready, 1, 0, "b", 1).0;
    let picker = policy.build(&list, None, 0);
    list[0].state.set_failed();
    assert_eq!(counts(&picker, 10), BTreeMap::from([(1, 10)]));
}

/// gRFC A56.
#[test]
fn priorities_fail_over_in_order() {
    use Pick::{Candidate as Is_, Fail, Wait};
    // (states of priority 0, 1, 2; the answer; why)
    type Case = (&'static [(Is, u32)], Pick, &'static str);
    let cases: &[Case] = &[
        (&[(Ready, 0), (Ready, 1)], Is_(0), "the first that works takes everything"),
        (&[(Failed, 0), (Ready, 1)], Is_(1), "a failed priority hands over"),
        (&[(Idle, 0), (Ready, 1)], Wait { connect: None }, "a priority that may yet connect is waited for"),
        (&[(Failed, 0), (Idle, 1), (Ready, 2)], Wait { connect: None }, "also further down"),
        (&[(Failed, 0), (Failed, 1)], Fail, "nothing works"),
        (&[(Ready, 1), (Ready, 0)], Is_(1), "the order of the list does not matter"),
        (&[], Fail, "no endpoint at all"),
    ];
    for (states, expected, why) in cases {
        let list = states.iter().fold(List::default(), |list, (is, priority)| list.and(*is, 1, *priority, "a", 1));
        let picker = build(&WrrLocality { child: Arc::new(RoundRobinConfig) }, &list.0, None, 0);
        assert_eq!(picker.pick(&input(5)), *expected, "{why}");
    }
}

#[test]
fn a115_a_priority_that_left_is_gone_at_once() {
    let two = List::default().and(Failed, 1, 0, "a", 1).and(Ready, 1, 1, "a", 1).0;
    let before = build(&RoundRobinConfig, &two, None, 0);
    assert_eq!(before.pick(&input(1)), Pick::Candidate(1));
    let after = build(&RoundRobinConfig, &two[..1], Some(&before), 0);
    assert_eq!(after.pick(&input(1)), Pick::Fail);
}

#[test]
fn a_retry_goes_to_the_next_priority_when_the_first_was_all_tried() {
    let list = List::default().and(Ready, 1, 0, "a", 1).and(Ready, 1, 1, "a", 1).0;
    let picker = build(&RoundRobinConfig, &list, None, 0);
    assert_eq!(picker.pick(&PickInput { tried: &[0], ..input(1) }), Pick::Candidate(1));
    assert_eq!(picker.pick(&PickInput { tried: &[1, 0], ..input(1) }), Pick::Candidate(0));
}

#[test]
fn unhealthy_endpoints_take_no_requests_and_draining_ones_only_their_own() {
    let list = List::of(&[Ready, Ready, Ready]).with_health(0, Health::Unhealthy).with_health(1, Health::Draining);
    let picker = build(&RoundRobinConfig, &list.0, None, 0);
    assert_eq!(counts(&picker, 10), BTreeMap::from([(2, 10)]));
    let mine = PickInput { override_host: Some(list.0[1].endpoint.address), ..input(0) };
    assert_eq!(picker.pick(&mine), Pick::Candidate(1), "session affinity");
    let gone = PickInput { override_host: Some(list.0[0].endpoint.address), ..input(0) };
    assert_eq!(picker.pick(&gone), Pick::Candidate(2), "an unhealthy one cannot be asked for");
    let unknown = PickInput { override_host: Some(([1, 1, 1, 1], 1).into()), ..input(0) };
    assert_eq!(picker.pick(&unknown), Pick::Candidate(2));
}

/// The endpoints that Envoy 1.40 sends these header values to, among five of equal weight with the hash keys
/// `host-0` to `host-4`; recorded, not computed.
/// gRFCs A42 and A76.
#[test]
fn rings_and_tables_agree_with_envoy() {
    let names = ["host-0", "host-1", "host-2", "host-3", "host-4"];
    let list = List::of(&[Ready; 5]).named(&names).0;
    let ring = RingHashConfig::default();
    let small = RingHashConfig { min_size: 5, ..ring.clone() };
    let murmur = RingHashConfig { function: HashFunction::Murmur2, ..ring.clone() };
    let maglev = MaglevConfig::default();
    let small_maglev = MaglevConfig { table_size: 251, use_hostname: false };
    let policies: [&dyn PolicyConfig; 5] = [&ring, &small, &murmur, &maglev, &small_maglev];
    let pickers = policies.map(|policy| policy.build(&list, None, 0));
    //       value                  ring min5 murmur maglev 251
    let cases: &[(&str, [usize; 5])] = &[
        ("a", [2, 1, 2, 0, 0]),
        ("c", [1, 1, 4, 1, 2]),
        ("user-2", [3, 0, 1, 1, 2]),
        ("user-4", [0, 2, 1, 0, 2]),
        ("", [0, 1, 2, 3, 4]),
        ("1", [2, 1, 0, 1, 2]),
        ("3", [3, 2, 4, 3, 3]),
        ("5", [4, 0, 1, 3, 4]),
        ("7", [3, 4, 4, 4, 4]),
        ("9", [0, 4, 2, 4, 1]),
        ("the quick brown fox", [1, 3, 3, 1, 3]),
    ];
    for (value, expected) in cases {
        let hash = twox_hash::XxHash64::oneshot(0, value.as_bytes());
        let got = [0, 1, 2, 3, 4].map(|policy| pickers[policy].pick(&hashed(hash)));
        assert_eq!(got, expected.map(Pick::Candidate), "{value:?}");
    }
}

/// The same with the weights 1 to 5.
/// gRFC A42.
#[test]
fn weighted_rings_and_tables_agree_with_envoy() {
    let names = ["host-0", "host-1", "host-2", "host-3", "host-4"];
    let list = (1..=5).fold(List::default(), |list, weight| list.and(Ready, weight, 0, "a", 1)).named(&names).0;
    let ring = RingHashConfig::default().build(&list, None, 0);
    let maglev = MaglevConfig::default().build(&list, None, 0);
    let cases: &[(&str, usize, usize)] = &[
        ("a", 2, 0),
        ("c", 4, 1),
        ("user-2", 3, 1),
        ("user-4", 3, 3),
        ("", 4, 3),
        ("1", 2, 3),
        ("3", 3, 3),
        ("5", 4, 3),
        ("7", 3, 4),
        ("9", 2, 4),
        ("the quick brown fox", 1, 3),
    ];
    for (value, on_ring, in_table) in cases {
        let hash = twox_hash::XxHash64::oneshot(0, value.as_bytes());
        assert_eq!(ring.pick(&hashed(hash)), Pick::Candidate(*on_ring), "ring: {value:?}");
        assert_eq!(maglev.pick(&hashed(hash)), Pick::Candidate(*in_table), "maglev: {value:?}");
    }
}

#[test]
fn a_ring_moves_only_the_requests_of_the_endpoint_that_left() {
    let names: Vec<String> = (0..10).map(|number| format!("host-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ten = List::of(&[Ready; 10]).named(&names).0;
    let before = RingHashConfig::default().build(&ten, None, 0);
    ten[9].state.set_failed();
    for hash in (0..1000).map(ready::mix) {
        ten[9].state.set_ready();
        let was = before.pick(&hashed(hash));
        ten[9].state.set_failed();
        let is = before.pick(&hashed(hash));
        assert!(was == is || was == Pick::Candidate(9), "{hash}: {was:?} -> {is:?}");
        assert_ne!(is, Pick::Candidate(9));
    }
}

/// gRFC A42.
#[test]
fn a_ring_connects_the_endpoint_that_the_hash_asks_for() {
    let list = List::of(&[Idle, Idle, Idle]).0;
    let picker = RingHashConfig::default().build(&list, None, 0);
    let Pick::Wait { connect: Some(first) } = picker.pick(&hashed(42)) else { panic!("it should connect one") };
    assert_eq!(picker.pick(&hashed(42)), Pick::Wait { connect: Some(first) }, "the same one for the same hash");
    list[first].state.set_failed();
    let Pick::Wait { connect: Some(second) } = picker.pick(&hashed(42)) else { panic!("it should connect the next") };
    assert_ne!(first, second);
    list[second].state.set_ready();
    assert_eq!(picker.pick(&hashed(42)), Pick::Candidate(second));
}

#[test]
fn a_maglev_table_of_any_size_gets_full() {
    for size in [0, 1, 2, 4, 6, 100] {
        let list = List::of(&[Ready, Ready, Ready]).0;
        let picker = MaglevConfig { table_size: size, use_hostname: false }.build(&list, None, 0);
        for hash in 0..200 {
            assert!(matches!(picker.pick(&hashed(hash)), Pick::Candidate(0..=2)), "size {size}");
        }
    }
}

/// gRFC A62.
#[test]
fn pick_first_stays_with_the_first_that_works() {
    let list = List::of(&[Ready, Ready, Idle]).0;
    let picker = PickFirstConfig { shuffle: false }.build(&list, None, 0);
    assert_eq!(counts(&picker, 10), BTreeMap::from([(0, 10)]));
    list[0].state.set_failed();
    assert_eq!(counts(&picker, 10), BTreeMap::from([(1, 10)]));
    list[1].state.set_failed();
    assert_eq!(picker.pick(&input(0)), Pick::Wait { connect: Some(2) });
}

/// gRFCs A62 and A113.
#[test]
fn a_shuffled_pick_first_spreads_clients_by_weight() {
    let list = List::default().and(Ready, 1, 0, "a", 1).and(Ready, 3, 0, "a", 1).0;
    let mut first = [0_u32; 2];
    for seed in 0..2000 {
        let picker = PickFirstConfig { shuffle: true }.build(&list, None, seed);
        let Pick::Candidate(index) = picker.pick(&input(0)) else { panic!("both are ready") };
        first[index] += 1;
    }
    assert!((430..570).contains(&first[0]), "a quarter of the clients: {first:?}");
}
