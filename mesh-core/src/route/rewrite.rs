//! What becomes of a request's path and authority (Envoy's rewrites).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};

use super::format::{FormatFacts, expand_or};
use crate::model::{Forward, HostRewrite, PathMatch, PathRewrite, RegexRewrite, RouteMatch, WeightedCluster};

/// A rewrite made something that is no path or no authority; the request cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRewrite {
    /// What was to be rewritten: `path` or `authority`.
    pub what: &'static str,
    /// What came out.
    pub result: String,
}

impl fmt::Display for BadRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the route's rewrite makes {:?}, which is no {}", self.result, self.what)
    }
}

impl std::error::Error for BadRewrite {}

/// The path and query that `rewrite` makes of `path`. The query string is always kept. `matches` is the match of the same
/// route: a prefix rewrite replaces what it matched.
///
/// None: the rewrite leaves nothing of the path, and then does nothing (Envoy).
///
/// # Errors
///
/// What comes out is no path.
pub fn rewrite_path(
    rewrite: &PathRewrite,
    matches: &RouteMatch,
    path: &str,
) -> Result<Option<PathAndQuery>, BadRewrite> {
    let Some(rewritten) = rewrite_bytes(rewrite, matches, path) else { return Ok(None) };
    let bad = || BadRewrite { what: "path", result: String::from_utf8_lossy(&rewritten).into_owned() };
    let path = match rewritten.first() {
        Some(b'/') => Bytes::copy_from_slice(&rewritten),
        // A request must ask for something.
        None | Some(b'?') => Bytes::from([b"/", &rewritten[..]].concat()),
        Some(_) => return Err(bad()),
    };
    PathAndQuery::from_maybe_shared(path).map(Some).map_err(|_| bad())
}

/// The path that `rewrite` makes, with the query behind it; None if nothing is left of the path.
pub(super) fn rewrite_bytes(rewrite: &PathRewrite, matches: &RouteMatch, path: &str) -> Option<Vec<u8>> {
    let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let mut out = match rewrite {
        PathRewrite::Full(whole) => whole.clone().into_bytes(),
        // Whoever has the facts expands it before; unexpanded it is what it says.
        PathRewrite::Format(format) => format.as_bytes().to_vec(),
        PathRewrite::Prefix(prefix) => {
            let after = path.as_bytes().get(matched_length(matches, path)..).unwrap_or_default();
            [prefix.as_bytes(), after].concat()
        }
        PathRewrite::Regex(regex) => regex.apply(path.as_bytes()).into_owned(),
        PathRewrite::Template { from, to } => expand_template(from.regex.search(), to, path),
    };
    if out.is_empty() {
        return None;
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

/// How much of `path` the route's match names: a prefix, or all of it.
fn matched_length(matches: &RouteMatch, path: &str) -> usize {
    match &matches.path {
        PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len(),
        _ => path.len(),
    }
}

/// Fills `{name}`s of `to` with what the match's variables took.
fn expand_template(from: &regex::bytes::Regex, to: &str, path: &str) -> Vec<u8> {
    let captures = from.captures(path.as_bytes());
    let mut out = Vec::with_capacity(path.len() + to.len());
    let mut rest = to;
    while let Some((literal, tail)) = rest.split_once('{') {
        out.extend_from_slice(literal.as_bytes());
        let (name, tail) = tail.split_once('}').unwrap_or((tail, ""));
        let value = captures.as_ref().and_then(|captures| captures.name(name));
        out.extend_from_slice(value.map_or(b"", |value| value.as_bytes()));
        rest = tail;
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// The authority that a route (or the weighted cluster it chose) gives a request; None leaves it alone.
///
/// `hostname` is the picked endpoint's, for `auto_host_rewrite`; empty if it has none or none is picked yet.
pub fn rewrite_authority(
    forward: &Forward,
    weighted: Option<&WeightedCluster>,
    format: &FormatFacts<'_>,
    hostname: &str,
) -> Result<Option<Authority>, BadRewrite> {
    let facts = &format.request;
    let expanded;
    let bytes: Cow<'_, [u8]> = match (&forward.host_rewrite, weighted.and_then(|entry| entry.host_rewrite.as_ref())) {
        (_, Some(literal)) | (Some(HostRewrite::Literal(literal)), None) => literal.as_bytes().into(),
        (Some(HostRewrite::Auto), None) => hostname.as_bytes().into(),
        (Some(HostRewrite::Header(name)), None) => {
            facts.headers.get(name).map_or(b"".as_slice(), HeaderValue::as_bytes).into()
        }
        (Some(HostRewrite::PathRegex(regex)), None) => regex.apply(facts.path_only().as_bytes()),
        (Some(HostRewrite::Format(text)), None) => {
            expanded = expand_or(text, facts.headers, format, b"-");
            expanded.as_ref().map_or(text.as_bytes(), HeaderValue::as_bytes).into()
        }
        (None, None) => return Ok(None),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    Authority::try_from(&*bytes)
        .map(Some)
        .map_err(|_| BadRewrite { what: "authority", result: String::from_utf8_lossy(&bytes).into_owned() })
}

impl RegexRewrite {
    /// `value` with every match of the pattern replaced. In the substitution, `\0` is the whole match, `\1` to `\9` are
    /// groups, and `\\` is a backslash; a group that is not there is empty (RE2's `GlobalReplace`).
    pub fn apply<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        self.pattern.search().replace_all(value, |captures: &regex::bytes::Captures<'_>| self.substitute(captures))
    }

    fn substitute(&self, captures: &regex::bytes::Captures<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = self.substitution.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            match rest.next() {
                Some(digit @ b'0'..=b'9') => {
                    let group = captures.get(usize::from(digit - b'0'));
                    out.extend_from_slice(group.map_or(b"", |group| group.as_bytes()));
                }
                Some(other) => out.push(other),
                None => out.push(b'\\'),
            }
        }
        out
    }
}
