//! Questions to authorization servers: what is asked about a request, and what an answer means, by gRPC
//! (`envoy.service.auth.v3.Authorization/Check`) and by HTTP. Who carries them is no business of this module.

pub mod http;
mod message;
#[cfg(test)]
mod tests;

pub use message::{answer, question};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version};
use bytes::Bytes;
use serde_json::Value;

use crate::identity::PeerIdentity;
use crate::model::{ExtAuthz, Metadata};
use crate::route::RequestFacts;

/// The path of the method.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Where what a server says beside its answer belongs in a request's dynamic metadata.
pub const METADATA_NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// The header by which a server is told whether the body it sees is only the beginning of one.
pub const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// Headers that the mesh answers for itself: a server that could change them could change whose request it is, or where it
/// ends.
const OURS: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// What is known of a request that a server is asked about.
#[derive(Debug, Clone, Copy)]
pub struct CheckFacts<'a> {
    /// The request.
    pub request: RequestFacts<'a>,
    /// The version of HTTP.
    pub version: Version,
    /// The other end of the connection.
    pub source: SocketAddr,
    /// This end.
    pub destination: SocketAddr,
    /// Who the client has proven to be.
    pub peer: Option<&'a PeerIdentity>,
    /// Who we have proven to be: the URIs of the certificate that the client was shown.
    pub local: &'a [String],
    /// The server name that the client asked for.
    pub server_name: Option<&'a str>,
    /// When the request came, since 1970.
    pub time: Duration,
    /// What filters found out of the request.
    pub metadata: &'a Metadata,
    /// The metadata of its route.
    pub route_metadata: &'a Metadata,
    /// `context_extensions` of the route.
    pub context: &'a BTreeMap<String, String>,
    /// What the server sees of the body.
    pub body: Option<&'a CheckBody>,
}

/// What an authorization server sees of a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckBody {
    /// The beginning of it, or all; never nothing.
    pub bytes: Bytes,
    /// Whether there is, or may be, more.
    pub partial: bool,
    /// Whether a message has it as bytes, and not as text.
    pub raw: bool,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The request passes.
    Allowed(Amendments),
    /// It does not.
    Denied(Denial),
}

/// What changes of a request that passes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amendments {
    /// Headers of the request.
    pub request: Vec<HeaderChange>,
    /// Headers of the response.
    pub response: Vec<HeaderChange>,
    /// Query parameters that are set, in order.
    pub query_set: Vec<(String, String)>,
    /// Query parameters that are removed.
    pub query_remove: Vec<String>,
    /// For later filters.
    pub metadata: Option<Value>,
}

/// What the client of a request is told that does not pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Denial {
    /// The status: 403 by default.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: Vec<HeaderChange>,
    /// The body.
    pub body: Bytes,
}

/// A change of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// It goes, with all its values.
    Remove(HeaderName),
    /// It has this value alone.
    Set(HeaderName, HeaderValue),
    /// It has this value, too.
    Append(HeaderName, HeaderValue),
    /// It has this value if it is not there.
    AddIfAbsent(HeaderName, HeaderValue),
    /// It has this value alone if it is there.
    OverwriteIfExists(HeaderName, HeaderValue),
}

/// Whether the server may know of a header.
fn is_told(config: &ExtAuthz, name: &str) -> bool {
    let any = |list: &[crate::model::StringMatch]| list.iter().any(|pattern| pattern.is_match(name.as_bytes()));
    config.allowed_headers.as_deref().is_none_or(any) && !any(&config.disallowed_headers)
}

/// All values of a header in one: a server that sees only the first decides about another request (CVE-2021-32777).
/// Strings of messages are UTF-8, and a header's bytes need not be; what is none is a `!`, as in Envoy (CVE-2023-27488).
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().map(|value| utf8(value.as_bytes()));
    values.collect::<Vec<_>>().join(",")
}

fn utf8(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |text, chunk| text + chunk.valid() + &"!".repeat(chunk.invalid().len()))
}

/// Makes the changes, in order.
pub fn change(changes: &[HeaderChange], headers: &mut HeaderMap) {
    for change in changes {
        match change {
            HeaderChange::Remove(name) => drop(headers.remove(name)),
            HeaderChange::Set(name, value) => drop(headers.insert(name, value.clone())),
            HeaderChange::Append(name, value) => drop(headers.append(name, value.clone())),
            HeaderChange::AddIfAbsent(name, value) => drop(headers.entry(name).or_insert_with(|| value.clone())),
            HeaderChange::OverwriteIfExists(name, value) => {
                if headers.contains_key(name) {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
}

impl Amendments {
    /// Changes the query of `uri`. Nothing if it would be none.
    pub fn change_query(&self, uri: &mut Uri) {
        if self.query_set.is_empty() && self.query_remove.is_empty() {
            return;
        }
        let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_owned();
        let is_other = |parameter: &&str| {
            let name = name(parameter);
            !parameter.is_empty()
                && !self.query_remove.contains(&name)
                && self.query_set.iter().all(|(set, _)| *set != name)
        };
        let mut query: Vec<String> =
            uri.query().unwrap_or_default().split('&').filter(is_other).map(str::to_owned).collect();
        query.extend(self.query_set.iter().map(|(name, value)| format!("{name}={value}")));
        let separator = if query.is_empty() { "" } else { "?" };
        let target = format!("{}{separator}{}", uri.path(), query.join("&"));
        let mut parts = uri.clone().into_parts();
        if let Ok(target) = PathAndQuery::try_from(target) {
            parts.path_and_query = Some(target);
            if let Ok(changed) = Uri::from_parts(parts) {
                *uri = changed;
            }
        }
    }
}
