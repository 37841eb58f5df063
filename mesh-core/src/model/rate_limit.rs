//! Local rate limits as configuration (`extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, `RouteAction.rate_limits`).

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::header::HeaderMutations;
use super::matcher::{Fraction, HeaderMatch, MatchName, QueryMatch};

/// `LocalRateLimit`, of a Listener's filter or of an override.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimit {
    /// `status`: 429 by default, and where it is less than 400.
    pub status: StatusCode,
    /// `token_bucket`: for requests that no descriptor is for, and by default for the others, too. None in a Listener that
    /// leaves the limits to its routes.
    pub bucket: Option<TokenBucket>,
    /// `filter_enabled`: how many requests are counted; none by default.
    pub enabled: Fraction,
    /// `filter_enforced`: how many of those over a limit are refused; none by default.
    pub enforced: Fraction,
    /// `request_headers_to_add_when_not_enforced` and `response_headers_to_add`: on requests that are over a limit and go
    /// on, and on the answers to those that do not.
    pub headers: HeaderMutations,
    /// `descriptors`: limits of their own for some requests.
    pub descriptors: Vec<LimitDescriptor>,
    /// `stage`: which rules of the route and the virtual host count.
    pub stage: u32,
    /// `vh_rate_limits`.
    pub host_rules: HostRules,
    /// `always_consume_default_token_bucket`: requests that a descriptor is for take from `bucket`, too; true by default.
    pub always_default: bool,
    /// `enable_x_ratelimit_headers`: responses say what is left (`x-ratelimit-*`).
    pub say_what_is_left: bool,
    /// `rate_limited_as_resource_exhausted`: RESOURCE_EXHAUSTED to gRPC clients, and not UNAVAILABLE.
    pub resource_exhausted: bool,
    /// `rate_limits`: the rules that describe requests, in place of those of the route and the virtual host.
    pub rules: Vec<LimitRule>,
    /// `max_dynamic_descriptors`: how many values of a descriptor with an open entry have a bucket at the same time; 20 by
    /// default.
    pub most_dynamic: u32,
}

/// `type.v3.TokenBucket`: full at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// What it holds; 0 lets nothing through.
    pub max: u32,
    /// What flows in during each `interval`, evenly.
    pub per_fill: u32,
    /// 50 ms at least.
    pub interval: Duration,
}

/// `LocalRateLimitDescriptor`: requests that are described so have a bucket of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitDescriptor {
    /// Key and value, in order; a value of None is any, each with its own bucket.
    pub entries: Vec<(String, Option<String>)>,
    /// The bucket.
    pub bucket: TokenBucket,
    /// `shadow_mode`: counted, and never refused.
    pub shadow: bool,
}

/// `vh_rate_limits`: when the virtual host's rules count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostRules {
    /// Where the route has none.
    #[default]
    Override,
    /// Beside the route's.
    Include,
    /// Never.
    Ignore,
}

/// `config.route.v3.RateLimit`: how a request is described. All actions must have something to say.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitRule {
    /// `stage`.
    pub stage: u32,
    /// What the descriptor is made of, in order.
    pub actions: Vec<LimitAction>,
}

/// `RateLimit.Action`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LimitAction {
    /// `destination_cluster`: the cluster that the request goes to.
    DestinationCluster,
    /// `request_headers`: a header's value.
    Header {
        /// The header.
        name: MatchName,
        /// The entry's key.
        key: String,
        /// Go on without the entry where the header is absent.
        skip_if_absent: bool,
    },
    /// `query_parameters`: a query parameter's value.
    Query {
        /// The parameter.
        name: String,
        /// The entry's key.
        key: String,
        /// Go on without the entry where the parameter is absent.
        skip_if_absent: bool,
    },
    /// `remote_address`: the client's address.
    RemoteAddress,
    /// `masked_remote_address`: its network.
    MaskedRemoteAddress {
        /// Bits of an IPv4 address.
        v4: u8,
        /// Bits of an IPv6 address.
        v6: u8,
    },
    /// `generic_key`: a value of the configuration, which may be a format: `%DOWNSTREAM_PEER_URI_SAN%` is who asks.
    Generic {
        /// The entry's key.
        key: String,
        /// The format.
        value: HeaderValue,
        /// `default_value`: where the format makes nothing.
        default: String,
    },
    /// `header_value_match`: a fixed value for requests whose headers match.
    HeaderMatch {
        /// The entry's key.
        key: String,
        /// Its value.
        value: String,
        /// Whether they must match, or must not.
        expect: bool,
        /// The headers; all must match.
        headers: Vec<HeaderMatch>,
    },
    /// `query_parameter_value_match`: the same of query parameters.
    QueryMatch {
        /// The entry's key.
        key: String,
        /// Its value.
        value: String,
        /// Whether they must match, or must not.
        expect: bool,
        /// The parameters; all must match.
        parameters: Vec<QueryMatch>,
    },
}
