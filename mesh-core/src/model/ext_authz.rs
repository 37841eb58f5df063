//! External authorization as configuration (`extensions.filters.http.ext_authz.v3`).

use std::collections::BTreeMap;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Fraction, MetadataMatch, Name, StringMatch};

/// `ExtAuthz`: who is asked, what, and what follows from no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtAuthz {
    /// Whom requests are asked about, unless their route has another one.
    pub service: AuthzService,
    /// `with_request_body`: the server sees the body, too; it does not by default.
    pub body: Option<AuthzBody>,
    /// `failure_mode_allow`: without an answer requests pass. They do not by default.
    pub failure_mode_allow: bool,
    /// `failure_mode_allow_header_add`: such requests say so.
    pub failure_mode_allow_header_add: bool,
    /// The status where there is no answer: 403 by default.
    pub status_on_error: StatusCode,
    /// The headers that the server is told of; None: all. With `http_service` also by the field of this name in it, and then
    /// `authorization`, the method, the path and the host are among them, and nothing else is by default.
    pub allowed_headers: Option<Vec<StringMatch>>,
    /// The headers that it is not told of, whatever else is said.
    pub disallowed_headers: Vec<StringMatch>,
    /// `filter_enabled`: the share of requests that are asked about; all by default.
    pub enabled: Fraction,
    /// `filter_enabled_metadata`: what those must have been found to be; nothing by default.
    pub enabled_metadata: Option<MetadataMatch>,
    /// `deny_at_disable`: the others are denied. They pass by default.
    pub deny_at_disable: bool,
    /// `include_peer_certificate`: the server sees the client's certificate (gRPC).
    pub include_peer_certificate: bool,
    /// `include_tls_session`: the server sees the server name that the client asked for (gRPC).
    pub include_tls_session: bool,
    /// `encode_raw_headers`: headers are told one by one, and as the bytes that they are (gRPC).
    pub raw_headers: bool,
    /// `metadata_context_namespaces`: the dynamic metadata that the server sees (gRPC).
    pub metadata_namespaces: Vec<String>,
    /// `route_metadata_context_namespaces`: the metadata of the route that it sees (gRPC).
    pub route_metadata_namespaces: Vec<String>,
    /// `enable_dynamic_metadata_ingestion`: what the server says beside its answer is for later filters; so by default.
    pub takes_metadata: bool,
    /// `max_denied_response_body_bytes`; none by default.
    pub most_denied_body: Option<usize>,
}

/// A server that is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthzService {
    /// Its cluster.
    pub cluster: Name,
    /// The authority that the cluster is asked under: its name by default. Over HTTP, that of requests without a host.
    pub authority: Authority,
    /// How long an answer may take: 200 ms by default over gRPC, Envoy's; what is said over HTTP.
    pub timeout: Duration,
    /// How it is asked.
    pub transport: AuthzTransport,
}

/// How an authorization server is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthzTransport {
    /// `grpc_service`: by `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// `initial_metadata` of the question.
        metadata: Vec<(HeaderName, HeaderValue)>,
    },
    /// `http_service`: by a request like the one in question.
    Http(Box<HttpAuthz>),
}

/// `HttpService`: how a request becomes a question, and what of the answer goes where.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpAuthz {
    /// What becomes of the path.
    pub path: AuthzPath,
    /// `headers_to_add`: formats, each in place of the request's header of that name.
    pub headers_to_add: Vec<(HeaderName, HeaderValue)>,
    /// `allowed_upstream_headers`: of an answer that allows, what replaces headers of the request; nothing by default.
    pub upstream: Vec<StringMatch>,
    /// `allowed_upstream_headers_to_append`: what is added to them; nothing by default.
    pub upstream_append: Vec<StringMatch>,
    /// `allowed_client_headers`: of one that denies, what the client sees beside `location`, `www-authenticate` and the
    /// status. None: all.
    pub client: Option<Vec<StringMatch>>,
    /// `allowed_client_headers_on_success`: of one that allows, what is added to the response; nothing by default.
    pub client_on_success: Vec<StringMatch>,
    /// `dynamic_metadata_from_headers`: of either, what later filters see; nothing by default.
    pub metadata: Vec<StringMatch>,
}

/// The path that an authorization server is asked under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AuthzPath {
    /// The request's.
    #[default]
    Same,
    /// `path_prefix`: with this in front.
    Prefix(String),
    /// `path_override`: this one.
    Override(String),
}

/// `BufferSettings`: how much of a body an authorization server sees. So much is held in memory for each request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthzBody {
    /// `max_request_bytes`; never 0.
    pub most: usize,
    /// `allow_partial_message`: of a longer body it sees the beginning. By default a longer body is 413.
    pub partial: bool,
    /// `pack_as_bytes`: over gRPC, as the bytes that it is. By default as text, in which what is no UTF-8 is a `!`.
    pub bytes: bool,
}

/// `ExtAuthzPerRoute`.
#[derive(Debug, Clone, PartialEq)]
pub enum ExtAuthzOverride {
    /// Nobody is asked.
    Disabled,
    /// `check_settings`.
    Settings(Box<AuthzSettings>),
}

/// `CheckSettings`. The context of a route is its virtual host's with its own; all else is the most specific alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuthzSettings {
    /// `context_extensions`: what the server is told, too (gRPC).
    pub context: BTreeMap<String, String>,
    /// `with_request_body`, or Some(None) for `disable_request_body_buffering`. None: what the filter says.
    pub body: Option<Option<AuthzBody>>,
    /// Who is asked in place of the filter's server.
    pub service: Option<AuthzService>,
}
