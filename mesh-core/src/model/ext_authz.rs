//! External authorization as configuration (`extensions.filters.http.ext_authz.v3`).

use std::collections::BTreeMap;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Fraction, Name, StringMatch};

/// `ExtAuthz` with a `grpc_service`: who is asked, what, and what follows from no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtAuthz {
    /// The cluster of the authorization server.
    pub cluster: Name,
    /// The authority it is asked under: the cluster's name by default.
    pub authority: Authority,
    /// `initial_metadata` of the question.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
    /// How long an answer may take: 200 ms by default, Envoy's.
    pub timeout: Duration,
    /// `failure_mode_allow`: without an answer requests pass. They do not by default.
    pub failure_mode_allow: bool,
    /// `failure_mode_allow_header_add`: such requests say so.
    pub failure_mode_allow_header_add: bool,
    /// The status where there is no answer: 403 by default.
    pub status_on_error: StatusCode,
    /// The headers that the server is told of; None: all.
    pub allowed_headers: Option<Vec<StringMatch>>,
    /// The headers that it is not told of, whatever else is said.
    pub disallowed_headers: Vec<StringMatch>,
    /// `filter_enabled`: the share of requests that are asked about; all by default.
    pub enabled: Fraction,
    /// `deny_at_disable`: the others are denied. They pass by default.
    pub deny_at_disable: bool,
    /// `include_peer_certificate`: the server sees the client's certificate.
    pub include_peer_certificate: bool,
    /// `include_tls_session`: the server sees the server name that the client asked for.
    pub include_tls_session: bool,
    /// `metadata_context_namespaces`: the dynamic metadata that the server sees.
    pub metadata_namespaces: Vec<String>,
    /// `enable_dynamic_metadata_ingestion`: what the server says beside its answer is for later filters; so by default.
    pub takes_metadata: bool,
    /// `max_denied_response_body_bytes`; none by default.
    pub most_denied_body: Option<usize>,
}

/// `ExtAuthzPerRoute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtAuthzOverride {
    /// Nobody is asked.
    Disabled,
    /// The server is also told this (`context_extensions`).
    Context(BTreeMap<String, String>),
}
