//! Does this request match? The one place that answers, for routes and for every policy that asks the same questions.

use std::fmt;

use http::{HeaderMap, Method};

use super::facts::{RequestFacts, is_grpc};
use super::hash::cookie;
use crate::model::matcher::MatchName;
use crate::model::{
    CookieMatch, HeaderMatch, HeaderTest, Metadata, MetadataMatch, PathMatch, Pattern, QueryMatch, QueryTest,
    RouteMatch, StringMatch,
};

/// The first part of a route's match that a request did not meet.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Mismatch<'a> {
    /// The path.
    Path(&'a PathMatch),
    /// A header.
    Header(&'a HeaderMatch),
    /// A query parameter.
    Query(&'a QueryMatch),
    /// A cookie.
    Cookie(&'a CookieMatch),
    /// What is known of the request beside its head.
    Metadata(&'a MetadataMatch),
    /// The dice said no.
    Fraction,
    /// The route is for gRPC only.
    NotGrpc,
    /// The TLS connection is not as the route wants it, or there is none.
    Tls,
    /// The route asks for filter state, which nothing sets.
    Never,
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "the path is not as in {path}"),
            Self::Header(header) => write!(f, "the header is not as in {header}"),
            Self::Query(query) => write!(f, "the query parameter is not as in {query}"),
            Self::Cookie(cookie) => write!(f, "the cookie is not as in {cookie}"),
            Self::Metadata(wanted) => write!(f, "the metadata are not as in {wanted}"),
            Self::Fraction => f.write_str("the request is not in the route's share"),
            Self::NotGrpc => f.write_str("the request is not gRPC"),
            Self::Tls => f.write_str("the TLS connection is not as the route asks"),
            Self::Never => f.write_str("the route asks for filter state, which nothing sets"),
        }
    }
}

/// Whether a gRPC request has headers whose names end in `-bin`, to who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// It has none: routing (gRFC A28).
    Hidden,
    /// It has them as they stand on the wire, in base64: authorization (gRFC A41), and every other policy that a client
    /// could get around by calling itself gRPC.
    Visible,
}

impl RouteMatch {
    /// The first part that `facts` do not meet, if any. `draw` decides fractions.
    ///
    /// A request without a path, which is a CONNECT, takes only routes for CONNECT (Envoy): one for every path says
    /// nothing of tunnels.
    pub fn mismatch<'a>(&'a self, facts: &RequestFacts<'_>, draw: u64) -> Option<Mismatch<'a>> {
        if facts.path.is_empty() && !matches!(self.path, PathMatch::Connect) {
            return Some(Mismatch::Path(&self.path));
        }
        self.unmet(facts, draw, Binary::Hidden)
    }

    /// Whether a policy is about the request, which says so as a route does: it takes more requests than the route,
    /// those without a path among them, and sees all headers.
    pub fn is_policy_match(&self, facts: &RequestFacts<'_>) -> bool {
        // Policies have no fractions.
        self.unmet(facts, 0, Binary::Visible).is_none()
    }

    /// The cheap questions come first; as all must hold, the order shows only in the reason given.
    fn unmet<'a>(&'a self, facts: &RequestFacts<'_>, draw: u64, binary: Binary) -> Option<Mismatch<'a>> {
        if self.never {
            return Some(Mismatch::Never);
        }
        if !self.path.is_match(facts, self.case_sensitive) {
            return Some(Mismatch::Path(&self.path));
        }
        if self.grpc_only && !is_grpc(facts.headers) {
            return Some(Mismatch::NotGrpc);
        }
        if let Some(header) = self.headers.iter().find(|header| !header.is_match(facts, binary)) {
            return Some(Mismatch::Header(header));
        }
        if let Some(query) = self.query.iter().find(|query| !query.is_match(facts)) {
            return Some(Mismatch::Query(query));
        }
        if let Some(cookie) = self.cookies.iter().find(|cookie| !cookie.is_match(facts)) {
            return Some(Mismatch::Cookie(cookie));
        }
        let no_metadata = Metadata::new();
        let metadata = facts.metadata.unwrap_or(&no_metadata);
        if let Some(wanted) = self.metadata.iter().find(|wanted| !wanted.is_match(metadata)) {
            return Some(Mismatch::Metadata(wanted));
        }
        if !self.is_tls_match(facts) {
            return Some(Mismatch::Tls);
        }
        let outside = self.fraction.is_some_and(|fraction| !fraction.contains(draw));
        outside.then_some(Mismatch::Fraction)
    }

    fn is_tls_match(&self, facts: &RequestFacts<'_>) -> bool {
        if self.tls_presented.is_none() && self.tls_validated.is_none() {
            return true;
        }
        facts.tls.is_some_and(|tls| {
            self.tls_presented.is_none_or(|wanted| wanted == tls.presented)
                && self.tls_validated.is_none_or(|wanted| wanted == tls.validated)
        })
    }
}

impl PathMatch {
    /// Whether the request's path matches. The query string is not looked at.
    pub fn is_match(&self, facts: &RequestFacts<'_>, case_sensitive: bool) -> bool {
        let path = facts.path_only().as_bytes();
        let equal = |a: &[u8], b: &[u8]| if case_sensitive { a == b } else { a.eq_ignore_ascii_case(b) };
        let begins = |prefix: &[u8]| path.get(..prefix.len()).is_some_and(|head| equal(head, prefix));
        match self {
            Self::Prefix(prefix) => begins(prefix.as_bytes()),
            Self::Exact(exact) => equal(path, exact.as_bytes()),
            Self::Regex(regex) => regex.is_full_match(path),
            Self::SeparatedPrefix(prefix) => {
                begins(prefix.as_bytes()) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Self::Template(template) => template.regex.is_full_match(path),
            Self::Connect => facts.method == Method::CONNECT,
        }
    }
}

impl StringMatch {
    /// Whether `value` matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        let equal = |a: &[u8], b: &[u8]| if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        match &self.pattern {
            Pattern::Exact(exact) => equal(value, exact.as_bytes()),
            Pattern::Prefix(prefix) => value.get(..prefix.len()).is_some_and(|head| equal(head, prefix.as_bytes())),
            Pattern::Suffix(suffix) => {
                let start = value.len().checked_sub(suffix.len());
                start.is_some_and(|start| equal(&value[start..], suffix.as_bytes()))
            }
            Pattern::Contains(part) if part.is_empty() => true,
            Pattern::Contains(part) => value.windows(part.len()).any(|window| equal(window, part.as_bytes())),
            Pattern::Regex(regex) => regex.is_full_match(value),
        }
    }
}

impl CookieMatch {
    /// Whether the request has the cookie with a value that matches; `invert` turns the verdict around.
    pub fn is_match(&self, facts: &RequestFacts<'_>) -> bool {
        cookie(facts.headers, &self.name).is_some_and(|value| self.test.is_match(value)) != self.invert
    }
}

impl HeaderMatch {
    /// Whether the request's header matches. Of several values, any may match; `invert` turns the verdict on all of them
    /// around.
    ///
    /// `binary` says whether a gRPC request has headers whose names end in `-bin`.
    pub fn is_match(&self, facts: &RequestFacts<'_>, binary: Binary) -> bool {
        let hidden = |name: &str| binary == Binary::Hidden && facts.is_grpc && name.ends_with("-bin");
        match &self.name {
            MatchName::Method => self.test_values(std::iter::once(facts.method.as_str().as_bytes())),
            MatchName::Authority => self.test_values(std::iter::once(facts.authority.as_bytes())),
            MatchName::Path => self.test_values(std::iter::once(facts.path.as_bytes())),
            MatchName::Scheme => self.test_values(std::iter::once(facts.scheme.as_bytes())),
            MatchName::Header(name) if hidden(name.as_str()) => self.test_values(std::iter::empty()),
            MatchName::Header(name) => self.test_values(values(facts.headers, name)),
            MatchName::Impossible(_) => self.test_values(std::iter::empty()),
        }
    }

    /// Whether a response's header matches. Pseudo-headers are not there.
    pub fn is_response_match(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            MatchName::Header(name) => self.test_values(values(headers, name)),
            _ => self.test_values(std::iter::empty()),
        }
    }

    fn test_values<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        let first = values.next().or(self.treat_missing_as_empty.then_some(b"".as_slice()));
        if let HeaderTest::Present(wanted) = self.test {
            return (first.is_some() == wanted) != self.invert;
        }
        // An absent header matches no value test, inverted or not (gRFC A41, Envoy).
        let Some(first) = first else { return false };
        (self.test.is_value_match(first) || values.any(|value| self.test.is_value_match(value))) != self.invert
    }
}

fn values<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes)
}

impl HeaderTest {
    fn is_value_match(&self, value: &[u8]) -> bool {
        match self {
            Self::String(string) => string.is_match(value),
            Self::Range { start, end } => {
                parse_number::<i64>(value).is_some_and(|number| (*start..*end).contains(&number))
            }
            Self::Present(wanted) => *wanted,
        }
    }
}

impl QueryMatch {
    /// Whether the (first) query parameter of that name matches.
    pub fn is_match(&self, facts: &RequestFacts<'_>) -> bool {
        let value = facts.query_parameter(&self.name);
        match &self.test {
            QueryTest::Present(wanted) => value.is_some() == *wanted,
            QueryTest::String(string) => value.is_some_and(|value| string.is_match(value.as_bytes())),
        }
    }
}

/// Reads a decimal integer as Envoy does: a sign and white space around it are fine, anything else is not.
pub(crate) fn parse_number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.trim_ascii().parse().ok()
}
