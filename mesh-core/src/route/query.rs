//! Query parameters that a filter adds and removes (Envoy's `query_parameter_mutations`).
//!
//! Envoy writes the whole query anew, sorted by name, with what was percent-encoded decoded. So do we, but for what would be
//! another query then: a `&` inside a value, a space.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::uri::{InvalidUri, PathAndQuery};
use http::{HeaderMap, HeaderValue};

use super::format::{FormatFacts, expand};
use crate::model::{AppendAction, QueryStep};
use crate::resource::percent;

/// Does `steps` one after the other to the query of the request of `facts`. Values are made of `headers`, which are the
/// request's as far as they have been changed.
///
/// # Errors
///
/// What comes out is longer than a URI can be.
pub fn mutate_query(
    steps: &[QueryStep],
    headers: &HeaderMap,
    facts: &FormatFacts<'_>,
) -> Result<PathAndQuery, InvalidUri> {
    let mut query = Query::parse(facts.request.query());
    for step in steps {
        match step {
            QueryStep::Remove(name) => drop(query.0.remove(name.as_bytes())),
            QueryStep::Append { name, value, action } => {
                // What is no header's value is none here: nothing that breaks a line gets into a path.
                let value = expand(value, headers, facts);
                query.append(name.as_bytes(), encoded(value.as_ref().map_or(b"", HeaderValue::as_bytes)), *action);
            }
        }
    }
    PathAndQuery::from_maybe_shared(Bytes::from(query.after(facts.request.path_only())))
}

/// Parameters, by decoded names: their values, as they are written.
struct Query(BTreeMap<Vec<u8>, Vec<String>>);

impl Query {
    fn parse(text: &str) -> Self {
        let mut all: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
        // Between two separators there is a parameter without a name, behind the last there is none (Envoy).
        for pair in text.strip_suffix('&').unwrap_or(text).split('&').filter(|_| !text.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(percent::bytes(name)).or_default().push(simplified(value));
        }
        Self(all)
    }

    fn append(&mut self, name: &[u8], value: String, action: AppendAction) {
        let there = self.0.contains_key(name);
        match action {
            AppendAction::AddIfAbsent if there => {}
            AppendAction::OverwriteIfExists if !there => {}
            AppendAction::AddIfAbsent | AppendAction::AppendOrAdd => {
                self.0.entry(name.to_vec()).or_default().push(value);
            }
            AppendAction::OverwriteIfExists | AppendAction::OverwriteOrAdd => {
                self.0.insert(name.to_vec(), vec![value]);
            }
        }
    }

    /// The path with this query behind it.
    fn after(&self, path: &str) -> String {
        let mut out = path.to_owned();
        let mut separator = '?';
        for (name, values) in &self.0 {
            let name = written(name);
            for value in values {
                out.extend([separator]);
                out.extend([&*name, "=", value]);
                separator = '&';
            }
        }
        out
    }
}

/// Decodes what means the same decoded, and leaves the rest as it is.
fn simplified(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(next) = rest.next() {
        let mut after = rest.as_str().bytes();
        match percent::escaped(&mut after).filter(|byte| next == '%' && is_plain(*byte)) {
            Some(byte) => {
                out.push(char::from(byte));
                // Two digits, which are ASCII.
                rest = rest.as_str()[2..].chars();
            }
            None => out.push(next),
        }
    }
    out
}

/// Whether a byte means in a query what it is, wherever it stands.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$'()*,;:@/?".contains(&byte)
}

/// A name, with all that would end it encoded.
fn written(name: &[u8]) -> String {
    encode(name, |byte| is_plain(byte) || byte == b'+')
}

/// A value, encoded as HTML forms are, but for spaces (Envoy).
fn encoded(value: &[u8]) -> String {
    encode(value, |byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte))
}

fn encode(bytes: &[u8], keeps: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if keeps(*byte) {
            out.push(char::from(*byte));
        } else {
            percent::push_escape(&mut out, *byte);
        }
    }
    out
}
