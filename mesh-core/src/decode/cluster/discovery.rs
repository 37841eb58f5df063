//! How a cluster's endpoints are found: rules 91 to 103.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use pb::cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType};

use crate::decode::Decoder;
use crate::decode::at::At;
use crate::decode::endpoints::inline_endpoints;
use crate::decode::envelope::{check_source, expect};
use crate::decode::value::{port, socket};
use crate::model::{DiscoveryKind, DnsHost, Endpoints};
use crate::resource::canonical_name;

impl Decoder {
    pub(super) fn discovery(&self, value: &pb::Cluster, at: &At<'_>) -> Option<DiscoveryKind> {
        let kind = match &value.cluster_discovery_type {
            Some(ClusterDiscoveryType::ClusterType(custom)) => return aggregate(custom, &at.field("cluster_type")),
            Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind),
            // STATIC is the zero value.
            None => Ok(DiscoveryType::Static),
        };
        match kind {
            Ok(DiscoveryType::Eds) => eds(value, at),
            Ok(DiscoveryType::LogicalDns) => logical_dns(value.load_assignment.as_ref(), at),
            // Rule 91 refuses the next two because gRPC can't.
            Ok(DiscoveryType::StrictDns) => strict_dns(value.load_assignment.as_ref(), at),
            Ok(DiscoveryType::Static) => Some(DiscoveryKind::Static(Arc::new(inline(value, at)))),
            Ok(DiscoveryType::OriginalDst) => {
                at.field("type").fault("is ORIGINAL_DST, which has no meaning without a proxy");
                None
            }
            Err(_) => {
                at.field("type").fault("is not known");
                None
            }
        }
    }
}

fn inline(value: &pb::Cluster, at: &At<'_>) -> Endpoints {
    match value.load_assignment.clone() {
        Some(assignment) => inline_endpoints(assignment, &at.field("load_assignment")),
        None => Endpoints::default(),
    }
}

/// Rules 92 to 94.
fn eds(value: &pb::Cluster, at: &At<'_>) -> Option<DiscoveryKind> {
    let at = at.field("eds_cluster_config");
    let Some(config) = &value.eds_cluster_config else {
        at.fault("is missing");
        return None;
    };
    check_source(config.eds_config.as_ref(), &at.field("eds_config"));
    if value.name.starts_with("xdstp:") && config.service_name.is_empty() {
        at.field("service_name").fault("is empty, and the cluster's name is an xdstp: one");
    }
    let name = if config.service_name.is_empty() { &value.name } else { &config.service_name };
    Some(DiscoveryKind::Eds { service_name: name.as_str().into() })
}

/// Rules 95 to 101.
fn logical_dns(value: Option<&ClusterLoadAssignment>, at: &At<'_>) -> Option<DiscoveryKind> {
    let at = at.field("load_assignment");
    let Some(assignment) = value else {
        at.fault("is missing");
        return None;
    };
    let [locality] = &assignment.endpoints[..] else {
        at.field("endpoints").fault("must have one locality");
        return None;
    };
    let at = at.item("endpoints", 0);
    let [endpoint] = &locality.lb_endpoints[..] else {
        at.field("lb_endpoints").fault("must have one endpoint");
        return None;
    };
    dns_host(endpoint, &at.item("lb_endpoints", 0)).map(DiscoveryKind::LogicalDns)
}

/// Envoy's: any number of names.
fn strict_dns(value: Option<&ClusterLoadAssignment>, at: &At<'_>) -> Option<DiscoveryKind> {
    let at = at.field("load_assignment");
    let Some(assignment) = value else {
        at.fault("is missing");
        return None;
    };
    let mut hosts = Vec::new();
    for (index, locality) in assignment.endpoints.iter().enumerate() {
        let at = at.item("endpoints", index);
        for (index, endpoint) in locality.lb_endpoints.iter().enumerate() {
            hosts.extend(dns_host(endpoint, &at.item("lb_endpoints", index)));
        }
    }
    Some(DiscoveryKind::StrictDns(hosts))
}

fn dns_host(value: &LbEndpoint, at: &At<'_>) -> Option<DnsHost> {
    let at = at.field("endpoint");
    let Some(HostIdentifier::Endpoint(endpoint)) = &value.host_identifier else {
        at.fault("is missing");
        return None;
    };
    address(endpoint.address.as_ref(), &at.field("address"))
}

fn address(value: Option<&Address>, at: &At<'_>) -> Option<DnsHost> {
    let socket = socket(value, at)?;
    let at = at.field("socket_address");
    if socket.address.is_empty() {
        at.field("address").fault("is empty");
    }
    if !socket.resolver_name.is_empty() {
        at.field("resolver_name").fault("must be empty");
    }
    Some(DnsHost { host: socket.address.clone(), port: port(socket, &at)? })
}

/// Rules 102 and 103.
fn aggregate(value: &CustomClusterType, at: &At<'_>) -> Option<DiscoveryKind> {
    let at = at.field("typed_config");
    let Some(any) = &value.typed_config else {
        at.fault("is missing");
        return None;
    };
    let config: ClusterConfig = expect(any, &at)?;
    if config.clusters.is_empty() {
        at.field("clusters").fault("is empty");
    }
    for (index, name) in config.clusters.iter().enumerate() {
        if name.is_empty() {
            at.item("clusters", index).fault("is empty");
        }
    }
    Some(DiscoveryKind::Aggregate(config.clusters.iter().map(|name| canonical_name(name.as_str())).collect()))
}
