//! In which order routes are tried, where several match: the Gateway API's precedence.
//!
//! An exact path, then a regular expression, then the longest prefix; then a method, the most headers, the most query
//! parameters; then the oldest route, the first by `namespace/name`, and the first rule. Where regular expressions stand is
//! left to implementations; before prefixes, so that `PathPrefix /` in another rule does not hide them. A GRPCRoute goes by
//! the longest service, then the longest method.

use std::cmp::Reverse;

use super::Entry;
use super::matches::{Match, PathMatch};

pub(super) fn sort(entries: &mut [Entry<'_>]) {
    // Stable, so that what is equal stays in the order of rules and matches.
    entries.sort_by(|one, other| {
        let by_match = precedence(one.matched).cmp(&precedence(other.matched));
        by_match.then_with(|| (&one.route.meta, one.rule).cmp(&(&other.route.meta, other.rule)))
    });
}

/// The smallest goes first.
fn precedence(matched: &Match) -> impl Ord {
    let (kind, length, more) = match &matched.path {
        PathMatch::Exact(path) => (0, path.len(), 0),
        PathMatch::Regex(regex) => (1, regex.len(), 0),
        PathMatch::Prefix(prefix) => (2, prefix.len(), 0),
        PathMatch::Grpc { service, method, .. } => {
            let length = |part: &Option<String>| part.as_ref().map_or(0, String::len);
            (0, length(service), length(method))
        }
    };
    let counts = (matched.method.is_some(), matched.headers.len(), matched.query.len());
    (kind, Reverse((length, more)), Reverse(counts))
}
