//! The hash that keeps alike requests on one endpoint (gRFC A42, Envoy's `RouteAction.hash_policy`).

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use twox_hash::XxHash64;

use super::facts::RequestFacts;
use crate::model::{HashPolicy, HashSource, RegexRewrite};

/// The hash of a request, and what the response must do about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHash<'a> {
    /// The hash; None where no policy had anything to hash, and the endpoint is a matter of chance.
    pub value: Option<u64>,
    /// A cookie that is missing and that the policy wants made up; its hash is not in `value`.
    pub missing_cookie: Option<MissingCookie<'a>>,
}

/// A cookie to make up (`HashPolicy.Cookie.ttl`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingCookie<'a> {
    /// Its name.
    pub name: &'a str,
    /// How long it lives; zero is until the browser closes.
    pub ttl: Duration,
    /// Its path; may be empty.
    pub path: &'a str,
}

/// The hash of `facts` by `policies`: each in order, joined by rotating, until a terminal one has been passed and there is
/// a hash.
///
/// Cookies, query parameters and addresses count for HTTP only; gRFC A42 ignores them in gRPC requests.
pub fn request_hash<'a>(policies: &'a [HashPolicy], facts: &RequestFacts<'_>) -> RequestHash<'a> {
    let mut result = RequestHash::default();
    for policy in policies {
        let hash = match &policy.source {
            HashSource::Header { name, rewrite } => header_hash(name, rewrite.as_ref(), facts),
            HashSource::ChannelId => Some(facts.channel_id),
            _ if facts.is_grpc => None,
            HashSource::Cookie { name, ttl, path } => {
                let value = cookie(facts.headers, name);
                if let (None, Some(ttl), None) = (value, ttl, &result.missing_cookie) {
                    result.missing_cookie = Some(MissingCookie { name, ttl: *ttl, path });
                }
                value.map(hash_of)
            }
            HashSource::Query(name) => facts.query_parameter(name).map(|value| hash_of(value.as_bytes())),
            HashSource::SourceIp => facts.source_ip.map(|address| hash_of(address.to_string().as_bytes())),
            _ => None,
        };
        result.value = join(result.value, hash);
        if policy.terminal && result.value.is_some() {
            break;
        }
    }
    result
}

/// Adds the hash of one policy to that of those before it.
pub fn join(before: Option<u64>, hash: Option<u64>) -> Option<u64> {
    match (before, hash) {
        (Some(before), Some(hash)) => Some(before.rotate_left(1) ^ hash),
        (before, hash) => hash.or(before),
    }
}

/// The hash of one value: XXH64 with seed 0.
pub fn hash_of(value: &[u8]) -> u64 {
    XxHash64::oneshot(0, value)
}

/// Several values are sorted, and each is hashed with the hash before it as seed (Envoy; gRFC A42 joins them by commas,
/// which this project does nowhere).
fn header_hash(name: &HeaderName, rewrite: Option<&RegexRewrite>, facts: &RequestFacts<'_>) -> Option<u64> {
    if facts.is_grpc && name.as_str().ends_with("-bin") {
        return None;
    }
    let mut all = facts.headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes);
    let first = all.next()?;
    let Some(second) = all.next() else {
        return Some(match rewrite {
            None => hash_of(first),
            Some(rewrite) => hash_of(&rewrite.apply(first)),
        });
    };
    let mut values: Vec<std::borrow::Cow<'_, [u8]>> = [first, second]
        .into_iter()
        .chain(all)
        .map(|value| rewrite.map_or(value.into(), |rewrite| rewrite.apply(value)))
        .collect();
    values.sort_unstable();
    Some(values.iter().fold(0, |seed, value| XxHash64::oneshot(seed, value)))
}

/// The value of cookie `name`, without quotes around it.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(unquoted.unwrap_or(value))
    })
}
