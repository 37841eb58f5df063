//! Where a redirect points to (Envoy's `RedirectAction`).

use super::facts::RequestFacts;
use super::rewrite::rewrite_bytes;
use crate::model::{PathRewrite, Redirect, RouteMatch};

/// The `location` of the redirect, as bytes: a path may hold any. `matches` is the match of the same route.
pub fn location(redirect: &Redirect, matches: &RouteMatch, facts: &RequestFacts<'_>) -> Vec<u8> {
    let scheme = redirect.scheme.as_deref().unwrap_or(facts.scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| kept_host(redirect, scheme, facts));
    let mut location = format!("{scheme}://{host}").into_bytes();
    if let Some(port) = redirect.port {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend(path(redirect, matches, facts));
    location
}

/// The request's authority. Its port goes if the redirect names one, or if it is the default of the scheme that the
/// redirect replaces: `http://a:80` becomes `https://a`.
fn kept_host<'a>(redirect: &Redirect, scheme: &str, facts: &RequestFacts<'a>) -> &'a str {
    let authority = facts.authority;
    let bare = super::without_port(authority);
    let port = &authority[bare.len()..];
    let was_default = matches!((facts.scheme, port), ("http", ":80") | ("https", ":443"));
    if redirect.port.is_some() || (scheme != facts.scheme && was_default) { bare } else { authority }
}

/// The path and query, with a slash before it: without one it would be a part of the host. A query in a `path_redirect` replaces
/// the request's, and is never stripped. A rewrite that leaves nothing does nothing.
fn path(redirect: &Redirect, matches: &RouteMatch, facts: &RequestFacts<'_>) -> Vec<u8> {
    let mut path = match &redirect.path {
        Some(PathRewrite::Full(whole)) if whole.contains('?') => return rooted(whole.clone().into_bytes()),
        Some(rewrite) => rewrite_bytes(rewrite, matches, facts.path),
        None => None,
    }
    .unwrap_or_else(|| facts.path.as_bytes().to_vec());
    if redirect.strip_query {
        path.truncate(path.iter().position(|byte| *byte == b'?').unwrap_or(path.len()));
    }
    rooted(path)
}

fn rooted(mut path: Vec<u8>) -> Vec<u8> {
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
    path
}
