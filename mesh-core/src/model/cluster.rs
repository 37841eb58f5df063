//! Clusters: a group of endpoints, how to find them, choose among them, reach them and trust them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::dns::DnsEndpoints;
use super::endpoint::{Endpoint, Endpoints, LocalityEndpoints};
use super::tls::UpstreamTls;
use super::{LoadPolicy, Metadata, Name, Unsupported};
use crate::balance::PolicyConfig;

/// `config.cluster.v3.Cluster`.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The resource's name.
    pub name: Name,
    /// How its endpoints are found.
    pub discovery: DiscoveryKind,
    /// How an endpoint is chosen: `load_balancing_policy` (gRFC A52), or the old `lb_policy`.
    pub policy: Arc<dyn PolicyConfig>,
    /// `transport_socket`: TLS to the endpoints that none of [`tls_matches`](Self::tls_matches) takes; None is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// `transport_socket_matches`, in order.
    pub tls_matches: Vec<TlsMatch>,
    /// `connect_timeout`: 5 s by default.
    pub connect_timeout: Duration,
    /// `circuit_breakers`.
    pub circuit_breakers: CircuitBreakers,
    /// `outlier_detection`; None is off.
    pub outlier: Option<OutlierDetection>,
    /// Which HTTP its endpoints speak.
    pub protocol: HttpProtocol,
    /// `lrs_server.self`: report load to the server this resource came from (gRFC A27). None: do not.
    pub load: Option<LoadPolicy>,
    /// `common_lb_config.healthy_panic_threshold`.
    pub panic_threshold: PanicThreshold,
    /// `metadata.filter_metadata`.
    pub metadata: Metadata,
    /// What it asks for and does not get.
    pub unsupported: Vec<Unsupported>,
}

/// `Cluster.TransportSocketMatch`: TLS to the endpoints whose metadata ask for it. Istio's auto-mTLS is one for
/// `tlsMode: istio`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsMatch {
    /// Its name.
    pub name: Name,
    /// `match`: what metadata must say under [`TLS_MATCH`]; with nothing in it, it takes every endpoint.
    pub criteria: BTreeMap<String, Value>,
    /// TLS to them; None is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// Where metadata say which TLS is for an endpoint.
pub const TLS_MATCH: &str = "envoy.transport_socket_match";

impl TlsMatch {
    fn takes(&self, metadata: &Metadata) -> bool {
        let said = metadata.get(TLS_MATCH);
        self.criteria.iter().all(|(key, value)| said.and_then(|said| said.get(key)) == Some(value))
    }
}

impl Endpoint {
    /// Whether it says of itself that mTLS to it is Istio's: `tlsMode: istio` under [`TLS_MATCH`]. A PERMISSIVE proxy knows
    /// that mTLS by the names that a client offers in ALPN.
    pub fn takes_istio_mtls(&self) -> bool {
        self.metadata.get(TLS_MATCH).and_then(|said| said.get("tlsMode")).is_some_and(|mode| mode == "istio")
    }
}

impl Cluster {
    /// The TLS to `endpoint` of `locality`: that of the first match that takes the endpoint's metadata, or else of the first
    /// that takes its locality's, or else the cluster's; None is plaintext.
    pub fn tls_of(&self, endpoint: &Endpoint, locality: &LocalityEndpoints) -> Option<&Arc<UpstreamTls>> {
        let first = |metadata| self.tls_matches.iter().find(|one| one.takes(metadata));
        let found = first(&endpoint.metadata).or_else(|| first(&locality.metadata));
        found.map_or(self.tls.as_ref(), |one| one.tls.as_ref())
    }

    /// The TLS of each kind of endpoint that it may have: no endpoint gets past a match that takes every one.
    pub fn each_tls(&self) -> impl Iterator<Item = Option<&Arc<UpstreamTls>>> {
        let everyone = self.tls_matches.iter().position(|one| one.criteria.is_empty());
        let met = self.tls_matches.iter().take(everyone.map_or(usize::MAX, |last| last + 1));
        met.map(|one| one.tls.as_ref()).chain(everyone.is_none().then_some(self.tls.as_ref()))
    }
}

/// How a cluster's endpoints are found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DiscoveryKind {
    /// `EDS`, under this name.
    Eds {
        /// `eds_cluster_config.service_name`, or the cluster's own name.
        service_name: Name,
    },
    /// `STATIC`: they are in the resource.
    Static(Arc<Endpoints>),
    /// `LOGICAL_DNS` (gRFC A37): one name, whose addresses are one server's.
    LogicalDns(Arc<DnsEndpoints>),
    /// `STRICT_DNS`: each address of each name is a server.
    StrictDns(Arc<DnsEndpoints>),
    /// `envoy.extensions.clusters.aggregate.v3.ClusterConfig`: the first of these that works.
    Aggregate(Vec<Name>),
}

/// Which HTTP a cluster's endpoints speak (`HttpProtocolOptions`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpProtocol {
    /// Nothing said: HTTP/2 for gRPC and for requests that arrive as HTTP/2 over TLS with ALPN, HTTP/1.1 otherwise.
    #[default]
    Default,
    /// `explicit_http_config.http_protocol_options`.
    Http1,
    /// `explicit_http_config.http2_protocol_options`.
    Http2,
    /// `use_downstream_protocol_config`: as the request came.
    SameAsRequest,
    /// `auto_config`: what ALPN chooses.
    Alpn,
}

/// `config.cluster.v3.CircuitBreakers`, the thresholds of priority DEFAULT (gRFC A32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// `max_requests`: 1,024 by default.
    pub max_requests: u32,
    /// `max_connections`: 1,024 by default.
    pub max_connections: u32,
    /// `max_pending_requests`: 1,024 by default.
    pub max_pending_requests: u32,
    /// `max_retries` at a time: 3 by default in Envoy. None: not said, and our own retry budget applies.
    pub max_retries: Option<u32>,
    /// `retry_budget.budget_percent` in percent, and `min_retry_concurrency`.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        Self {
            max_requests: 1024,
            max_connections: 1024,
            max_pending_requests: 1024,
            max_retries: None,
            retry_budget: None,
        }
    }
}

/// `CircuitBreakers.Thresholds.RetryBudget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries per active request, in millionths: 200,000 (20 %) by default.
    pub millionths: u32,
    /// Retries that are always allowed: 3 by default.
    pub min_concurrency: u32,
}

/// `common_lb_config.healthy_panic_threshold`, in percent: 50 by default in Envoy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PanicThreshold(pub f64);

impl Default for PanicThreshold {
    fn default() -> Self {
        Self(50.0)
    }
}

/// `config.cluster.v3.OutlierDetection` with defaults filled in (gRFC A50).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `interval`: 10 s.
    pub interval: Duration,
    /// `base_ejection_time`: 30 s.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`: the larger of 300 s and the base.
    pub max_ejection_time: Duration,
    /// `max_ejection_percent`: 10.
    pub max_ejection_percent: u32,
    /// `success_rate_*`; None is off.
    pub success_rate: Option<SuccessRate>,
    /// `failure_percentage_*`; None is off.
    pub failure_percentage: Option<FailurePercentage>,
    /// `consecutive_5xx`: 5; zero is off. Envoy only.
    pub consecutive_5xx: u32,
    /// `consecutive_gateway_failure`: 5; enforced only when asked. Envoy only.
    pub consecutive_gateway_failure: u32,
}

/// The success-rate half of [`OutlierDetection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// `success_rate_stdev_factor`: 1,900, in thousandths.
    pub stdev_factor: u32,
    /// `enforcing_success_rate`: 100.
    pub enforcement: u32,
    /// `success_rate_minimum_hosts`: 5.
    pub minimum_hosts: u32,
    /// `success_rate_request_volume`: 100.
    pub request_volume: u32,
}

/// The failure-percentage half of [`OutlierDetection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentage {
    /// `failure_percentage_threshold`: 85.
    pub threshold: u32,
    /// `enforcing_failure_percentage`: 0, which is off.
    pub enforcement: u32,
    /// `failure_percentage_minimum_hosts`: 5.
    pub minimum_hosts: u32,
    /// `failure_percentage_request_volume`: 50.
    pub request_volume: u32,
}
