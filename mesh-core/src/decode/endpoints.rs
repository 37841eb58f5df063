//! `ClusterLoadAssignment`: rules 131 to 145, and Envoy's rules where endpoints are in a STATIC cluster.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::google::protobuf::UInt32Value;
use pb::cluster_load_assignment::policy::DropOverload as PbDrop;
use pb::lb_endpoint::HostIdentifier;
use pb::locality_lb_endpoints::LbConfig;
use prost::{DecodeError, Message};

use super::at::At;
use super::value::{fraction, ip_and_port, metadata};
use crate::model::{DropOverload, Endpoint, Endpoints, Health, Locality, LocalityEndpoints, Name};

/// Envoy's default, in percent.
const OVERPROVISIONING: u32 = 140;

/// Envoy's bound.
const LAST_PRIORITY: u32 = 128;

/// Whose rules an assignment follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Rules {
    /// gRPC's, for EDS.
    #[default]
    Eds,
    /// Envoy's, for endpoints inside a cluster: localities need no name and no weight, priorities may have gaps, and an
    /// address may come twice.
    Inline,
}

/// A `ClusterLoadAssignment` whose localities are still bytes: an endpoint takes ten times its bytes when it is decoded, so
/// of a hundred thousand one is at a time.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Assignment {
    #[prost(string, tag = "1")]
    pub(super) cluster_name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    endpoints: Vec<Bytes>,
    #[prost(message, optional, tag = "4")]
    policy: Option<pb::cluster_load_assignment::Policy>,
}

/// A `LocalityLbEndpoints` whose endpoints are still bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct LocalityBytes {
    #[prost(message, optional, tag = "1")]
    locality: Option<core::Locality>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    lb_endpoints: Vec<Bytes>,
    #[prost(message, optional, tag = "3")]
    load_balancing_weight: Option<UInt32Value>,
    #[prost(uint32, tag = "5")]
    priority: u32,
    #[prost(oneof = "LbConfig", tags = "7, 8")]
    lb_config: Option<LbConfig>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<core::Metadata>,
}

impl Assignment {
    /// What it means.
    pub(super) fn endpoints(self, at: &At<'_>) -> Endpoints {
        let mut reader = Reader::default();
        for (index, bytes) in self.endpoints.into_iter().enumerate() {
            let at = at.item("endpoints", index);
            match LocalityBytes::decode(bytes) {
                Ok(value) => {
                    let head = Head {
                        locality: value.locality,
                        weight: value.load_balancing_weight.map(|weight| weight.value),
                        priority: value.priority,
                        lb_config: value.lb_config,
                        metadata: value.metadata,
                    };
                    reader.locality(head, value.lb_endpoints.into_iter().map(pb::LbEndpoint::decode), &at);
                }
                Err(error) => at.fault(format!("cannot be decoded: {error}")),
            }
        }
        reader.into_endpoints(self.policy, at)
    }
}

/// What the endpoints inside a cluster mean.
pub(super) fn inline_endpoints(value: pb::ClusterLoadAssignment, at: &At<'_>) -> Endpoints {
    if value.cluster_name.is_empty() {
        at.field("cluster_name").envoy_fault("is empty");
    }
    let mut reader = Reader { rules: Rules::Inline, ..Reader::default() };
    for (index, value) in value.endpoints.into_iter().enumerate() {
        let head = Head {
            locality: value.locality,
            weight: value.load_balancing_weight.map(|weight| weight.value),
            priority: value.priority,
            lb_config: value.lb_config,
            metadata: value.metadata,
        };
        reader.locality(head, value.lb_endpoints.into_iter().map(Ok), &at.item("endpoints", index));
    }
    reader.into_endpoints(value.policy, at)
}

/// What a locality says beside its endpoints.
struct Head {
    locality: Option<core::Locality>,
    weight: Option<u32>,
    priority: u32,
    lb_config: Option<LbConfig>,
    metadata: Option<core::Metadata>,
}

#[derive(Default)]
struct Reader {
    rules: Rules,
    addresses: HashSet<SocketAddr>,
    /// Shared by the endpoints that have none, which are most.
    no_hostname: Name,
    names: BTreeSet<(u32, Locality)>,
    localities: Vec<LocalityEndpoints>,
}

impl Reader {
    fn into_endpoints(self, policy: Option<pb::cluster_load_assignment::Policy>, at: &At<'_>) -> Endpoints {
        let rules = self.rules;
        let localities = self.finish(at);
        let (policy, at) = (policy.unwrap_or_default(), at.field("policy"));
        if policy.endpoint_stale_after.is_some_and(|after| after.seconds <= 0 && after.nanos <= 0) {
            at.field("endpoint_stale_after").envoy_fault("must be longer than 0");
        }
        let factor = policy.overprovisioning_factor.map(|value| value.value);
        Endpoints {
            localities,
            drops: drops(&policy.drop_overloads, &at),
            overprovisioning_factor: overprovisioning(factor, rules, &at),
        }
    }

    fn locality(
        &mut self,
        head: Head,
        endpoints: impl ExactSizeIterator<Item = Result<pb::LbEndpoint, DecodeError>>,
        at: &At<'_>,
    ) {
        if self.rules == Rules::Inline && head.priority > LAST_PRIORITY {
            at.field("priority").fault(format!("must be at most {LAST_PRIORITY}"));
        }
        let weight = match (self.rules, head.weight) {
            // Rule 131, before anything else of the locality is looked at.
            (Rules::Eds, None | Some(0)) => return,
            (Rules::Inline, None) => 1,
            (Rules::Inline, Some(0)) => {
                at.field("load_balancing_weight").fault("must be at least 1");
                1
            }
            (_, Some(weight)) => weight,
        };
        // Rule 132.
        if self.rules == Rules::Eds && head.locality.is_none() {
            at.field("locality").fault("is missing");
        }
        check_leds(head.lb_config.as_ref(), at);
        let locality = locality(head.locality.unwrap_or_default());
        self.check_duplicate(&locality, head.priority, at);
        let endpoints = self.endpoints(endpoints, at);
        self.localities.push(LocalityEndpoints {
            locality: Arc::new(locality),
            priority: head.priority,
            weight,
            metadata: metadata(head.metadata),
            endpoints,
        });
    }

    /// Rule 133.
    fn check_duplicate(&mut self, locality: &Locality, priority: u32, at: &At<'_>) {
        if self.rules == Rules::Eds && !self.names.insert((priority, locality.clone())) {
            at.field("locality").fault(format!("is {locality}, which priority {priority} has already"));
        }
    }

    fn endpoints(
        &mut self,
        values: impl ExactSizeIterator<Item = Result<pb::LbEndpoint, DecodeError>>,
        at: &At<'_>,
    ) -> Box<[Endpoint]> {
        let mut endpoints = Vec::with_capacity(values.len());
        let mut total: u64 = 0;
        for (index, value) in values.enumerate() {
            let at = at.item("lb_endpoints", index);
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    at.fault(format!("cannot be decoded: {error}"));
                    continue;
                }
            };
            if let Some(endpoint) = self.endpoint(value, &at) {
                total += u64::from(endpoint.weight);
                endpoints.push(endpoint);
            }
        }
        // Rule 140.
        if u32::try_from(total).is_err() {
            at.field("lb_endpoints").fault("has weights whose sum is more than 4294967295");
        }
        endpoints.into_boxed_slice()
    }

    fn endpoint(&mut self, value: pb::LbEndpoint, at: &At<'_>) -> Option<Endpoint> {
        let weight = value.load_balancing_weight.map_or(1, |weight| weight.value);
        if weight == 0 {
            // Rule 139.
            at.field("load_balancing_weight").fault("must be at least 1");
        }
        let health = health(value.health_status);
        let Some(HostIdentifier::Endpoint(endpoint)) = value.host_identifier else {
            // Rule 136; an `endpoint_name` leads nowhere here (rule 143).
            at.field("endpoint").fault("is missing");
            return None;
        };
        let at = at.field("endpoint");
        let address = self.address(endpoint.address.as_ref(), &at.field("address"));
        let mut additional = Vec::new();
        for (index, more) in endpoint.additional_addresses.iter().enumerate() {
            // Rule 137.
            let at = at.item("additional_addresses", index);
            additional.extend(self.address(more.address.as_ref(), &at.field("address")));
        }
        Some(Endpoint {
            address: address?,
            additional,
            weight,
            health,
            hostname: if endpoint.hostname.is_empty() { self.no_hostname.clone() } else { endpoint.hostname.into() },
            metadata: metadata(value.metadata),
        })
    }

    /// Rules 136 and 138.
    fn address(&mut self, value: Option<&core::Address>, at: &At<'_>) -> Option<SocketAddr> {
        let address = ip_and_port(value, at)?;
        if !self.addresses.insert(address) && self.rules == Rules::Eds {
            at.fault(format!("is {address}, which another endpoint has"));
        }
        Some(address)
    }

    /// Rules 134 and 135, computed over what was not skipped.
    fn finish(mut self, at: &At<'_>) -> Vec<LocalityEndpoints> {
        let mut weights: BTreeMap<u32, u64> = BTreeMap::new();
        for locality in &self.localities {
            *weights.entry(locality.priority).or_default() += u64::from(locality.weight);
        }
        match self.rules {
            Rules::Eds => check_priorities(&weights, at),
            // In Envoy a priority without endpoints is passed over, which is what closing the gap does.
            Rules::Inline => {
                let ranks: BTreeMap<u32, u32> = weights.into_keys().zip(0..).collect();
                for locality in &mut self.localities {
                    locality.priority = ranks.get(&locality.priority).copied().unwrap_or(locality.priority);
                }
            }
        }
        self.localities
    }
}

fn check_priorities(weights: &BTreeMap<u32, u64>, at: &At<'_>) {
    let at = at.field("endpoints");
    for (rank, (priority, total)) in (0u32..).zip(weights) {
        if *priority != rank {
            at.fault(format!("has priority {priority} but not priority {rank}"));
            return;
        }
        if u32::try_from(*total).is_err() {
            at.fault(format!("has localities in priority {priority} whose weights are more than 4294967295 together"));
        }
    }
}

/// Rule 145: endpoints that come by a stream of their own are not supported; taking the locality as empty would send its
/// traffic elsewhere.
fn check_leds(value: Option<&LbConfig>, at: &At<'_>) {
    match value {
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            at.field("leds_cluster_locality_config").fault("is not supported");
        }
        Some(LbConfig::LoadBalancerEndpoints(_)) => {
            at.field("load_balancer_endpoints").fault("is not supported; give lb_endpoints");
        }
        None => {}
    }
}

fn locality(value: core::Locality) -> Locality {
    Locality { region: value.region.into(), zone: value.zone.into(), sub_zone: value.sub_zone.into() }
}

/// Rule 141: who takes requests is decided from this later. A status that is not known is not a healthy one.
fn health(value: i32) -> Health {
    match value {
        0 => Health::Unknown,
        1 => Health::Healthy,
        3 => Health::Draining,
        4 => Health::Timeout,
        5 => Health::Degraded,
        _ => Health::Unhealthy,
    }
}

/// Rule 142.
fn drops(values: &[PbDrop], at: &At<'_>) -> Vec<DropOverload> {
    let mut drops = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = at.item("drop_overloads", index);
        if value.category.is_empty() {
            at.field("category").fault("is empty");
        }
        let here = at.field("drop_percentage");
        let Some(share) = &value.drop_percentage else {
            here.fault("is missing");
            continue;
        };
        let mut fraction = fraction(share, &here);
        if fraction.numerator > fraction.denominator {
            here.envoy_fault("is more than the whole");
        }
        fraction.numerator = fraction.numerator.min(fraction.denominator);
        drops.push(DropOverload { category: value.category.clone(), fraction });
    }
    drops
}

/// gRPC does not look at it (rule 143); Envoy refuses 0.
fn overprovisioning(value: Option<u32>, rules: Rules, at: &At<'_>) -> u32 {
    if value == Some(0) && rules == Rules::Inline {
        at.field("overprovisioning_factor").fault("must be at least 1");
    }
    value.filter(|factor| *factor > 0).unwrap_or(OVERPROVISIONING)
}
