//! What a token says, in headers and metadata.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::token::Jwt;
use crate::model::{ClaimHeader, JwtProvider};

/// Whether a token is for one of `wanted`; without any, everybody's is. A scheme and a slash at the end do not count.
pub(super) fn is_audience(wanted: &[String], said: &[String]) -> bool {
    wanted.is_empty() || said.iter().any(|said| wanted.iter().any(|wanted| bare(wanted) == bare(said)))
}

fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// Adds the headers that a good token makes.
pub(super) fn to_headers(provider: &JwtProvider, jwt: &Jwt, headers: &mut HeaderMap) {
    if let Some(name) = &provider.forward_payload_header {
        let payload = jwt.payload64();
        let padded = if provider.pad_forward_payload_header {
            Cow::Owned(format!("{payload:=<0$}", payload.len().next_multiple_of(4)))
        } else {
            Cow::Borrowed(payload)
        };
        if let Ok(value) = HeaderValue::try_from(&*padded) {
            headers.append(name.clone(), value);
        }
    }
    for claim in &provider.claim_to_headers {
        if let Some(Ok(value)) = header_text(jwt, claim).map(HeaderValue::try_from) {
            headers.append(claim.header.clone(), value);
        }
    }
}

/// Whether every claim that is to be a header can be one: a line break in a claim must not become one, and whoever is behind us
/// must not miss what the token says.
pub(super) fn can_be_headers(provider: &JwtProvider, jwt: &Jwt) -> bool {
    let mut texts = provider.claim_to_headers.iter().filter_map(|claim| header_text(jwt, claim));
    texts.all(|text| HeaderValue::try_from(text).is_ok())
}

fn header_text(jwt: &Jwt, claim: &ClaimHeader) -> Option<String> {
    at(&jwt.payload, &claim.path).and_then(text).filter(|text| !text.is_empty())
}

fn at<'a>(payload: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(payload.get(first)?, |value, key| value.as_object()?.get(key))
}

/// A claim as the text of a header, as Envoy writes it: lists and objects as JSON in base64.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(truth) => Some(truth.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_f64().map(number_text),
        Value::Array(_) | Value::Object(_) => serde_json::to_vec(value).ok().map(|json| BASE64_STANDARD.encode(json)),
    }
}

/// Whole numbers that are not negative as such, others with six digits.
fn number_text(number: f64) -> String {
    /// 2^64.
    const END: f64 = 18_446_744_073_709_551_616.0;
    if number.fract() == 0.0 && (0.0..END).contains(&number) { format!("{number:.0}") } else { format!("{number:.6}") }
}

/// The payload, the claims `delimited` of which are lists.
pub(super) fn normalized(payload: &Map<String, Value>, delimited: &[String]) -> Map<String, Value> {
    let mut payload = payload.clone();
    for claim in delimited {
        if let Some(value) = payload.get_mut(claim)
            && let Some(text) = value.as_str()
        {
            *value = text.split(' ').filter(|word| !word.is_empty()).collect();
        }
    }
    payload
}
