//! `docs/validation.md`: each of the 150 rules is there, and is shown by a test or is not there for a reason.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    cluster, endpoints, envelope, filters, listener, policies, rbac, route, secret, tls, tls_checks, tls_matches,
};

const TABLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/validation.md"));
const RULES: u32 = 150;

/// What is done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Refused,
    Taken,
}

thread_local! {
    /// What the rows of tests on this thread showed.
    static SHOWN: RefCell<BTreeMap<u32, BTreeSet<Answer>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes that a test shows this of the rule.
pub(super) fn shown(rule: u32, answer: Answer) {
    SHOWN.with_borrow_mut(|shown| shown.entry(rule).or_default().insert(answer));
}

/// Every test that has pairs.
const TESTS: &[fn()] = &[
    envelope::rules_1_to_6_of_every_type,
    envelope::rule_7_what_is_ignored,
    listener::rule_8_an_api_listener_is_a_connection_manager,
    listener::rules_9_to_15_of_a_connection_manager,
    listener::rule_28_a_listener_for_the_other_side,
    listener::rules_29_to_36_of_a_servers_listener,
    listener::rules_37_to_39_of_a_filter_chain_match,
    filters::rules_16_to_25_of_the_list,
    filters::rule_21_a_filter_for_the_other_side,
    filters::rules_26_and_27_which_filters_there_are,
    filters::rules_85_and_86_overrides,
    filters::rules_89_and_90_filters_that_are_not_there,
    rbac::rule_87_what_is_no_rule,
    rbac::rule_87_permissions,
    rbac::rule_87_principals,
    rbac::rule_87_audit_loggers,
    filters::rule_88_faults,
    tls::rules_40_and_117_what_a_transport_socket_is,
    tls::rules_41_to_51_a_servers_tls,
    tls::rules_118_to_122_a_clients_tls,
    secret::rules_46_and_121_secrets_of_sds,
    tls_checks::rule_146_what_of_tls_may_be_spoken,
    tls::rules_147_to_149_on_both_sides,
    tls_checks::rule_148_what_a_certificate_must_be,
    tls::rule_150_newer_and_older_spellings_mean_the_same,
    route::rules_52_and_53_domains,
    route::rules_54_to_58_the_path,
    route::rules_57_to_64_headers_and_queries,
    route::rules_65_and_66_fractions_and_case,
    route::actions::rules_67_to_69_actions_and_clusters,
    route::actions::rules_70_to_72_weights,
    route::actions::rules_73_to_76_plugins,
    route::actions::rules_77_to_82_retries,
    route::actions::rule_83_durations,
    route::actions::rule_84_hash_policies,
    cluster::rules_91_to_94_discovery,
    cluster::rules_95_to_101_logical_dns,
    cluster::rules_102_to_104_aggregates_and_load_reports,
    tls_matches::rule_116_tls_by_endpoint,
    cluster::rules_123_and_124_outlier_detection,
    cluster::rule_125_upstream_protocols,
    cluster::rules_126_and_128_circuit_breakers,
    cluster::rules_127_129_and_130_what_is_not_read,
    policies::rules_105_to_108_the_list,
    policies::rule_109_the_older_field,
    policies::rules_110_to_115_policies,
    endpoints::rule_131_a_locality_without_weight_is_skipped_whatever_is_in_it,
    endpoints::rules_132_to_140_localities_and_endpoints,
    endpoints::rule_141_who_takes_requests,
    endpoints::rules_142_and_145_drops_and_collections,
    endpoints::rules_143_and_144_what_is_not_read,
];

struct Row {
    rule: u32,
    kind: &'static str,
    here: &'static str,
}

fn rows() -> Vec<Row> {
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let row = |line: &'static str| match cells(line)[..] {
        ["", rule, kind, what, here, ""] if !what.is_empty() => Some(Row { rule: rule.parse().ok()?, kind, here }),
        _ => None,
    };
    TABLE.lines().filter_map(row).collect()
}

/// What the last column promises, and the reason it gives.
fn promised(here: &str) -> (BTreeSet<Answer>, &str) {
    let (answers, reason) = here.split_once(": ").unwrap_or((here, ""));
    let answers = match answers {
        "refused" => BTreeSet::from([Answer::Refused]),
        "taken" => BTreeSet::from([Answer::Taken]),
        "refused or taken" => BTreeSet::from([Answer::Refused, Answer::Taken]),
        other => panic!("`{other}` is no answer"),
    };
    (answers, reason)
}

#[test]
fn every_rule_has_its_row() {
    let rules: Vec<u32> = rows().iter().map(|row| row.rule).collect();
    assert_eq!(rules, (1..=RULES).collect::<Vec<_>>());
    for Row { rule, kind, here } in rows() {
        let (answers, reason) = promised(here);
        match kind {
            "invalid" => assert!(answers.contains(&Answer::Refused), "rule {rule} is invalid and taken"),
            "valid" => assert!(answers.contains(&Answer::Taken), "rule {rule} is valid and refused"),
            "gRPC can't" => {
                let is_void = answers.contains(&Answer::Taken);
                assert!(is_void || !reason.is_empty(), "rule {rule}: why can't we either?");
            }
            other => panic!("rule {rule}: `{other}` is no kind"),
        }
    }
}

#[test]
fn every_rule_is_shown_as_its_row_says() {
    TESTS.iter().for_each(|test| test());
    let shown = SHOWN.take();
    let wrong = rows().into_iter().filter_map(|row| {
        let (promised, shown) = (promised(row.here).0, shown.get(&row.rule).cloned().unwrap_or_default());
        (promised != shown).then(|| format!("rule {}: the table says {promised:?}, tests show {shown:?}", row.rule))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(shown.keys().all(|rule| *rule <= RULES));
}
