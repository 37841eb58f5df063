//! A rule's `matches`: which requests it takes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Protocol;
use crate::bootstrap::json::Object;
use crate::decode::Fault;

/// The methods of HTTPRoute.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// One entry: all that it says must hold.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) path: PathMatch,
    pub(super) method: Option<String>,
    pub(super) headers: Vec<NamedMatch>,
    pub(super) query: Vec<NamedMatch>,
}

/// What it says about the path.
#[derive(Debug)]
pub(super) enum PathMatch {
    Exact(String),
    /// By whole path elements, without a `/` at its end; empty: every path.
    Prefix(String),
    Regex(String),
    /// What a GRPCRoute says; each part is a literal or an expression.
    Grpc {
        service: Option<String>,
        method: Option<String>,
        regex: bool,
    },
}

/// A header's or a query parameter's value.
#[derive(Debug)]
pub(super) struct NamedMatch {
    name: String,
    value: String,
    regex: bool,
}

impl Match {
    /// Takes every request.
    pub(super) fn all(protocol: Protocol) -> Self {
        let path = match protocol {
            Protocol::Http => PathMatch::Prefix(String::new()),
            Protocol::Grpc => PathMatch::Grpc { service: None, method: None, regex: false },
        };
        Self { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    pub(super) fn read(value: &Object<'_>, protocol: Protocol) -> Result<Self, Fault> {
        let all = Self::all(protocol);
        let headers = named(value, "headers", true)?;
        if protocol == Protocol::Grpc {
            value.only(&["method", "headers"])?;
            let path = value.object("method", grpc)?.unwrap_or(all.path);
            return Ok(Self { path, headers, ..Self::all(protocol) });
        }
        value.only(&["path", "headers", "queryParams", "method"])?;
        let method = value.string("method")?;
        if let Some(unknown) = method.filter(|method| !METHODS.contains(method)) {
            return Err(value.fault("method", format!("is `{unknown}`, and must be one of {}", METHODS.join(", "))));
        }
        Ok(Self {
            path: value.object("path", path)?.unwrap_or(all.path),
            method: method.map(str::to_owned),
            headers,
            query: named(value, "queryParams", false)?,
        })
    }

    /// It as a `RouteMatch`.
    pub(super) fn json(&self) -> Value {
        let mut out = self.path.json();
        let method = self.method.iter().map(|method| json!({"name": ":method", "string_match": {"exact": method}}));
        let headers: Vec<Value> = method.chain(self.headers.iter().map(NamedMatch::json)).collect();
        if !headers.is_empty() {
            out["headers"] = headers.into();
        }
        if !self.query.is_empty() {
            out["query_parameters"] = self.query.iter().map(NamedMatch::json).collect();
        }
        out
    }
}

fn path(path: &Object<'_>) -> Result<PathMatch, Fault> {
    path.only(&["type", "value"])?;
    let value = path.string("value")?.unwrap_or("/").to_owned();
    let kind = path.string("type")?.unwrap_or("PathPrefix");
    if kind != "RegularExpression" && (!value.starts_with('/') || value.contains(['?', '#'])) {
        return Err(path.fault("value", format!("is {value:?}, and must begin with `/` and have no `?` and no `#`")));
    }
    match kind {
        "Exact" => Ok(PathMatch::Exact(value)),
        "PathPrefix" => Ok(PathMatch::Prefix(value.trim_end_matches('/').to_owned())),
        "RegularExpression" => Ok(PathMatch::Regex(value)),
        other => Err(path.fault("type", format!("is `{other}`, and must be Exact, PathPrefix or RegularExpression"))),
    }
}

fn grpc(method: &Object<'_>) -> Result<PathMatch, Fault> {
    method.only(&["type", "service", "method"])?;
    let regex = is_regex(method)?;
    let part = |name: &str| match method.string(name)? {
        Some(text) if text.is_empty() || (!regex && text.contains(['/', '?', '#'])) => {
            Err(method.fault(name, format!("is {text:?}, which is no name")))
        }
        text => Ok(text.map(str::to_owned)),
    };
    let (service, name) = (part("service")?, part("method")?);
    if service.is_none() && name.is_none() {
        return Err(method.fault("service", "is missing, and so is method: give one"));
    }
    Ok(PathMatch::Grpc { service, method: name, regex })
}

fn is_regex(object: &Object<'_>) -> Result<bool, Fault> {
    match object.string("type")? {
        None | Some("Exact") => Ok(false),
        Some("RegularExpression") => Ok(true),
        Some(other) => Err(object.fault("type", format!("is `{other}`, and must be Exact or RegularExpression"))),
    }
}

/// The API lets the first of two entries with the same name count; here they are a mistake that is told.
fn named(parent: &Object<'_>, field: &str, fold: bool) -> Result<Vec<NamedMatch>, Fault> {
    let mut seen = BTreeSet::new();
    let matches = parent.objects(field, |entry| {
        entry.only(&["type", "name", "value"])?;
        let name = entry.required("name")?.to_owned();
        let name = if fold { name.to_ascii_lowercase() } else { name };
        if !seen.insert(name.clone()) {
            return Err(entry.fault("name", format!("is `{name}`, which another entry has already")));
        }
        let value = entry.required("value")?.to_owned();
        Ok(NamedMatch { name, value, regex: is_regex(entry)? })
    })?;
    Ok(matches.unwrap_or_default())
}

impl NamedMatch {
    fn json(&self) -> Value {
        let matcher =
            if self.regex { json!({"safe_regex": {"regex": self.value}}) } else { json!({"exact": self.value}) };
        json!({"name": self.name, "string_match": matcher})
    }
}

impl PathMatch {
    fn json(&self) -> Value {
        match self {
            Self::Exact(path) => json!({"path": path}),
            Self::Prefix(prefix) if prefix.is_empty() => json!({"prefix": "/"}),
            Self::Prefix(prefix) => json!({"path_separated_prefix": prefix}),
            Self::Regex(regex) => json!({"safe_regex": {"regex": regex}}),
            Self::Grpc { service, method, regex } => grpc_json(service.as_deref(), method.as_deref(), *regex),
        }
    }
}

fn grpc_json(service: Option<&str>, method: Option<&str>, regex: bool) -> Value {
    match (service, method) {
        (None, None) => json!({"prefix": "/"}),
        (Some(service), Some(method)) if !regex => json!({"path": format!("/{service}/{method}")}),
        (Some(service), None) if !regex => json!({"prefix": format!("/{service}/")}),
        (service, method) => {
            let part = |text: Option<&str>| match text {
                None => "[^/]+".to_owned(),
                Some(text) if regex => format!("(?:{text})"),
                Some(text) => regex_of(text),
            };
            json!({"safe_regex": {"regex": format!("/{}/{}", part(service), part(method))}})
        }
    }
}

/// An expression for just this text.
pub(super) fn regex_of(text: &str) -> String {
    regex::escape(text)
}
