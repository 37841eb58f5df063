//! Where tokens are in a request: headers, query parameters, cookies.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{AUTHORIZATION, COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri};

use crate::model::JwtProvider;
use crate::resource::percent;

const BEARER: &str = "Bearer ";
const ACCESS_TOKEN: &str = "access_token";

/// What of a request an authenticator reads and changes.
#[derive(Debug)]
pub struct JwtRequest<'a> {
    /// The headers.
    pub headers: &'a mut HeaderMap,
    /// The target: path and query.
    pub uri: &'a mut Uri,
}

/// The places of one provider, or of several.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By name and prefix.
    headers: BTreeMap<(String, String), (HeaderName, Issuers)>,
    params: BTreeMap<String, Issuers>,
    cookies: BTreeMap<String, Issuers>,
}

/// Whose tokens may be in a place: those of these issuers; an empty one is anybody.
#[derive(Debug, Default)]
pub(super) struct Issuers(BTreeSet<String>);

impl Issuers {
    pub(super) fn contains(&self, issuer: &str) -> bool {
        self.0.contains("") || self.0.contains(issuer)
    }
}

/// A token, and where it is.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) token: Vec<u8>,
    pub(super) issuers: &'a Issuers,
    place: Place<'a>,
}

#[derive(Debug)]
enum Place<'a> {
    Header(&'a HeaderName),
    Param(&'a str),
    /// Envoy leaves tokens in cookies.
    Cookie,
}

impl Places {
    pub(super) fn of<'a>(providers: impl IntoIterator<Item = &'a JwtProvider>) -> Self {
        let mut places = Self::default();
        providers.into_iter().for_each(|provider| places.add(provider));
        places
    }

    fn add(&mut self, provider: &JwtProvider) {
        let issuer = &provider.issuer;
        for header in &provider.from_headers {
            self.add_header(&header.name, &header.value_prefix, issuer);
        }
        for param in &provider.from_params {
            self.params.entry(param.clone()).or_default().0.insert(issuer.clone());
        }
        for cookie in &provider.from_cookies {
            self.cookies.entry(cookie.clone()).or_default().0.insert(issuer.clone());
        }
        if provider.from_headers.is_empty() && provider.from_params.is_empty() && provider.from_cookies.is_empty() {
            self.add_header(&AUTHORIZATION, BEARER, issuer);
            self.params.entry(ACCESS_TOKEN.to_owned()).or_default().0.insert(issuer.clone());
        }
    }

    fn add_header(&mut self, name: &HeaderName, prefix: &str, issuer: &str) {
        let key = (name.as_str().to_owned(), prefix.to_owned());
        let (_, issuers) = self.headers.entry(key).or_insert_with(|| (name.clone(), Issuers::default()));
        issuers.0.insert(issuer.to_owned());
    }

    /// Every token of a request, in the order in which Envoy looks at them: cookies, parameters, headers, each
    /// backwards. Of several in one place Envoy reads the first alone; whoever is behind us may read another.
    pub(super) fn find(&self, request: &JwtRequest<'_>) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for ((_, prefix), (name, issuers)) in &self.headers {
            for value in request.headers.get_all(name) {
                let Some(token) = after_prefix(value.as_bytes(), prefix) else { continue };
                found.push(Found { token: token.to_vec(), issuers, place: Place::Header(name) });
            }
        }
        for (param, issuers) in &self.params {
            for token in values_of(request.uri.query().unwrap_or_default(), param) {
                found.push(Found { token, issuers, place: Place::Param(param) });
            }
        }
        for (cookie, issuers) in &self.cookies {
            for token in cookies_of(request.headers, cookie) {
                found.push(Found { token: token.to_vec(), issuers, place: Place::Cookie });
            }
        }
        found.reverse();
        found
    }
}

impl Found<'_> {
    /// Takes the token out of the request.
    pub(super) fn remove(&self, request: &mut JwtRequest<'_>) {
        match self.place {
            Place::Header(name) => drop(request.headers.remove(name)),
            Place::Param(name) => remove_parameter(request.uri, name),
            Place::Cookie => {}
        }
    }
}

/// The token in a header: what follows the prefix, wherever it is, from the first character on that a token can have; all
/// of it if there is none. Without a prefix, the value.
fn after_prefix<'a>(value: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(value);
    }
    let at = value.windows(prefix.len()).position(|window| window == prefix.as_bytes())?;
    let rest = &value[at + prefix.len()..];
    let of_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    Some(rest.iter().position(of_token).map_or(value, |first| &rest[first..]))
}

/// The values of each query parameter of that name.
fn values_of(query: &str, name: &str) -> impl Iterator<Item = Vec<u8>> {
    parameters(query).filter(move |(key, _)| is_named(key, name)).map(|(_, value)| percent::bytes(value))
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

fn is_named(key: &str, name: &str) -> bool {
    key == name || percent::bytes(key) == name.as_bytes()
}

/// The others stay as they are and where they are.
fn remove_parameter(uri: &mut Uri, name: &str) {
    let Some(query) = uri.query() else { return };
    let is_other = |parameter: &&str| !is_named(parameter.split('=').next().unwrap_or_default(), name);
    let kept: Vec<&str> = query.split('&').filter(is_other).collect();
    let separator = if kept.is_empty() { "" } else { "?" };
    let path = format!("{}{separator}{}", uri.path(), kept.join("&"));
    let mut parts = std::mem::take(uri).into_parts();
    let shorter = PathAndQuery::try_from(path);
    // What is left of a valid target is one.
    parts.path_and_query = shorter.ok().or(parts.path_and_query);
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Each cookie of that name, without its quotes.
fn cookies_of<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let pairs = pairs.filter_map(|pair| {
        // Around the pair only, as in Envoy: a name or a token with a space is another one.
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        Some((&pair[..at], &pair[at + 1..]))
    });
    pairs.filter(move |(key, _)| *key == name.as_bytes()).map(|(_, value)| {
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        unquoted.unwrap_or(value)
    })
}
