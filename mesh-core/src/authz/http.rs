//! Questions that are HTTP requests, and answers that are HTTP responses (`http_service`).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, LOCATION, TE, TRAILER, UPGRADE, WWW_AUTHENTICATE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use serde_json::{Map, Value};

use super::{Amendments, Answer, CheckFacts, Denial, HeaderChange, OURS, PARTIAL_BODY, is_told, joined};
use crate::model::{AuthzPath, ExtAuthz, HttpAuthz, StringMatch};
use crate::route::format::{FormatFacts, expand};

/// The names of headers that leave the request, with commas between, in an answer that allows.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
/// What belongs to one message on one connection, and is no part of what a server says.
const HOP: [HeaderName; 4] = [CONNECTION, TE, TRAILER, UPGRADE];
/// The same, by their names.
const OLD_HOP: [&str; 3] = ["keep-alive", "proxy-connection", "expect"];

/// The question about a request: one like it, without its body unless the server is to see that.
///
/// # Errors
///
/// There is no such request: nobody can be asked.
pub fn question(
    config: &ExtAuthz,
    http: &HttpAuthz,
    facts: &CheckFacts<'_>,
    format: &FormatFacts<'_>,
) -> Result<Request<Bytes>, String> {
    if let Some(name) = [":method", ":path", ":authority"].iter().find(|name| !is_told(config, name)) {
        return Err(format!("the server may not know of `{name}`"));
    }
    let body = facts.body.map(|body| body.bytes.clone()).unwrap_or_default();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    for name in facts.request.headers.keys().filter(|name| is_told(config, name.as_str()) && is_copied(name)) {
        headers.insert(name, value(joined(facts.request.headers, name))?);
    }
    if let Some(body) = facts.body {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if body.partial { "true" } else { "false" }));
    }
    for (name, text) in &http.headers_to_add {
        if let Some(text) = expand(text, facts.request.headers, format) {
            headers.insert(name, text);
        }
    }
    let mut request = Request::new(body);
    *request.method_mut() = facts.request.method.clone();
    *request.uri_mut() = target(&http.path, facts)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn value(text: String) -> Result<HeaderValue, String> {
    HeaderValue::try_from(text).map_err(|_| "a header of the request is none".to_owned())
}

/// Whole where the request names a host; else the client's own host goes with it.
fn target(path: &AuthzPath, facts: &CheckFacts<'_>) -> Result<Uri, String> {
    let path = match path {
        AuthzPath::Same => facts.request.path.to_owned(),
        AuthzPath::Prefix(prefix) => format!("{prefix}{}", facts.request.path),
        AuthzPath::Override(path) => path.clone(),
    };
    let none = |error: http::Error| format!("the server cannot be asked for this path and host: {error}");
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|error| none(error.into()))?);
    if !facts.request.authority.is_empty() {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::try_from(facts.request.authority).map_err(|error| none(error.into()))?);
    }
    Uri::from_parts(parts).map_err(|error| none(error.into()))
}

/// What a response says. A 200 allows, and only that; what is from 500 to 599, or not final, is no answer.
///
/// # Errors
///
/// There is none: why.
pub fn answer(http: &HttpAuthz, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Result<Answer, String> {
    if status.is_server_error() || status.is_informational() {
        return Err(format!("the answer is {status}"));
    }
    let said: Vec<(&HeaderName, &HeaderValue)> =
        headers.iter().filter(|(name, _)| is_copied(name) && **name != TO_REMOVE).collect();
    let metadata = found(&said, &http.metadata);
    if status != StatusCode::OK {
        let headers = said.iter().filter(|(name, _)| is_for_client(http, name));
        let headers = headers.map(|(name, value)| HeaderChange::Append((*name).clone(), (*value).clone()));
        return Ok(Answer::Denied(Denial { status, headers: headers.collect(), body }));
    }
    let matching = |list: &[StringMatch], change: fn(HeaderName, HeaderValue) -> HeaderChange| {
        let headers = said.iter().filter(|(name, _)| is_any(list, name));
        headers.map(|(name, value)| change((*name).clone(), (*value).clone())).collect::<Vec<_>>()
    };
    let mut request = matching(&http.upstream, HeaderChange::Set);
    request.extend(matching(&http.upstream_append, HeaderChange::Append));
    // The last word, as in Envoy: what is to go is not set again.
    request.extend(removed(headers));
    Ok(Answer::Allowed(Amendments {
        request,
        response: matching(&http.client_on_success, HeaderChange::Append),
        metadata,
        ..Amendments::default()
    }))
}

/// Names that are none, or that may not go, are left alone, as in Envoy.
fn removed(headers: &HeaderMap) -> impl Iterator<Item = HeaderChange> {
    let lists = headers.get_all(TO_REMOVE).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    lists
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !OURS.contains(&name.as_str()))
        .map(HeaderChange::Remove)
}

/// The last value of a name counts, as in Envoy.
fn found(said: &[(&HeaderName, &HeaderValue)], wanted: &[StringMatch]) -> Option<Value> {
    let found = said.iter().filter(|(name, _)| is_any(wanted, name));
    let found: Map<String, Value> =
        found.map(|(name, value)| (name.as_str().to_owned(), super::utf8(value.as_bytes()).into())).collect();
    (!found.is_empty()).then(|| found.into())
}

fn is_for_client(http: &HttpAuthz, name: &HeaderName) -> bool {
    let Some(list) = &http.client else { return true };
    *name == LOCATION || *name == WWW_AUTHENTICATE || is_any(list, name)
}

fn is_any(list: &[StringMatch], name: &HeaderName) -> bool {
    list.iter().any(|pattern| pattern.is_match(name.as_str().as_bytes()))
}

/// Whether a header may stand in another message.
fn is_copied(name: &HeaderName) -> bool {
    !OURS.contains(&name.as_str()) && !HOP.contains(name) && !OLD_HOP.contains(&name.as_str())
}
