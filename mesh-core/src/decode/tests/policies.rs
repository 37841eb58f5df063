//! Rules 105 to 115: balancing policies, new and old.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::extensions::load_balancing_policies as lb;
use lb::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use lb::least_request::v3::LeastRequest;
use lb::maglev::v3::Maglev;
use lb::pick_first::v3::PickFirst;
use lb::ring_hash::v3::RingHash;
use lb::round_robin::v3::RoundRobin;
use lb::wrr_locality::v3::WrrLocality as PbWrr;
use pb::LoadBalancingPolicy;
use pb::cluster::{LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig};
use pb::load_balancing_policy::Policy;

use super::cluster::{cluster, eds};
use super::*;
use crate::balance::{
    ClientSideWrrConfig, HashFunction, LeastRequestConfig, MaglevConfig, PickFirstConfig, RandomConfig, RingHashConfig,
    RoundRobinConfig, WrrLocality,
};
use crate::model::Cluster;
use crate::resource::CLUSTER;

/// A list of policies, tried in order.
pub(super) fn list(policies: Vec<Any>) -> LoadBalancingPolicy {
    let one = |config| Policy {
        typed_extension_config: Some(envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig {
            name: "x".to_owned(),
            typed_config: Some(config),
        }),
    };
    LoadBalancingPolicy { policies: policies.into_iter().map(one).collect() }
}

/// `depth` policies inside each other, the innermost a round robin.
pub(super) fn nested(depth: usize) -> LoadBalancingPolicy {
    let innermost = list(vec![any(&RoundRobin::default())]);
    (1..depth).fold(innermost, |inner, _| list(vec![any(&PbWrr { endpoint_picking_policy: Some(inner) })]))
}

fn policy() -> Part<LoadBalancingPolicy> {
    let wrap = |policy| {
        let mut cluster = eds();
        cluster.load_balancing_policy = Some(policy);
        cluster.encode_to_vec()
    };
    Part { type_url: CLUSTER, base: nested(1), wrap, path: "load_balancing_policy" }
}

fn nothing() -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}example.Nothing"), value: Vec::new() }
}

fn xx(change: fn(&mut RingHash)) -> Any {
    let mut ring = RingHash { hash_function: 1, ..Default::default() };
    change(&mut ring);
    any(&ring)
}

const FIRST: &str = "policies[0].typed_extension_config.typed_config";

/// gRFC A52.
#[test]
pub(super) fn rules_105_to_108_the_list() {
    policy().refuses(&[
        (105, "policies", |policy| policy.policies.clear()),
        (105, "policies", |policy| *policy = list(vec![nothing()])),
        (106, FIRST, |policy| {
            let bad = garbage("envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin");
            *policy = list(vec![bad, any(&RoundRobin::default())]);
        }),
        (106, "policies[1].typed_extension_config.typed_config.choice_count", |policy| {
            let bad = LeastRequest { choice_count: u32_value(1), ..Default::default() };
            *policy = list(vec![nothing(), any(&bad), any(&RoundRobin::default())]);
        }),
    ]);
    policy().takes(&[
        (105, "the first that is known", |policy| *policy = list(vec![nothing(), any(&RoundRobin::default())])),
        (108, "16 deep", |policy| *policy = nested(16)),
    ]);
    let faults = refused(policy().decode(|policy| *policy = nested(17)));
    assert!(faults[0].contains("more than 16 deep"), "{faults:?}");
    table::shown(108, Answer::Refused);
}

#[test]
fn rule_106_what_is_wrong_inside_is_named() {
    policy().refuses(&[(
        106,
        "policies[0].typed_extension_config.typed_config.endpoint_picking_policy.policies[0].typed_extension_config.typed_config.choice_count",
        |policy| {
            let inner = LeastRequest { choice_count: u32_value(0), ..Default::default() };
            *policy = list(vec![any(&PbWrr { endpoint_picking_policy: Some(list(vec![any(&inner)])) })]);
        },
    )]);
}

/// gRFCs A42, A48 and A58.
#[test]
pub(super) fn rules_110_to_115_policies() {
    policy().refuses(&[
        (110, "policies[0].typed_extension_config.typed_config.hash_function", |policy| {
            *policy = list(vec![any(&RingHash::default())]);
        }),
        (110, "policies[0].typed_extension_config.typed_config.hash_function", |policy| {
            *policy = list(vec![xx(|ring| ring.hash_function = 7)]);
        }),
        (111, "policies[0].typed_extension_config.typed_config.maximum_ring_size", |policy| {
            *policy = list(vec![xx(|ring| ring.maximum_ring_size = u64_value(8_388_609))]);
        }),
        (111, "policies[0].typed_extension_config.typed_config.minimum_ring_size", |policy| {
            *policy = list(vec![xx(|ring| ring.minimum_ring_size = u64_value(8_388_609))]);
        }),
        (111, "policies[0].typed_extension_config.typed_config.minimum_ring_size", |policy| {
            *policy = list(vec![xx(|ring| ring.minimum_ring_size = u64_value(0))]);
        }),
        (112, "policies[0].typed_extension_config.typed_config.minimum_ring_size", |policy| {
            *policy = list(vec![xx(|ring| {
                (ring.minimum_ring_size, ring.maximum_ring_size) = (u64_value(10), u64_value(5));
            })]);
        }),
        (107, "policies[0].typed_extension_config.typed_config.minimum_ring_size", |policy| {
            *policy = list(vec![xx(|ring| ring.maximum_ring_size = u64_value(1023)), any(&RoundRobin::default())]);
        }),
        (113, "policies[0].typed_extension_config.typed_config.choice_count", |policy| {
            *policy = list(vec![any(&LeastRequest { choice_count: u32_value(1), ..Default::default() })]);
        }),
        (114, "policies[0].typed_extension_config.typed_config.error_utilization_penalty", |policy| {
            let penalty = Some(protobuf::FloatValue { value: -0.5 });
            let config = ClientSideWeightedRoundRobin { error_utilization_penalty: penalty, ..Default::default() };
            *policy = list(vec![any(&config)]);
        }),
        (114, "policies[0].typed_extension_config.typed_config.blackout_period", |policy| {
            let config = ClientSideWeightedRoundRobin { blackout_period: seconds(-1), ..Default::default() };
            *policy = list(vec![any(&config)]);
        }),
        (115, "policies[0].typed_extension_config.typed_config.endpoint_picking_policy", |policy| {
            *policy = list(vec![any(&PbWrr::default())]);
        }),
        (115, "policies[0].typed_extension_config.typed_config.endpoint_picking_policy.policies", |policy| {
            *policy = list(vec![any(&PbWrr { endpoint_picking_policy: Some(list(vec![nothing()])) })]);
        }),
        // Envoy's: the algorithm needs a prime.
        (0, "policies[0].typed_extension_config.typed_config.table_size", |policy| {
            *policy = list(vec![any(&Maglev { table_size: u64_value(10), ..Default::default() })]);
        }),
    ]);
    policy().takes(&[
        (110, "gRPC can't", |policy| *policy = list(vec![xx(|ring| ring.hash_function = 2)])),
        (111, "the largest", |policy| {
            *policy = list(vec![xx(|ring| ring.maximum_ring_size = u64_value(8_388_608))]);
        }),
        (114, "no penalty", |policy| {
            let penalty = Some(protobuf::FloatValue { value: 0.0 });
            let config = ClientSideWeightedRoundRobin { error_utilization_penalty: penalty, ..Default::default() };
            *policy = list(vec![any(&config)]);
        }),
        (113, "two", |policy| {
            *policy = list(vec![any(&LeastRequest { choice_count: u32_value(2), ..Default::default() })]);
        }),
    ]);
}

#[allow(clippy::unnecessary_wraps)]
fn u64_value(value: u64) -> Option<protobuf::UInt64Value> {
    Some(protobuf::UInt64Value { value })
}

#[test]
pub(super) fn rule_109_the_older_field() {
    cluster().refuses(&[
        (109, "lb_policy", |cluster| cluster.lb_policy = LbPolicy::ClusterProvided as i32),
        (109, "lb_policy", |cluster| cluster.lb_policy = LbPolicy::LoadBalancingPolicyConfig as i32),
        (109, "lb_policy", |cluster| cluster.lb_policy = 77),
        (110, "ring_hash_lb_config.hash_function", |cluster| {
            cluster.lb_policy = LbPolicy::RingHash as i32;
            cluster.lb_config =
                Some(LbConfig::RingHashLbConfig(RingHashLbConfig { hash_function: 7, ..Default::default() }));
        }),
        (111, "ring_hash_lb_config.maximum_ring_size", |cluster| {
            cluster.lb_policy = LbPolicy::RingHash as i32;
            let maximum_ring_size = u64_value(8_388_609);
            cluster.lb_config =
                Some(LbConfig::RingHashLbConfig(RingHashLbConfig { maximum_ring_size, ..Default::default() }));
        }),
        (113, "least_request_lb_config.choice_count", |cluster| {
            cluster.lb_policy = LbPolicy::LeastRequest as i32;
            let choice_count = u32_value(1);
            cluster.lb_config =
                Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig { choice_count, ..Default::default() }));
        }),
        (0, "maglev_lb_config.table_size", |cluster| {
            cluster.lb_policy = LbPolicy::Maglev as i32;
            let table_size = u64_value(10);
            cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
        }),
    ]);
    // gRPC can't.
    cluster().takes(&[
        (109, "random", |cluster| cluster.lb_policy = LbPolicy::Random as i32),
        (109, "maglev", |cluster| cluster.lb_policy = LbPolicy::Maglev as i32),
        (110, "murmur", |cluster| {
            cluster.lb_policy = LbPolicy::RingHash as i32;
            cluster.lb_config =
                Some(LbConfig::RingHashLbConfig(RingHashLbConfig { hash_function: 1, ..Default::default() }));
        }),
    ]);
    cluster().takes(&[(109, "the newer field has priority", |cluster| {
        cluster.lb_policy = 77;
        cluster.load_balancing_policy = Some(nested(1));
    })]);
}

fn decoded(change: fn(&mut pb::Cluster)) -> Arc<Cluster> {
    cluster().value(change)
}

fn as_any(config: &dyn crate::balance::PolicyConfig) -> &dyn std::any::Any {
    config
}

#[test]
fn policies_become_what_they_say() {
    let weighted = |cluster: &Cluster| downcast::<WrrLocality>(as_any(&*cluster.policy)).child.clone();
    // EDS weighs localities.
    downcast::<RoundRobinConfig>(as_any(&*weighted(&decoded(|_| {}))));
    downcast::<RandomConfig>(as_any(&*weighted(&decoded(|it| it.lb_policy = LbPolicy::Random as i32))));
    let least = weighted(&decoded(|cluster| {
        cluster.lb_policy = LbPolicy::LeastRequest as i32;
        let choice_count = u32_value(99);
        cluster.lb_config =
            Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig { choice_count, ..Default::default() }));
    }));
    assert_eq!(downcast::<LeastRequestConfig>(as_any(&*least)).choice_count, 10, "gRFC A48: more is read as 10");

    let ring = decoded(|cluster| cluster.lb_policy = LbPolicy::RingHash as i32);
    let ring = downcast::<RingHashConfig>(as_any(&*ring.policy));
    assert_eq!((ring.min_size, ring.max_size, ring.function), (1024, 4096, HashFunction::Xx));
    let maglev = decoded(|cluster| cluster.lb_policy = LbPolicy::Maglev as i32);
    assert_eq!(downcast::<MaglevConfig>(as_any(&*maglev.policy)).table_size, 65537);

    // Nesting as it is said, and nothing around it.
    let deep = decoded(|cluster| cluster.load_balancing_policy = Some(nested(3)));
    let middle = weighted(&deep);
    let inner = &downcast::<WrrLocality>(as_any(&*middle)).child;
    downcast::<RoundRobinConfig>(as_any(&**inner));
    let plain = decoded(|cluster| cluster.load_balancing_policy = Some(nested(1)));
    downcast::<RoundRobinConfig>(as_any(&*plain.policy));
    let first = decoded(|cluster| {
        let shuffled = PickFirst { shuffle_address_list: true };
        cluster.load_balancing_policy = Some(list(vec![nothing(), any(&shuffled)]));
    });
    assert!(downcast::<PickFirstConfig>(as_any(&*first.policy)).shuffle);
}

#[test]
fn client_side_weights_have_grpcs_defaults() {
    let cluster = decoded(|cluster| {
        let config = ClientSideWeightedRoundRobin { weight_update_period: millis(1), ..Default::default() };
        cluster.load_balancing_policy = Some(list(vec![any(&config)]));
    });
    let found = downcast::<ClientSideWrrConfig>(as_any(&*cluster.policy));
    assert_eq!(found.weight_update_period, Duration::from_millis(100), "gRFC A58: not more often");
    assert_eq!(found.blackout_period, Duration::from_secs(10));
    assert_eq!(found.weight_expiration_period, Duration::from_secs(180));
    assert_eq!((found.out_of_band, found.error_utilization_penalty), (false, 1.0));
}

#[test]
fn what_a_policy_leaves_out_is_noted() {
    let cluster = decoded(|cluster| {
        let config = RoundRobin { slow_start_config: Some(Default::default()), ..Default::default() };
        cluster.load_balancing_policy = Some(list(vec![any(&config)]));
    });
    let fields: Vec<&str> = cluster.unsupported.iter().map(|note| note.field.as_str()).collect();
    let expected = "load_balancing_policy.policies[0].typed_extension_config.typed_config.slow_start_config";
    assert_eq!(fields, [expected]);
}
