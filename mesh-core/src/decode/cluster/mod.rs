//! `Cluster`: rules 91 to 130.

mod breakers;
mod discovery;
mod outlier;
mod protocol;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use pb::cluster::common_lb_config::LocalityConfigSpecifier;

use super::Decoder;
use super::at::At;
use super::value::{json, metadata, percent, positive_duration};
use crate::model::{Cluster, EndpointMetric, LoadPolicy, PanicThreshold, TlsMatch};

/// HTTP/2 has 31 bits for it.
const MOST_STREAMS: u32 = (1 << 31) - 1;
/// Every endpoint is held against each of them; istiod sends two or three.
const MOST_TLS_MATCHES: usize = 256;
/// Envoy's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Decoder {
    /// Decodes a cluster.
    pub(super) fn cluster(&self, value: pb::Cluster, at: &At<'_>) -> Option<Cluster> {
        note_unsupported(&value, at);
        check_as_envoy(&value, at);
        let discovery = self.discovery(&value, at);
        let policy = discovery.as_ref().and_then(|discovery| self.cluster_policy(&value, discovery, at));
        let socket = value.transport_socket.as_ref();
        let tls = socket.and_then(|socket| self.upstream_tls(socket, &value.name, &at.field("transport_socket")));
        let cluster = Cluster {
            name: value.name.as_str().into(),
            discovery: discovery?,
            policy: policy?,
            tls: tls.map(Arc::new),
            tls_matches: self.tls_matches(&value, at),
            connect_timeout: positive_duration(value.connect_timeout.as_ref(), &at.field("connect_timeout"))
                .unwrap_or(CONNECT_TIMEOUT),
            circuit_breakers: breakers::circuit_breakers(value.circuit_breakers.as_ref(), at),
            outlier: value
                .outlier_detection
                .as_ref()
                .map(|value| outlier::outlier(value, &at.field("outlier_detection"))),
            protocol: protocol::protocol(&value, at),
            load: load(&value, at),
            panic_threshold: panic_threshold(value.common_lb_config.as_ref(), at),
            metadata: metadata(value.metadata),
            unsupported: Vec::new(),
        };
        Some(Cluster { unsupported: at.notes_since(0), ..cluster })
    }

    /// Rule 116: TLS that depends on the endpoint. Leaving any of it out could mean plaintext.
    fn tls_matches(&self, value: &pb::Cluster, at: &At<'_>) -> Vec<TlsMatch> {
        if value.transport_socket_matcher.is_some() {
            at.field("transport_socket_matcher").fault("is not supported");
        }
        if value.transport_socket_matches.len() > MOST_TLS_MATCHES {
            at.field("transport_socket_matches").fault(format!("must be at most {MOST_TLS_MATCHES}"));
            return Vec::new();
        }
        let matches = value.transport_socket_matches.iter().enumerate();
        let read = |(index, one)| self.tls_match(one, &value.name, &at.item("transport_socket_matches", index));
        matches.filter_map(read).collect()
    }

    /// What cannot be honoured refuses the cluster: without it, its endpoints would get the TLS of others.
    fn tls_match(&self, value: &pb::cluster::TransportSocketMatch, owner: &str, at: &At<'_>) -> Option<TlsMatch> {
        if value.name.is_empty() {
            at.field("name").fault("is empty");
        }
        let at = at.field("transport_socket");
        let Some(socket) = &value.transport_socket else {
            at.fault("is missing");
            return None;
        };
        let criteria = value.r#match.clone().unwrap_or_default().fields;
        Some(TlsMatch {
            name: value.name.as_str().into(),
            criteria: criteria.into_iter().map(|(key, value)| (key, json(value))).collect(),
            tls: self.upstream_tls(socket, owner, &at).map(Arc::new),
        })
    }
}

fn note_unsupported(value: &pb::Cluster, at: &At<'_>) {
    at.all_fail_requests(&[("filters", !value.filters.is_empty())]);
    at.all_left_out(&[
        ("health_checks", !value.health_checks.is_empty()),
        ("max_requests_per_connection", value.max_requests_per_connection.is_some()),
        ("per_connection_buffer_limit_bytes", value.per_connection_buffer_limit_bytes.is_some()),
        ("upstream_bind_config", value.upstream_bind_config.is_some()),
        ("upstream_connection_options", value.upstream_connection_options.is_some()),
        ("preconnect_policy", value.preconnect_policy.is_some()),
        ("respect_dns_ttl", value.respect_dns_ttl),
        ("typed_dns_resolver_config", value.typed_dns_resolver_config.is_some()),
        ("close_connections_on_host_health_failure", value.close_connections_on_host_health_failure),
        ("connection_pool_per_downstream_connection", value.connection_pool_per_downstream_connection),
    ]);
    let hashing = value.common_lb_config.as_ref().and_then(|common| common.consistent_hashing_lb_config.as_ref());
    at.field("common_lb_config").all_left_out(&[(
        "consistent_hashing_lb_config.hash_balance_factor",
        hashing.is_some_and(|hashing| hashing.hash_balance_factor.is_some()),
    )]);
}

/// What we leave out, or what makes a cluster's requests fail, is still refused where Envoy refuses it.
fn check_as_envoy(value: &pb::Cluster, at: &At<'_>) {
    for (index, _) in value.health_checks.iter().enumerate().filter(|(_, check)| check.health_checker.is_none()) {
        at.item("health_checks", index).envoy_fault("does not say how health is checked");
    }
    if let Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) =
        value.common_lb_config.as_ref().and_then(|common| common.locality_config_specifier.as_ref())
        && zones.routing_enabled.is_some_and(|share| !(0.0..=100.0).contains(&share.value))
    {
        let at = at.field("common_lb_config");
        at.field("zone_aware_lb_config").field("routing_enabled").envoy_fault("must be from 0 to 100");
    }
    let streams = value.http2_protocol_options.as_ref().and_then(|options| options.max_concurrent_streams);
    if streams.is_some_and(|streams| !(1..=MOST_STREAMS).contains(&streams.value)) {
        let at = at.field("http2_protocol_options");
        at.field("max_concurrent_streams").envoy_fault(format!("must be from 1 to {MOST_STREAMS}"));
    }
}

/// Rule 104.
fn load(value: &pb::Cluster, at: &At<'_>) -> Option<LoadPolicy> {
    let server = value.lrs_server.as_ref()?;
    if !matches!(server.config_source_specifier, Some(ConfigSourceSpecifier::Self_(_))) {
        at.field("lrs_server").fault("must be `self`");
        return None;
    }
    let service_name = value.eds_cluster_config.as_ref().map_or("", |eds| &eds.service_name);
    let metrics = value.lrs_report_endpoint_metrics.iter().filter_map(|text| metric(text));
    Some(LoadPolicy { service_name: service_name.into(), metrics: metrics.collect() })
}

/// Rule 130: what is not known is ignored (gRFC A85).
fn metric(text: &str) -> Option<EndpointMetric> {
    Some(match text {
        "cpu_utilization" => EndpointMetric::Cpu,
        "mem_utilization" => EndpointMetric::Memory,
        "application_utilization" => EndpointMetric::Application,
        "named_metrics.*" => EndpointMetric::AllNamed,
        _ => EndpointMetric::Named(text.strip_prefix("named_metrics.").filter(|name| !name.is_empty())?.into()),
    })
}

fn panic_threshold(value: Option<&pb::cluster::CommonLbConfig>, at: &At<'_>) -> PanicThreshold {
    let at = at.field("common_lb_config");
    let share = value.and_then(|common| common.healthy_panic_threshold.as_ref());
    share.map_or_else(PanicThreshold::default, |share| {
        PanicThreshold(percent(share, &at.field("healthy_panic_threshold")))
    })
}
