//! `filters`: what happens to a request and its response besides being forwarded.

use serde_json::{Map, Value, json};

use super::matches::{Match, PathMatch, regex_of};
use super::{Protocol, Surroundings};
use crate::bootstrap::json::Object;
use crate::decode::Fault;
use crate::source::file::object::{Meta, ServiceName, port};

/// All the filters of a rule or a backend.
#[derive(Debug, Default)]
pub(super) struct Filters {
    request: Option<Headers>,
    response: Option<Headers>,
    pub(super) redirect: Option<Redirect>,
    pub(super) rewrite: Option<Rewrite>,
    mirrors: Vec<Mirror>,
}

#[derive(Debug)]
struct Headers {
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
    remove: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Redirect {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    pub(super) path: Option<NewPath>,
    status: &'static str,
}

#[derive(Debug)]
pub(super) struct Rewrite {
    host: Option<String>,
    pub(super) path: Option<NewPath>,
}

/// What the path becomes.
#[derive(Debug)]
pub(super) enum NewPath {
    Full(String),
    Prefix(String),
}

#[derive(Debug)]
struct Mirror {
    service: ServiceName,
    port: u16,
    numerator: u32,
    denominator: &'static str,
}

impl Filters {
    /// Reads the field `filters`. `backend`: of a backend, where only headers can be changed.
    pub(super) fn read(parent: &Object<'_>, protocol: Protocol, meta: &Meta, backend: bool) -> Result<Self, Fault> {
        let mut filters = Self::default();
        parent.objects("filters", |filter| filters.add(filter, protocol, meta, backend))?;
        if filters.redirect.is_some() && filters.rewrite.is_some() {
            return Err(parent.fault("filters", "has both a RequestRedirect and a URLRewrite"));
        }
        Ok(filters)
    }

    fn add(&mut self, filter: &Object<'_>, protocol: Protocol, meta: &Meta, backend: bool) -> Result<(), Fault> {
        let twice = || filter.fault("type", "is one that another filter of the list has already");
        let kind = filter.required("type")?;
        let field = match (kind, protocol, backend) {
            ("RequestHeaderModifier", ..) => "requestHeaderModifier",
            ("ResponseHeaderModifier", ..) => "responseHeaderModifier",
            ("RequestMirror", _, false) => "requestMirror",
            ("RequestRedirect", Protocol::Http, false) => "requestRedirect",
            ("URLRewrite", Protocol::Http, false) => "urlRewrite",
            _ => return Err(filter.fault("type", format!("is `{kind}`, which is not supported here"))),
        };
        filter.only(&["type", field])?;
        let missing = || filter.fault(field, "is missing");
        let fresh = match kind {
            "RequestHeaderModifier" => {
                self.request.replace(filter.object(field, Headers::read)?.ok_or_else(missing)?).is_none()
            }
            "ResponseHeaderModifier" => {
                self.response.replace(filter.object(field, Headers::read)?.ok_or_else(missing)?).is_none()
            }
            "RequestRedirect" => {
                self.redirect.replace(filter.object(field, Redirect::read)?.ok_or_else(missing)?).is_none()
            }
            "URLRewrite" => self.rewrite.replace(filter.object(field, Rewrite::read)?.ok_or_else(missing)?).is_none(),
            _ => {
                self.mirrors.push(filter.object(field, |mirror| Mirror::read(mirror, meta))?.ok_or_else(missing)?);
                true
            }
        };
        if fresh { Ok(()) } else { Err(twice()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { request, response, redirect, rewrite, mirrors } = self;
        request.is_none() && response.is_none() && redirect.is_none() && rewrite.is_none() && mirrors.is_empty()
    }

    /// Adds the header changes to a route or a weighted cluster.
    pub(super) fn put_headers(&self, out: &mut Value) {
        if let Some(headers) = &self.request {
            headers.put("request", out);
        }
        if let Some(headers) = &self.response {
            headers.put("response", out);
        }
    }

    /// The mirrors. A Service that does not exist gets nothing, as the API says.
    pub(super) fn put_mirrors(&self, here: Surroundings<'_>, out: &mut Map<String, Value>) {
        let existing = self.mirrors.iter().filter(|mirror| (here.has_port)(&mirror.service, mirror.port));
        let mirrors: Vec<Value> = existing.map(Mirror::json).collect();
        if !mirrors.is_empty() {
            out.insert("request_mirror_policies".into(), mirrors.into());
        }
    }
}

impl Headers {
    fn read(modifier: &Object<'_>) -> Result<Self, Fault> {
        modifier.only(&["set", "add", "remove"])?;
        let pairs = |field: &str| {
            let pairs = modifier.objects(field, |pair| {
                pair.only(&["name", "value"])?;
                let value = pair.string("value")?.ok_or_else(|| pair.fault("value", "is missing"))?;
                Ok((pair.required("name")?.to_owned(), value.to_owned()))
            })?;
            Ok(pairs.unwrap_or_default())
        };
        let mut remove = Vec::new();
        for name in modifier.array("remove")?.unwrap_or_default() {
            let name = name.as_str().ok_or_else(|| modifier.fault("remove", "must be a list of names"))?;
            remove.push(name.to_owned());
        }
        Ok(Self { set: pairs("set")?, add: pairs("add")?, remove })
    }

    fn put(&self, side: &str, out: &mut Value) {
        let option = |(name, value): &(String, String), action: &str| {
            // A value is text here, and a format there.
            let value = value.replace('%', "%%");
            json!({"header": {"key": name, "value": value}, "append_action": action, "keep_empty_value": true})
        };
        let set = self.set.iter().map(|pair| option(pair, "OVERWRITE_IF_EXISTS_OR_ADD"));
        let add = self.add.iter().map(|pair| option(pair, "APPEND_IF_EXISTS_OR_ADD"));
        let changes: Vec<Value> = set.chain(add).collect();
        if !changes.is_empty() {
            out[format!("{side}_headers_to_add")] = changes.into();
        }
        if !self.remove.is_empty() {
            out[format!("{side}_headers_to_remove")] = self.remove.clone().into();
        }
    }
}

impl Redirect {
    fn read(redirect: &Object<'_>) -> Result<Self, Fault> {
        redirect.only(&["scheme", "hostname", "path", "port", "statusCode"])?;
        let scheme = redirect.string("scheme")?;
        if let Some(other) = scheme.filter(|scheme| !matches!(*scheme, "http" | "https")) {
            return Err(redirect.fault("scheme", format!("is `{other}`, and must be http or https")));
        }
        let status = match redirect.number("statusCode", 300..=399)? {
            Some(301) => "MOVED_PERMANENTLY",
            None | Some(302) => "FOUND",
            Some(303) => "SEE_OTHER",
            Some(307) => "TEMPORARY_REDIRECT",
            Some(308) => "PERMANENT_REDIRECT",
            Some(other) => {
                let rule = format!("is {other}, and must be 301, 302, 303, 307 or 308");
                return Err(redirect.fault("statusCode", rule));
            }
        };
        Ok(Self {
            scheme: scheme.map(str::to_owned),
            host: redirect.string("hostname")?.map(str::to_owned),
            port: port(redirect, "port")?,
            path: redirect.object("path", NewPath::read)?,
            status,
        })
    }

    /// The port to put in the `Location`: the one given; the scheme's own, if one is given; the same as before. The one
    /// that the scheme means anyway is left out beside a new host, which has none.
    fn port(&self, asked: u16) -> Option<u16> {
        let usual = if self.scheme.as_deref() == Some("https") { 443 } else { 80 };
        let of_scheme = self.scheme.is_some().then_some(usual);
        let port = self.port.or(of_scheme).or(self.host.is_some().then_some(asked));
        port.filter(|port| self.host.is_none() || *port != usual)
    }

    /// `port` is that of the Service that was asked for.
    pub(super) fn json(&self, matched: &Match, port: u16) -> Value {
        let mut out = json!({"response_code": self.status});
        if let Some(scheme) = &self.scheme {
            out["scheme_redirect"] = scheme.clone().into();
        }
        if let Some(host) = &self.host {
            out["host_redirect"] = host.clone().into();
        }
        if let Some(port) = self.port(port) {
            out["port_redirect"] = port.into();
        }
        match &self.path {
            Some(NewPath::Full(path)) => out["path_redirect"] = path.clone().into(),
            Some(NewPath::Prefix(to)) => put_prefix(matched, to, &mut out),
            None => {}
        }
        out
    }
}

impl Rewrite {
    fn read(rewrite: &Object<'_>) -> Result<Self, Fault> {
        rewrite.only(&["hostname", "path"])?;
        Ok(Self { host: rewrite.string("hostname")?.map(str::to_owned), path: rewrite.object("path", NewPath::read)? })
    }

    pub(super) fn put(&self, matched: &Match, out: &mut Value) {
        if let Some(host) = &self.host {
            out["host_rewrite_literal"] = host.clone().into();
        }
        match &self.path {
            Some(NewPath::Full(path)) => {
                out["regex_rewrite"] = json!({"pattern": {"regex": "^/.*$"}, "substitution": path});
            }
            Some(NewPath::Prefix(to)) => put_prefix(matched, to, out),
            None => {}
        }
    }
}

/// Puts `to` in the place of the path elements that matched. The elements that follow keep just one `/` before them, which
/// an expression does and a plain prefix does not where `to` is empty or `/`.
fn put_prefix(matched: &Match, to: &str, out: &mut Value) {
    let PathMatch::Prefix(from) = &matched.path else { return };
    let to = to.trim_end_matches('/');
    match (from.is_empty(), to.is_empty()) {
        (true, true) => {}
        (true, false) => out["prefix_rewrite"] = format!("{to}/").into(),
        (false, true) => {
            let regex = format!("^{}/*", regex_of(from));
            out["regex_rewrite"] = json!({"pattern": {"regex": regex}, "substitution": "/"});
        }
        (false, false) => out["prefix_rewrite"] = to.into(),
    }
}

impl NewPath {
    fn read(path: &Object<'_>) -> Result<Self, Fault> {
        path.only(&["type", "replaceFullPath", "replacePrefixMatch"])?;
        let text = |field: &str| {
            let text = path.string(field)?.ok_or_else(|| path.fault(field, "is missing"))?;
            // A backslash refers to a group in a substitution.
            if (!text.is_empty() && !text.starts_with('/')) || text.contains(['?', '#', '\\']) {
                let rule = format!("is {text:?}, and must begin with `/` and have no `?`, `#` and `\\`");
                return Err(path.fault(field, rule));
            }
            Ok(text.to_owned())
        };
        match path.required("type")? {
            "ReplaceFullPath" => Ok(Self::Full(text("replaceFullPath")?)),
            "ReplacePrefixMatch" => Ok(Self::Prefix(text("replacePrefixMatch")?)),
            other => {
                let rule = format!("is `{other}`, and must be ReplaceFullPath or ReplacePrefixMatch");
                Err(path.fault("type", rule))
            }
        }
    }
}

impl Mirror {
    fn read(mirror: &Object<'_>, meta: &Meta) -> Result<Self, Fault> {
        mirror.only(&["backendRef", "percent", "fraction"])?;
        let target = mirror.object("backendRef", |backend| {
            backend.only(&["group", "kind", "name", "namespace", "port"])?;
            let service = ServiceName::referred(backend, &meta.namespace)?;
            Ok((service, port(backend, "port")?.ok_or_else(|| backend.fault("port", "is missing"))?))
        })?;
        let (service, port) = target.ok_or_else(|| mirror.fault("backendRef", "is missing"))?;
        let percent = mirror.number("percent", 0..=100)?;
        let fraction = mirror.object("fraction", fraction)?;
        let (numerator, denominator) = match (percent, fraction) {
            (Some(_), Some(_)) => return Err(mirror.fault("fraction", "is given together with percent")),
            (None, Some(millionths)) => (millionths, "MILLION"),
            (percent, None) => (percent.unwrap_or(100), "HUNDRED"),
        };
        Ok(Self { service, port, numerator, denominator })
    }

    fn json(&self) -> Value {
        json!({
            "cluster": self.service.cluster(self.port),
            "runtime_fraction": {
                "default_value": {"numerator": self.numerator, "denominator": self.denominator},
            },
        })
    }
}

/// A fraction, in millionths.
fn fraction(fraction: &Object<'_>) -> Result<u32, Fault> {
    fraction.only(&["numerator", "denominator"])?;
    let denominator = fraction.number("denominator", 1..=1_000_000)?.unwrap_or(100);
    let numerator = fraction.number("numerator", 0..=denominator)?;
    let numerator = numerator.ok_or_else(|| fraction.fault("numerator", "is missing"))?;
    let millionths = u64::from(numerator) * 1_000_000 / u64::from(denominator);
    Ok(u32::try_from(millionths).unwrap_or(1_000_000))
}
