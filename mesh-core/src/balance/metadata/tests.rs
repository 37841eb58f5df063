//! Who takes a request, as Envoy 1.40 chose among the same five endpoints.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::{Pick, PickInput, RoundRobinConfig, build};
use super::*;
use crate::model::{Endpoint, Health, Locality};

/// `a` to `e`: `d` is of the next priority, and `e` says nothing.
fn candidates() -> Vec<Arc<Candidate>> {
    let all = [
        (json!({"version": "1", "stage": "prod"}), 0),
        (json!({"version": "1", "stage": "dev"}), 0),
        (json!({"version": "2", "stage": "prod", "tags": ["x", "y"]}), 0),
        (json!({"version": "3"}), 1),
        (json!({}), 0),
    ];
    all.iter().enumerate().map(|(number, (lb, priority))| candidate(number, lb, *priority, "z", 1)).collect()
}

fn candidate(number: usize, lb: &Value, priority: u32, zone: &str, locality_weight: u32) -> Arc<Candidate> {
    let state = Arc::new(CandidateState::default());
    state.set_ready();
    Arc::new(Candidate {
        endpoint: Arc::new(Endpoint {
            address: SocketAddr::from(([10, 0, 0, u8::try_from(number).unwrap()], 80)),
            additional: Vec::new(),
            weight: 1,
            health: Health::Unknown,
            hostname: "".into(),
            metadata: Metadata::from([("envoy.lb".to_owned(), lb.clone())]),
        }),
        locality: Arc::new(Locality { zone: zone.into(), ..Locality::default() }),
        priority,
        locality_weight,
        state,
        observer: None,
    })
}

fn fields(value: &Value) -> Metadata {
    serde_json::from_value(value.clone()).unwrap()
}

fn input(wanted: Option<&Metadata>) -> PickInput<'_> {
    PickInput { hash: None, tried: &[], override_host: None, metadata: wanted, random: 1 }
}

/// Everybody who takes requests that ask for this, as letters; nobody is empty.
fn who(policy: &MetadataSubsets, wanted: &Value) -> String {
    let picker = build(policy, &candidates(), None, 1);
    let wanted = wanted.is_object().then(|| fields(wanted));
    let picks = (0..20).filter_map(|_| match picker.pick(&input(wanted.as_ref())) {
        Pick::Candidate(index) => Some(char::from(b'a' + u8::try_from(index).unwrap())),
        _ => None,
    });
    picks.collect::<BTreeSet<_>>().into_iter().collect()
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn by(names: &[&str]) -> SubsetSelector {
    SubsetSelector { keys: keys(names), ..SubsetSelector::default() }
}

fn by_or(names: &[&str], fallback: SubsetFallback) -> SubsetSelector {
    SubsetSelector { fallback: Some(fallback), ..by(names) }
}

fn policy(selectors: &[SubsetSelector]) -> MetadataSubsets {
    MetadataSubsets::new(Arc::new(RoundRobinConfig), selectors.to_vec())
}

fn or_default(subset: &Value, selectors: &[SubsetSelector]) -> MetadataSubsets {
    MetadataSubsets { fallback: SubsetFallback::Default, default_subset: fields(subset), ..policy(selectors) }
}

fn or_any(selectors: &[SubsetSelector]) -> MetadataSubsets {
    MetadataSubsets { fallback: SubsetFallback::Any, ..policy(selectors) }
}

#[track_caller]
fn check(policy: &MetadataSubsets, rows: &[(Value, &str)]) {
    for (wanted, expected) in rows {
        assert_eq!(who(policy, wanted), *expected, "{wanted}");
    }
}

#[test]
fn a_request_takes_the_subset_that_has_just_what_it_asks_for() {
    let policy = policy(&[by(&["version"]), by(&["stage", "version"])]);
    check(
        &policy,
        &[
            (json!(null), ""),
            (json!({}), ""),
            (json!({"version": "1"}), "ab"),
            (json!({"version": "2"}), "c"),
            (json!({"version": "3"}), "d"),
            (json!({"version": "9"}), ""),
            (json!({"version": 1}), ""),
            (json!({"stage": "prod"}), ""),
            (json!({"version": "1", "stage": "prod"}), "a"),
            (json!({"version": "1", "stage": "none"}), ""),
            (json!({"version": "1", "other": "1"}), ""),
        ],
    );
}

#[test]
fn who_finds_no_subset_falls_back() {
    let version = [by(&["version"])];
    check(
        &or_any(&version),
        &[(json!(null), "abce"), (json!({"version": "3"}), "d"), (json!({"version": "9"}), "abce")],
    );
    let production = or_default(&json!({"stage": "prod"}), &version);
    check(&production, &[(json!(null), "ac"), (json!({"version": "1"}), "ab"), (json!({"stage": "dev"}), "ac")]);
    check(&or_default(&json!({}), &version), &[(json!(null), "abce")]);
    let nobody = or_default(&json!({"stage": "none"}), &version);
    check(&nobody, &[(json!(null), ""), (json!({"version": "1"}), "ab")]);
    let panicking = MetadataSubsets { panic_mode_any: true, ..nobody };
    check(&panicking, &[(json!(null), "abce"), (json!({"version": "1"}), "ab")]);
    let alone = MetadataSubsets { panic_mode_any: true, ..policy(&version) };
    check(&alone, &[(json!(null), ""), (json!({"version": "9"}), "")]);
}

#[test]
fn a_selectors_own_fallback_counts_for_who_asks_by_its_keys() {
    let by_version = by_or(&["version"], SubsetFallback::Nobody);
    let by_stage = by_or(&["stage"], SubsetFallback::Default);
    let policy =
        MetadataSubsets { default_subset: fields(&json!({"version": "2"})), ..or_any(&[by_version, by_stage]) };
    check(
        &policy,
        &[
            (json!(null), "abce"),
            (json!({"version": "9"}), ""),
            (json!({"stage": "none"}), "c"),
            (json!({"stage": "prod"}), "ac"),
            (json!({"stage": "prod", "version": "1"}), "abce"),
        ],
    );
    // The panic of the cluster's fallback is not the selector's.
    let selectors = [by_or(&["version"], SubsetFallback::Default)];
    let panicking = MetadataSubsets { panic_mode_any: true, ..or_default(&json!({"stage": "none"}), &selectors) };
    check(&panicking, &[(json!({"version": "9"}), ""), (json!({"stage": "x"}), "abce")]);
}

#[test]
fn a_request_may_be_content_with_fewer_keys() {
    let fewer = |names: &[&str]| by_or(&["stage", "version"], SubsetFallback::Keys(keys(names)));
    let policy_by_stage = or_any(&[fewer(&["stage"]), by(&["stage"])]);
    check(
        &policy_by_stage,
        &[
            (json!({"stage": "prod", "version": "1"}), "a"),
            (json!({"stage": "dev", "version": "2"}), "b"),
            (json!({"stage": "prod", "version": "9"}), "ac"),
            (json!({"stage": "none", "version": "1"}), "abce"),
        ],
    );
    check(&policy(&[fewer(&["version"])]), &[(json!({"stage": "dev", "version": "2"}), "")]);
    // No configuration says this; it ends nevertheless.
    let endless = MetadataSubsets { fallback: SubsetFallback::Keys(keys(&["stage"])), ..policy(&[]) };
    check(&endless, &[(json!({"stage": "prod"}), ""), (json!({"stage": "prod", "version": "1"}), "")]);
}

#[test]
fn a_list_stands_for_itself_or_for_each_of_its_items() {
    let lists = [by(&["tags"]), by(&["version"])];
    let each = MetadataSubsets { list_as_any: true, ..policy(&lists) };
    check(&each, &[(json!({"tags": "x"}), "c"), (json!({"tags": ["x", "y"]}), ""), (json!({"version": "1"}), "ab")]);
    check(&policy(&lists), &[(json!({"tags": "x"}), ""), (json!({"tags": ["x", "y"]}), "c")]);
}

#[test]
fn a_route_may_list_what_will_do() {
    let both = [by(&["version"]), by(&["stage"])];
    let listing = MetadataSubsets { fallback_list: true, ..policy(&both) };
    check(
        &listing,
        &[
            (json!({"fallback_list": [{"version": "9"}, {"version": "2"}, {"stage": "prod"}]}), "c"),
            (json!({"stage": "prod", "fallback_list": [{"version": "9"}, {}]}), "ac"),
            (json!({"fallback_list": []}), ""),
            (json!({"fallback_list": [{"version": "9"}]}), ""),
            (json!({"fallback_list": "x", "version": "2"}), "c"),
        ],
    );
    let any = MetadataSubsets { fallback_list: true, ..or_any(&both) };
    let rows = [(json!({"fallback_list": [{"version": "9"}, {"version": "2"}]}), "abce")];
    check(&any, &rows);
    check(&policy(&both), &[(json!({"version": "2", "fallback_list": [{}]}), "")]);
}

#[test]
fn a_request_may_ask_for_more_than_a_selector_knows_where_that_is_allowed() {
    let policy = policy(&[by(&["version"]), by(&["stage"]), by(&["stage", "version"])]);
    let redundant = MetadataSubsets { allow_redundant_keys: true, ..policy };
    check(
        &redundant,
        &[
            (json!({"version": "1", "other": "1"}), "ab"),
            (json!({"version": "1", "stage": "prod", "other": "1"}), "a"),
            (json!({"version": "1", "stage": "none"}), ""),
            (json!({"other": "1"}), ""),
        ],
    );
}

#[test]
fn one_endpoint_of_each_subset_is_enough_where_the_selector_says_so() {
    let selector = SubsetSelector { single_host: true, ..by(&["stage"]) };
    check(&policy(&[selector]), &[(json!({"stage": "prod"}), "a"), (json!({"stage": "dev"}), "b")]);
}

/// Four keys of five items each would be 625 subsets for one endpoint.
#[test]
fn lists_do_not_multiply_without_end() {
    let many = json!(["1", "2", "3", "4", "5"]);
    let lb = json!({"a": many, "b": many, "c": many, "d": many});
    let all = [candidate(0, &lb, 0, "z", 1)];
    let policy = MetadataSubsets { list_as_any: true, ..policy(&[by(&["a", "b", "c"]), by(&["a", "b", "c", "d"])]) };
    let picker = build(&policy, &all, None, 1);
    let pick = |wanted: &Value| picker.pick(&input(Some(&fields(wanted))));
    assert_eq!(pick(&json!({"a": "1", "b": "2", "c": "5"})), Pick::Candidate(0));
    assert_eq!(pick(&json!({"a": "1", "b": "2", "c": "5", "d": "1"})), Pick::Fail);
}

/// Nine endpoints of one locality have version 1 beside one of the other.
#[test]
fn localities_keep_their_weights_in_a_subset_only_if_they_are_to() {
    let version = |number: usize| json!({"version": if number < 10 { "1" } else { "2" }});
    let zone = |number: usize| if number == 0 || number > 9 { "one" } else { "nine" };
    let all: Vec<_> = (0..19).map(|number| candidate(number, &version(number), 0, zone(number), 10)).collect();
    let share_of_zone_one = |aware: bool, scaled: bool| {
        let child = Arc::new(WrrLocality { child: Arc::new(RoundRobinConfig) });
        let policy = MetadataSubsets {
            locality_weight_aware: aware,
            scale_locality_weight: scaled,
            ..MetadataSubsets::new(child, vec![by(&["version"])])
        };
        let picker = build(&policy, &all, None, 1);
        let wanted = fields(&json!({"version": "1"}));
        let mut rng = fastrand::Rng::with_seed(1);
        let pick = |_| picker.pick(&PickInput { random: rng.u64(..), ..input(Some(&wanted)) });
        (0..2_000).map(pick).filter(|pick| *pick == Pick::Candidate(0)).count()
    };
    // One of ten; then half of all; then 10 times a tenth against 10.
    for ((aware, scaled), expected) in [((false, false), 200), ((true, false), 1_000), ((true, true), 182)] {
        let share = share_of_zone_one(aware, scaled);
        assert!(share.abs_diff(expected) <= 80, "{share} of 2,000, not about {expected}: {aware} {scaled}");
    }
}

/// A picker is made anew with every change of a state.
#[test]
fn a_new_picker_goes_on_where_the_last_one_stopped() {
    let (all, policy) = (candidates(), policy(&[by(&["version"])]));
    let wanted = fields(&json!({"version": "1"}));
    let mut picker = build(&policy, &all, None, 1);
    let mut picks = Vec::new();
    for _ in 0..6 {
        picks.push(picker.pick(&input(Some(&wanted))));
        picker = build(&policy, &all, Some(&picker), 1);
    }
    assert!(picks.windows(2).all(|two| two[0] != two[1]), "{picks:?}");
}
