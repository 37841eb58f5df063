//! `lb_policy`, the older way to name a policy: rule 109.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use pb::cluster::common_lb_config::LocalityConfigSpecifier;
use pb::cluster::ring_hash_lb_config::HashFunction as PbFunction;
use pb::cluster::{LbConfig, LbPolicy, SlowStartConfig};

use super::built_in::least_request_config;
use super::{hashing, subset};
use crate::balance::{HashFunction, PolicyConfig, RandomConfig, RoundRobinConfig, WrrLocality};
use crate::decode::Decoder;
use crate::decode::at::At;
use crate::decode::value::{duration, percent};
use crate::model::DiscoveryKind;

impl Decoder {
    /// The policy of a cluster: `load_balancing_policy`, or else the older field.
    pub(in crate::decode) fn cluster_policy(
        &self,
        value: &pb::Cluster,
        discovery: &DiscoveryKind,
        at: &At<'_>,
    ) -> Option<Arc<dyn PolicyConfig>> {
        check_slow_start(value.lb_config.as_ref(), at);
        if let Some(policy) = &value.load_balancing_policy {
            check_subsets_alone(value, at);
            return self.policy(policy, 1, &at.field("load_balancing_policy"));
        }
        let policy = self.older_policy(value, discovery, at)?;
        Some(subset::of_cluster(policy, value.lb_subset_config.as_ref(), at))
    }

    fn older_policy(
        &self,
        value: &pb::Cluster,
        discovery: &DiscoveryKind,
        at: &At<'_>,
    ) -> Option<Arc<dyn PolicyConfig>> {
        let here = at.field("lb_policy");
        let policy: Arc<dyn PolicyConfig> = match LbPolicy::try_from(value.lb_policy) {
            Ok(LbPolicy::RoundRobin) => Arc::new(RoundRobinConfig),
            Ok(LbPolicy::LeastRequest) => least_request(value, at)?,
            Ok(LbPolicy::RingHash) => return ring_hash(value, at),
            // gRPC can't.
            Ok(LbPolicy::Random) => Arc::new(RandomConfig),
            Ok(LbPolicy::Maglev) => return maglev(value, at),
            // What Envoy asks of an aggregate cluster; its own policy is never used (gRFC A75).
            Ok(LbPolicy::ClusterProvided) if matches!(discovery, DiscoveryKind::Aggregate(_)) => {
                Arc::new(RoundRobinConfig)
            }
            Ok(LbPolicy::LoadBalancingPolicyConfig) => {
                here.fault("is LOAD_BALANCING_POLICY_CONFIG, but load_balancing_policy is missing");
                return None;
            }
            Ok(LbPolicy::ClusterProvided) => {
                here.fault("is CLUSTER_PROVIDED, which is for aggregate clusters only");
                return None;
            }
            Err(_) => {
                here.fault(format!("is {}, which is not known", value.lb_policy));
                return None;
            }
        };
        Some(if weighs_localities(value, discovery) { Arc::new(WrrLocality { child: policy }) } else { policy })
    }
}

/// The newer field has a policy for subsets, and where there is one, gRPC does not look at the older fields.
fn check_subsets_alone(value: &pb::Cluster, at: &At<'_>) {
    if value.lb_subset_config.is_some() {
        let at = at.field("lb_subset_config");
        at.envoy_fault("is given together with load_balancing_policy");
        at.left_out();
    }
}

/// EDS weighs localities, as gRPC does; elsewhere Envoy must be asked to.
fn weighs_localities(value: &pb::Cluster, discovery: &DiscoveryKind) -> bool {
    let specifier = value.common_lb_config.as_ref().and_then(|common| common.locality_config_specifier.as_ref());
    matches!(discovery, DiscoveryKind::Eds { .. })
        || matches!(specifier, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)))
}

fn least_request(value: &pb::Cluster, at: &At<'_>) -> Option<Arc<dyn PolicyConfig>> {
    let (count, bias) = match &value.lb_config {
        Some(LbConfig::LeastRequestLbConfig(config)) => (
            config.choice_count.map(|count| count.value),
            config.active_request_bias.as_ref().map(|bias| bias.default_value),
        ),
        _ => (None, None),
    };
    match least_request_config(count, bias) {
        Ok(config) => Some(Arc::new(config)),
        Err(faults) => {
            at.field("least_request_lb_config").faults(faults);
            None
        }
    }
}

fn ring_hash(value: &pb::Cluster, at: &At<'_>) -> Option<Arc<dyn PolicyConfig>> {
    let at = at.field("ring_hash_lb_config");
    let config = match &value.lb_config {
        Some(LbConfig::RingHashLbConfig(config)) => *config,
        _ => pb::cluster::RingHashLbConfig::default(),
    };
    let function = match PbFunction::try_from(config.hash_function) {
        Ok(PbFunction::XxHash) => HashFunction::Xx,
        Ok(PbFunction::MurmurHash2) => HashFunction::Murmur2,
        // Rule 110.
        Err(_) => {
            at.field("hash_function").fault(format!("is {}, which is not known", config.hash_function));
            return None;
        }
    };
    let min = config.minimum_ring_size.map(|size| size.value);
    let max = config.maximum_ring_size.map(|size| size.value);
    match hashing::ring(min, max, function, use_hostname(value)) {
        Ok(config) => Some(Arc::new(config)),
        Err(faults) => {
            at.faults(faults);
            None
        }
    }
}

fn maglev(value: &pb::Cluster, at: &At<'_>) -> Option<Arc<dyn PolicyConfig>> {
    let size = match &value.lb_config {
        Some(LbConfig::MaglevLbConfig(config)) => config.table_size.map(|size| size.value),
        _ => None,
    };
    match hashing::table(size, use_hostname(value)) {
        Ok(config) => Some(Arc::new(config)),
        Err(faults) => {
            at.field("maglev_lb_config").faults(faults);
            None
        }
    }
}

fn use_hostname(value: &pb::Cluster) -> bool {
    let common = value.common_lb_config.as_ref();
    let hashing = common.and_then(|common| common.consistent_hashing_lb_config.as_ref());
    hashing.is_some_and(|hashing| hashing.use_hostname_for_hashing)
}

fn check_slow_start(value: Option<&LbConfig>, at: &At<'_>) {
    let check = |value: Option<&SlowStartConfig>, at: &At<'_>| {
        if let Some(value) = value {
            let at = at.field("slow_start_config");
            duration(value.slow_start_window.as_ref(), &at.field("slow_start_window"));
            if let Some(share) = &value.min_weight_percent {
                percent(share, &at.field("min_weight_percent"));
            }
            at.left_out();
        }
    };
    match value {
        Some(LbConfig::RoundRobinLbConfig(config)) => {
            check(config.slow_start_config.as_ref(), &at.field("round_robin_lb_config"));
        }
        Some(LbConfig::LeastRequestLbConfig(config)) => {
            check(config.slow_start_config.as_ref(), &at.field("least_request_lb_config"));
        }
        _ => {}
    }
}
