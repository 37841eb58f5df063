//! Routes: which request goes where, and what happens to it on the way (`config.route.v3`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::MetadataMatch;
use super::filter::FilterOverrides;
use super::header::HeaderMutations;
use super::internal_redirect::InternalRedirect;
use super::matcher::{ByteRegex, CookieMatch, Fraction, HeaderMatch, PathMatch, QueryMatch, StringMatch, UriTemplate};
use super::rate_limit::LimitRule;
use super::retry::{HedgePolicy, RetryPolicy};
use super::{Metadata, Name, Unsupported};

/// `config.route.v3.RouteConfiguration`.
#[derive(Debug, Clone)]
pub struct RouteTable {
    /// The resource's name; may be empty when the table is part of a Listener.
    pub name: Name,
    /// The virtual hosts, in order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Headers added and removed for every request.
    pub headers: HeaderMutations,
    /// `internal_only_headers`: removed from requests that come from outside.
    pub internal_only_headers: Vec<HeaderName>,
    /// `most_specific_header_mutations_wins`.
    pub most_specific_mutations_win: bool,
    /// `max_direct_response_body_size_bytes`; 4,096 by default.
    pub max_direct_response_body: u32,
    /// `ignore_port_in_host_matching`.
    pub ignore_port_in_host: bool,
    /// `vhost_header`: the header that chooses the virtual host in the authority's place. gRPC knows no such thing and goes
    /// by the authority.
    pub vhost_header: Option<HeaderName>,
    /// Mirrors for routes that have none of their own.
    pub mirrors: Vec<Mirror>,
    /// Overrides of HTTP filters for every route.
    pub overrides: FilterOverrides,
    /// What the table asks for and does not get.
    pub unsupported: Vec<Unsupported>,
}

impl RouteTable {
    /// Every cluster that a request of virtual host `host` may be sent to by name, mirrors included, each once.
    ///
    /// Where a header names the cluster it is known only when a request arrives, and are not listed.
    pub fn clusters_of(&self, host: &VirtualHost) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        mirrored(&self.mirrors, &mut names);
        mirrored(&host.mirrors, &mut names);
        for route in &host.routes {
            if let Action::Forward(forward) = &route.action {
                mirrored(&forward.mirrors, &mut names);
                match &forward.cluster {
                    ClusterChoice::Cluster(name) => names.push(name.clone()),
                    ClusterChoice::Weighted(weighted) => {
                        let named = weighted.clusters.iter().filter(|cluster| cluster.header.is_none());
                        names.extend(named.map(|cluster| cluster.name.clone()));
                    }
                    ClusterChoice::Header(_) => {}
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The clusters that mirrors name.
fn mirrored(mirrors: &[Mirror], names: &mut Vec<Name>) {
    names.extend(mirrors.iter().filter_map(|mirror| match &mirror.cluster {
        ClusterChoice::Cluster(name) => Some(name.clone()),
        _ => None,
    }));
}

/// `config.route.v3.VirtualHost`.
#[derive(Debug, Clone)]
pub struct VirtualHost {
    /// Its name, for logs.
    pub name: Name,
    /// The authorities it serves; never empty.
    pub domains: Vec<Domain>,
    /// Its routes: the first that matches wins.
    pub routes: Vec<Arc<Route>>,
    /// Headers added and removed for its requests.
    pub headers: HeaderMutations,
    /// The retry policy of routes that have none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// The hedge policy of routes that have none.
    pub hedge: Option<HedgePolicy>,
    /// Overrides of HTTP filters.
    pub overrides: FilterOverrides,
    /// Mirrors of routes that have none.
    pub mirrors: Vec<Mirror>,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` on requests.
    pub request_attempt_count: bool,
    /// `include_attempt_count_in_response`: the same on responses.
    pub response_attempt_count: bool,
    /// `cors` of the virtual host (deprecated spelling).
    pub cors: Option<Arc<Cors>>,
    /// `require_tls`.
    pub require_tls: TlsRequirement,
    /// `rate_limits`: how its requests are described for local rate limits.
    pub limits: Vec<LimitRule>,
    /// What it asks for and does not get.
    pub unsupported: Vec<Unsupported>,
}

/// `VirtualHost.require_tls`: which requests that did not come in `https` are sent to ask again so. gRPC knows no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsRequirement {
    /// None.
    #[default]
    None,
    /// Those from outside: all but internal callers, whom the Listener's `internal_address_config` names.
    ExternalOnly,
    /// All.
    All,
}

/// How many bytes of a request's body may be kept for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// `request_body_buffer_limit`: so many, whatever else is said.
    Exactly(u64),
    /// `per_request_buffer_limit_bytes`: so many, and no more than the Listener's `per_connection_buffer_limit_bytes`.
    AtMost(u32),
}

impl BodyLimit {
    /// Envoy's `per_connection_buffer_limit_bytes` where a Listener has none.
    const DEFAULT_CONNECTION: u32 = 1024 * 1024;

    /// The bytes to keep of a request whose route says `route` and whose Listener says `listener`; `default` where neither
    /// has a word.
    pub fn bytes(route: Option<Self>, listener: Option<u32>, default: usize) -> usize {
        let bytes = match (route, listener) {
            (Some(Self::Exactly(bytes)), _) => bytes,
            (Some(Self::AtMost(bytes)), listener) => bytes.min(listener.unwrap_or(Self::DEFAULT_CONNECTION)).into(),
            (None, Some(bytes)) => bytes.into(),
            (None, None) => return default,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// One pattern of `VirtualHost.domains`, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// `www.foo.com`.
    Exact(String),
    /// `*.foo.com`, without the star. The star stands for one character at least.
    Suffix(String),
    /// `foo.*`, without the star. The star stands for one character at least.
    Prefix(String),
    /// `*`.
    Any,
}

/// `config.route.v3.Route`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name; may be empty.
    pub name: Name,
    /// Which requests it takes.
    pub matches: RouteMatch,
    /// What happens to them.
    pub action: Action,
    /// Headers added and removed.
    pub headers: HeaderMutations,
    /// Overrides of HTTP filters.
    pub overrides: FilterOverrides,
    /// `metadata.filter_metadata`.
    pub metadata: Metadata,
    /// `decorator.operation`: the span's name.
    pub operation: Option<String>,
    /// How much of a request is kept for another attempt: its own word, else its virtual host's.
    pub body_limit: Option<BodyLimit>,
    /// What it asks for and does not get.
    pub unsupported: Vec<Unsupported>,
}

/// `config.route.v3.RouteMatch`: all parts must match.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Whether exact and prefix matches see case; true by default.
    pub case_sensitive: bool,
    /// The headers.
    pub headers: Vec<HeaderMatch>,
    /// The query parameters.
    pub query: Vec<QueryMatch>,
    /// `runtime_fraction.default_value`.
    pub fraction: Option<Fraction>,
    /// `grpc`: gRPC requests only.
    pub grpc_only: bool,
    /// `tls_context.presented`.
    pub tls_presented: Option<bool>,
    /// `tls_context.validated`.
    pub tls_validated: Option<bool>,
    /// `dynamic_metadata`: what is known of the request beside its head.
    pub metadata: Vec<MetadataMatch>,
    /// The cookies.
    pub cookies: Vec<CookieMatch>,
    /// `filter_state` matchers, which nothing sets: such a route never matches.
    pub never: bool,
}

impl Default for RouteMatch {
    /// Matches every request.
    fn default() -> Self {
        Self {
            path: PathMatch::Prefix(String::new()),
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
            grpc_only: false,
            tls_presented: None,
            tls_validated: None,
            metadata: Vec::new(),
            cookies: Vec::new(),
            never: false,
        }
    }
}

/// The action of a [`Route`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Action {
    /// Send the request to a cluster.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with a fixed response.
    Direct(DirectResponse),
    /// Answer with a redirect to the same in `https`: what [`VirtualHost::require_tls`] makes of a request.
    RequireTls,
    /// `non_forwarding_action`: on a server, hand the request to the application.
    NonForwarding,
    /// Something we do not know: requests that match fail with its name.
    Unknown(String),
}

/// `config.route.v3.RouteAction`.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Where to.
    pub cluster: ClusterChoice,
    /// The status when the cluster does not exist: 503 by default.
    pub cluster_not_found: StatusCode,
    /// `timeout` for HTTP: None is Envoy's 15 s, zero is no timeout. gRPC ignores it (gRFC A31).
    pub timeout: Option<Duration>,
    /// `idle_timeout`: the longest silence of a stream.
    pub idle_timeout: Option<Duration>,
    /// `max_stream_duration`.
    pub max_stream_duration: MaxStreamDuration,
    /// The retry policy; the virtual host's where there is none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// The hedge policy; the virtual host's where there is none.
    pub hedge: Option<HedgePolicy>,
    /// `internal_redirect_policy`: the redirects that are followed here; None: they are the caller's. gRPC knows no redirects.
    pub internal_redirect: Option<Box<InternalRedirect>>,
    /// What becomes of the path.
    pub path_rewrite: Option<PathRewrite>,
    /// What becomes of the authority.
    pub host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`.
    pub append_x_forwarded_host: bool,
    /// How the request's hash is computed, in order.
    pub hash: Vec<HashPolicy>,
    /// `metadata_match`, the `envoy.lb` namespace: which subset of a cluster's endpoints takes its requests; None: it asks for none.
    pub metadata_match: Option<Arc<Metadata>>,
    /// Copies of the request to send elsewhere.
    pub mirrors: Vec<Mirror>,
    /// `priority: HIGH`.
    pub high_priority: bool,
    /// `cors` of the route (deprecated spelling), with what it does not say taken from the virtual host's.
    pub cors: Option<Arc<Cors>>,
    /// `rate_limits`: how its requests are described for local rate limits.
    pub limits: Vec<LimitRule>,
    /// `include_vh_rate_limits`: the virtual host's rules count beside its own.
    pub include_host_limits: bool,
}

impl Forward {
    /// Everything to `cluster`, as it is and without a limit of time.
    pub fn to(cluster: Name) -> Self {
        Self {
            cluster: ClusterChoice::Cluster(cluster),
            cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
            timeout: None,
            idle_timeout: None,
            max_stream_duration: MaxStreamDuration::default(),
            retry: None,
            hedge: None,
            internal_redirect: None,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            hash: Vec::new(),
            metadata_match: None,
            mirrors: Vec::new(),
            high_priority: false,
            cors: None,
            limits: Vec::new(),
            include_host_limits: false,
        }
    }
}

/// `RouteAction.cluster_specifier`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClusterChoice {
    /// One cluster.
    Cluster(Name),
    /// The cluster that a request header names.
    Header(HeaderName),
    /// One of several, by weight.
    Weighted(Arc<WeightedClusters>),
}

/// `config.route.v3.WeightedCluster`.
#[derive(Debug, Clone)]
pub struct WeightedClusters {
    /// The clusters whose weight is not zero, in order; never empty.
    pub clusters: Vec<WeightedCluster>,
    /// The sum of the weights; fits 32 bits.
    pub total: u32,
    /// `header_name`: a request header whose number replaces the dice.
    pub random_header: Option<HeaderName>,
    /// `use_hash_policy`: the request's hash replaces the dice.
    pub use_hash: bool,
}

/// One cluster of [`WeightedClusters`].
#[derive(Debug, Clone)]
pub struct WeightedCluster {
    /// Its name; empty where a header has it.
    pub name: Name,
    /// `cluster_header`: the header of the request that has its name.
    pub header: Option<HeaderName>,
    /// Its weight.
    pub weight: u32,
    /// Headers added and removed for its requests.
    pub headers: HeaderMutations,
    /// Overrides of HTTP filters for its requests.
    pub overrides: FilterOverrides,
    /// `metadata_match`, with what it does not say taken from the route's.
    pub metadata_match: Option<Arc<Metadata>>,
    /// `host_rewrite_literal`.
    pub host_rewrite: Option<String>,
}

/// `RouteAction.MaxStreamDuration` (gRFC A31).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// `max_stream_duration`; zero is no limit.
    pub max: Option<Duration>,
    /// `grpc_timeout_header_max`; zero is no limit. Present, it hides `max`.
    pub grpc_header_max: Option<Duration>,
    /// `grpc_timeout_header_offset`: taken off what the client asked for.
    pub grpc_header_offset: Option<Duration>,
}

/// What becomes of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathRewrite {
    /// `prefix_rewrite`: the matched prefix (or whole path) becomes this.
    Prefix(String),
    /// `regex_rewrite`.
    Regex(RegexRewrite),
    /// `path_rewrite_policy` with a URI template: the template of the match, and of the result.
    Template {
        /// What takes the path apart.
        from: UriTemplate,
        /// What puts it together: `/{version}/v2`.
        to: String,
    },
    /// `path_rewrite` (redirects): the whole path, query excluded.
    Full(String),
    /// `path_rewrite` of a route, with Envoy's `%COMMAND%`s: the same; what is not there is `-`.
    Format(HeaderValue),
}

/// `type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRewrite {
    /// What to find, everywhere.
    pub pattern: ByteRegex,
    /// What to put in its place; `\1` is the first group, `\0` the whole.
    pub substitution: String,
}

/// What becomes of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostRewrite {
    /// `host_rewrite_literal`.
    Literal(String),
    /// `auto_host_rewrite`: the picked endpoint's hostname (gRFC A81).
    Auto,
    /// `host_rewrite_header`: a request header's value.
    Header(HeaderName),
    /// `host_rewrite_path_regex`: computed from the path.
    PathRegex(RegexRewrite),
    /// `host_rewrite`: a format of Envoy's `%COMMAND%`s; what is not there is `-`.
    Format(HeaderValue),
}

/// `config.route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<String>,
    /// `host_redirect`.
    pub host: Option<String>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// `path_redirect` (may carry a query), `prefix_rewrite` or `regex_rewrite`.
    pub path: Option<PathRewrite>,
    /// The response's status: 301 by default.
    pub status: StatusCode,
    /// Drop the query string.
    pub strip_query: bool,
}

/// `config.route.v3.DirectResponseAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status.
    pub status: StatusCode,
    /// The body; may be empty.
    pub body: Bytes,
}

/// `RouteAction.HashPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Stop once there is a hash.
    pub terminal: bool,
}

/// What a [`HashPolicy`] hashes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HashSource {
    /// A header, perhaps rewritten first.
    Header {
        /// Its name.
        name: HeaderName,
        /// Applied to the value before hashing.
        rewrite: Option<RegexRewrite>,
    },
    /// A cookie, made up when absent if it has a `ttl`.
    Cookie {
        /// Its name.
        name: String,
        /// How long a made-up cookie lives.
        ttl: Option<Duration>,
        /// Its path.
        path: String,
    },
    /// A query parameter.
    Query(String),
    /// `connection_properties.source_ip`.
    SourceIp,
    /// `filter_state` with key `io.grpc.channel_id`: one random number per channel (gRFC A42).
    ChannelId,
    /// Anything else: never yields a hash.
    Nothing,
}

/// `RouteAction.RequestMirrorPolicy`.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where the copy goes: a cluster's name.
    pub cluster: ClusterChoice,
    /// How many requests are copied.
    pub fraction: Fraction,
    /// Do not append `-shadow` to the authority.
    pub keep_host: bool,
}

/// `config.route.v3.CorsPolicy` and `extensions.filters.http.cors.v3.CorsPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// `allow_origin_string_match`.
    pub allow_origins: Vec<StringMatch>,
    /// `allow_methods`.
    pub allow_methods: String,
    /// `allow_headers`.
    pub allow_headers: String,
    /// `expose_headers`.
    pub expose_headers: String,
    /// `max_age`.
    pub max_age: String,
    /// `allow_credentials`; false by default.
    pub allow_credentials: Option<bool>,
    /// `filter_enabled`.
    pub enabled: Fraction,
    /// `shadow_enabled`.
    pub shadow: Fraction,
    /// `allow_private_network_access`; false by default.
    pub allow_private_network: Option<bool>,
    /// `forward_not_matching_preflights`; true by default.
    pub forward_not_matching_preflights: Option<bool>,
}
