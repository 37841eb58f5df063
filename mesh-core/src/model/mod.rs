//! Plain data that everyone shares: what the resources of the mesh mean, with no protobuf type in sight.
//!
//! Values here are valid by construction: `decode` is the only place that builds them from bytes, and it refuses what it
//! cannot honour. Where a resource says something this version does not implement yet, the value carries an
//! [`Unsupported`] that says what happens instead, so that nothing is skipped in silence.

pub mod cluster;
pub mod dns;
pub mod endpoint;
pub mod ext_authz;
pub mod fault;
pub mod filter;
pub mod header;
pub mod internal_redirect;
pub mod jwt;
pub mod listener;
pub mod load;
pub mod matcher;
pub mod metadata;
pub mod rate_limit;
pub mod rbac;
mod re2;
pub mod retry;
pub mod route;
pub mod tls;

pub use cluster::{CircuitBreakers, Cluster, DiscoveryKind, HttpProtocol, OutlierDetection, PanicThreshold, TlsMatch};
pub use dns::{DnsEndpoints, DnsFamily, DnsHost};
pub use endpoint::{DropOverload, Endpoint, Endpoints, Health, Locality, LocalityEndpoints};
pub use ext_authz::{
    AuthzBody, AuthzPath, AuthzService, AuthzSettings, AuthzTransport, ExtAuthz, ExtAuthzOverride, HttpAuthz,
};
pub use fault::{FaultAbort, FaultDelay, FaultDelayAmount, FaultOutcome, FaultPolicy, FaultRateLimit};
pub use filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter};
pub use header::{AppendAction, HeaderAppend, HeaderMutations, HeaderStep, HeaderSteps, QueryStep};
pub use internal_redirect::{InternalRedirect, RedirectPredicate};
pub use jwt::{ClaimHeader, JwksSource, JwtAuthn, JwtProvider, JwtRequirement, JwtRule, RemoteJwks, TokenHeader};
pub use listener::{
    ChainMatch, Cidr, ClientCertDetails, FilterChain, ForwardClientCert, ForwardClientCertMode, HeadRules,
    HttpConnection, Inspection, Listener, ListenerKind, OriginTrust, RouteSource, ServerListener, SourceType,
    Underscores,
};
pub use load::{EndpointMetric, LoadPolicy};
pub use matcher::{
    ByteRegex, CookieMatch, Fraction, HeaderMatch, HeaderTest, PathMatch, Pattern, QueryMatch, QueryTest, StringMatch,
};
pub use metadata::{MetadataMatch, MetadataSource, ValueMatch};
pub use rate_limit::{HostRules, LimitAction, LimitDescriptor, LimitRule, LocalRateLimit, TokenBucket};
pub use rbac::{Audit, Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules};
pub use retry::{Backoff, HedgePolicy, RateLimitedBackoff, ResetFormat, ResetHeader, RetryOn, RetryPolicy};
pub use route::{
    Action, BodyLimit, ClusterChoice, Cors, DirectResponse, Domain, Forward, HashPolicy, HashSource, HostRewrite,
    MaxStreamDuration, Mirror, PathRewrite, Redirect, RegexRewrite, Route, RouteMatch, RouteTable, TlsRequirement,
    VirtualHost, WeightedCluster, WeightedClusters,
};
pub use tls::{
    CertificateChecks, CertificatePin, CertificateRef, CipherSuite, CrlSource, Curve, DownstreamTls, SanKind, SanMatch,
    TlsParams, TrustRoots, UpstreamTls,
};

use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of a resource: cheap to clone, shared by every snapshot that mentions it.
pub type Name = Arc<str>;

/// `envoy.config.core.v3.Metadata.filter_metadata`: free-form values by namespace, as JSON.
pub type Metadata = BTreeMap<String, serde_json::Value>;

/// The namespace of an endpoint's [`Metadata`] that speaks of balancing.
pub const LB_METADATA: &str = "envoy.lb";

/// What `metadata` say of `key` where they speak of balancing.
pub(crate) fn lb_metadata<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a serde_json::Value> {
    metadata.get(LB_METADATA)?.get(key)
}

/// Whether `metadata` have `wanted` for `key` where they speak of balancing; with `list_as_any` a list has each of its items.
pub(crate) fn has_lb_metadata(metadata: &Metadata, key: &str, wanted: &serde_json::Value, list_as_any: bool) -> bool {
    match lb_metadata(metadata, key) {
        Some(serde_json::Value::Array(items)) if list_as_any && !wanted.is_array() => items.contains(wanted),
        found => found == Some(wanted),
    }
}

/// Something a resource asks for that this version does not do, and what it does instead.
///
/// Security fields never end up here: a resource with a security field that cannot be honoured is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The field, as its path inside the resource: `route.request_mirror_policies`.
    pub field: String,
    /// What happens to requests because of it.
    pub effect: UnsupportedEffect,
}

/// What happens to requests that meet an [`Unsupported`] field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsupportedEffect {
    /// The field would change the response, so those requests fail with a code that names it.
    FailsRequests,
    /// The field is a side effect (a mirror, a statistic): it is left out, with an event.
    LeftOut,
}
