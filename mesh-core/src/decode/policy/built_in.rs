//! The policies of `balance`, as types of the registry.

use std::sync::Arc;

use common::locality_lb_config::LocalityConfigSpecifier;
use envoy_types::pb::envoy::extensions::load_balancing_policies as pb;
use pb::common::v3 as common;
use prost::Message;

use super::{PolicyScope, check_slow_start, hashing, subset, weighted};
use crate::balance::{LeastRequestConfig, PickFirstConfig, PolicyConfig, RandomConfig, RoundRobinConfig, WrrLocality};
use crate::decode::envelope::proto;
use crate::decode::{ExtensionValue, Fault, PolicyType};

type Decoded = Result<Arc<dyn PolicyConfig>, Vec<Fault>>;
type Read = fn(ExtensionValue<'_>, &PolicyScope<'_>) -> Decoded;

/// A type of policy that one function reads.
struct BuiltIn {
    type_url: &'static str,
    read: Read,
}

impl PolicyType for BuiltIn {
    fn type_url(&self) -> &str {
        self.type_url
    }

    fn decode(&self, value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Decoded {
        (self.read)(value, scope)
    }
}

/// Every built-in policy.
pub(in crate::decode) fn built_in() -> Vec<Arc<dyn PolicyType>> {
    let rows: [(&'static str, Read); 9] = [
        ("envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin", round_robin),
        ("envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest", least_request),
        ("envoy.extensions.load_balancing_policies.random.v3.Random", random),
        ("envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash", hashing::ring_hash),
        ("envoy.extensions.load_balancing_policies.maglev.v3.Maglev", hashing::maglev),
        ("envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality", wrr_locality),
        ("envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst", pick_first),
        ("envoy.extensions.load_balancing_policies.subset.v3.Subset", subset::subset),
        (
            "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
            weighted::client_side,
        ),
    ];
    rows.into_iter().map(|(type_url, read)| Arc::new(BuiltIn { type_url, read }) as Arc<dyn PolicyType>).collect()
}

fn round_robin(value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Decoded {
    let value = proto::<pb::round_robin::v3::RoundRobin>(value)?;
    check_slow_start(value.slow_start_config.as_ref(), &scope.at);
    Ok(by_locality(Arc::new(RoundRobinConfig), value.locality_lb_config.as_ref()))
}

fn least_request(value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Decoded {
    let value = proto::<pb::least_request::v3::LeastRequest>(value)?;
    check_slow_start(value.slow_start_config.as_ref(), &scope.at);
    if value.enable_full_scan.is_some_and(|value| value.value) || value.selection_method != 0 {
        scope.left_out("selection_method");
    }
    let bias = value.active_request_bias.map(|bias| bias.default_value);
    let config = least_request_config(value.choice_count.map(|count| count.value), bias)?;
    Ok(by_locality(Arc::new(config), value.locality_lb_config.as_ref()))
}

/// Rule 113. More choices than [`LeastRequestConfig::MAX_CHOICES`] are read as that many (gRFC A48).
pub(super) fn least_request_config(count: Option<u32>, bias: Option<f64>) -> Result<LeastRequestConfig, Vec<Fault>> {
    let default = LeastRequestConfig::default();
    let count = count.unwrap_or(default.choice_count);
    if count < 2 {
        return super::refuse("choice_count", "must be at least 2");
    }
    let bias = bias.unwrap_or(default.active_request_bias);
    if !bias.is_finite() || bias < 0.0 {
        return super::refuse("active_request_bias.default_value", "must be at least 0");
    }
    Ok(LeastRequestConfig { choice_count: count.min(LeastRequestConfig::MAX_CHOICES), active_request_bias: bias })
}

fn random(value: ExtensionValue<'_>, _scope: &PolicyScope<'_>) -> Decoded {
    let value = proto::<pb::random::v3::Random>(value)?;
    Ok(by_locality(Arc::new(RandomConfig), value.locality_lb_config.as_ref()))
}

fn pick_first(value: ExtensionValue<'_>, _scope: &PolicyScope<'_>) -> Decoded {
    let value = proto::<pb::pick_first::v3::PickFirst>(value)?;
    Ok(Arc::new(PickFirstConfig { shuffle: value.shuffle_address_list }))
}

/// Rule 115.
fn wrr_locality(value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Decoded {
    const CHILD: &str = "endpoint_picking_policy";
    let value = proto::<pb::wrr_locality::v3::WrrLocality>(value)?;
    let Some(child) = value.endpoint_picking_policy else {
        return super::refuse(CHILD, "is missing");
    };
    match scope.nested(CHILD, &child.encode_to_vec()) {
        Some(child) => Ok(Arc::new(WrrLocality { child })),
        None => Err(Vec::new()),
    }
}

/// Envoy's way to say `wrr_locality`: the policy's own field asks for locality weights.
fn by_locality(child: Arc<dyn PolicyConfig>, value: Option<&common::LocalityLbConfig>) -> Arc<dyn PolicyConfig> {
    match value.and_then(|value| value.locality_config_specifier.as_ref()) {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Arc::new(WrrLocality { child }),
        _ => child,
    }
}
