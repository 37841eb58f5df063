//! How a cluster's endpoints are found: rules 91 to 103.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::{Address, address};
use envoy_types::pb::envoy::config::endpoint::v3::{LbEndpoint, lb_endpoint::HostIdentifier};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use pb::cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily};

use crate::decode::Decoder;
use crate::decode::at::At;
use crate::decode::endpoints::inline_endpoints;
use crate::decode::envelope::{check_source, expect};
use crate::decode::value::{metadata, port, positive_duration, socket};
use crate::model::{
    DiscoveryKind, DnsEndpoints, DnsFamily, DnsHost, Endpoint, Endpoints, Health, Locality, LocalityEndpoints,
};
use crate::resource::canonical_name;

/// Envoy's default for `dns_refresh_rate`.
const REFRESH: Duration = Duration::from_secs(5);
/// Envoy would ask a thousand times a second if it is told to.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
/// Envoy's default, in percent.
const OVERPROVISIONING: u32 = 140;

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
            Ok(DiscoveryType::LogicalDns) => logical_dns(value, at),
            // Rule 91 refuses the next two because gRPC can't.
            Ok(DiscoveryType::StrictDns) => strict_dns(value, at),
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

/// Rules 95 to 101. What gRPC does not look at, as weights, means nothing: there is one endpoint.
fn logical_dns(value: &pb::Cluster, at: &At<'_>) -> Option<DiscoveryKind> {
    let family = family(value.dns_lookup_family);
    let at = at.field("load_assignment");
    let Some(assignment) = &value.load_assignment else {
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
    let host = dns_host(endpoint, &at.item("lb_endpoints", 0))?;
    let like = Endpoint {
        address: unknown(host.port),
        additional: Vec::new(),
        weight: 1,
        health: Health::Unknown,
        hostname: hostname(endpoint).unwrap_or(&host.host).into(),
        metadata: metadata(endpoint.metadata.clone()),
    };
    // Load is reported for a locality without a name.
    let locality = LocalityEndpoints {
        locality: Arc::new(Locality::default()),
        priority: 0,
        weight: 1,
        metadata: metadata(locality.metadata.clone()),
        endpoints: Box::new([like]),
    };
    let like = Endpoints { localities: vec![locality], drops: Vec::new(), overprovisioning_factor: OVERPROVISIONING };
    Some(DiscoveryKind::LogicalDns(Arc::new(DnsEndpoints { hosts: vec![host], like, family, refresh: None })))
}

/// Envoy's: any number of names, and all else as it is said of addresses.
fn strict_dns(value: &pb::Cluster, at: &At<'_>) -> Option<DiscoveryKind> {
    let refresh = positive_duration(value.dns_refresh_rate.as_ref(), &at.field("dns_refresh_rate")).unwrap_or(REFRESH);
    let family = family(value.dns_lookup_family);
    let at = at.field("load_assignment");
    let Some(mut assignment) = value.load_assignment.clone() else {
        at.fault("is missing");
        return None;
    };
    let mut hosts = Vec::new();
    for (index, locality) in assignment.endpoints.iter_mut().enumerate() {
        let at = at.item("endpoints", index);
        for (index, endpoint) in locality.lb_endpoints.iter_mut().enumerate() {
            let host = dns_host(endpoint, &at.item("lb_endpoints", index))?;
            stand_in(endpoint, &host);
            hosts.push(host);
        }
    }
    let like = inline_endpoints(assignment, &at);
    let refresh = Some(refresh.max(SHORTEST_REFRESH));
    Some(DiscoveryKind::StrictDns(Arc::new(DnsEndpoints { hosts, like, family, refresh })))
}

/// Puts an address in the place of the name, so that the endpoint is read like any other.
fn stand_in(value: &mut LbEndpoint, host: &DnsHost) {
    let Some(HostIdentifier::Endpoint(endpoint)) = &mut value.host_identifier else { return };
    if endpoint.hostname.is_empty() {
        endpoint.hostname.clone_from(&host.host);
    }
    if let Some(Address { address: Some(address::Address::SocketAddress(socket)) }) = &mut endpoint.address {
        socket.address = Ipv4Addr::UNSPECIFIED.to_string();
    }
}

fn unknown(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn hostname(value: &LbEndpoint) -> Option<&str> {
    match &value.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) if !endpoint.hostname.is_empty() => Some(&endpoint.hostname),
        _ => None,
    }
}

fn family(value: i32) -> DnsFamily {
    match DnsLookupFamily::try_from(value) {
        Ok(DnsLookupFamily::V4Only) => DnsFamily::V4Only,
        Ok(DnsLookupFamily::V6Only) => DnsFamily::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => DnsFamily::V4Preferred,
        // A value that is not known is none that gRPC would look at.
        _ => DnsFamily::All,
    }
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
    } else if socket.address.contains('\0') {
        at.field("address").fault("has a NUL in it, and is no name");
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
