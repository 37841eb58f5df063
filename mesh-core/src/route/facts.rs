//! What a route may ask of a request, borrowed from it.

use std::net::IpAddr;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use crate::model::Metadata;

/// A request, as far as routing looks at it.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The scheme: `http` or `https`.
    pub scheme: &'a str,
    /// The authority, or `Host`; may be empty.
    pub authority: &'a str,
    /// Path and query: `/a?b=c`. Empty for a plain CONNECT.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Whether the request follows gRPC's rules where they differ from Envoy's; see [`is_grpc`].
    pub is_grpc: bool,
    /// What is known of the TLS connection that the request came in on; None is plaintext, or no connection at all.
    pub tls: Option<TlsFacts>,
    /// The address the request came from.
    pub source_ip: Option<IpAddr>,
    /// Whether the caller is internal: who the Listener's `internal_address_config` says is.
    pub is_internal: bool,
    /// A random number of the channel or client, the same for its whole life (gRFC A42's `io.grpc.channel_id`).
    pub channel_id: u64,
    /// What is known of the request beside its head, by whoever found it out: Envoy's dynamic metadata. None is as good as
    /// empty.
    pub metadata: Option<&'a Metadata>,
}

/// A TLS connection, as far as routes look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFacts {
    /// The peer presented a certificate.
    pub presented: bool,
    /// The peer's certificate was validated.
    pub validated: bool,
}

impl<'a> RequestFacts<'a> {
    /// The path without query string and fragment.
    pub fn path_only(&self) -> &'a str {
        // Byte by byte: both are ASCII, and this is asked several times of each request.
        let end = self.path.bytes().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(self.path.len());
        &self.path[..end]
    }

    /// The query string, without its question mark.
    pub fn query(&self) -> &'a str {
        let whole = self.path.split_once('#').map_or(self.path, |(before, _)| before);
        whole.split_once('?').map_or("", |(_, query)| query)
    }

    /// The value of the first query parameter called `name`; empty if it has no `=`. Nothing is percent-decoded, as in
    /// Envoy: `%71` is not `q`.
    pub fn query_parameter(&self, name: &str) -> Option<&'a str> {
        let parameters = self.query().split('&').filter(|parameter| !parameter.is_empty());
        let mut pairs = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Whether `content-type` says gRPC: `application/grpc`, alone or with a `+format`. gRPC-Web is not gRPC, and case counts
/// (Envoy).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    match value.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+')),
        None => false,
    }
}
