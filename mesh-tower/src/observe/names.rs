//! OpenTelemetry's names for what we state: methods, statuses, addresses. One vocabulary; others will be rows beside it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use mesh_core::error::Error;
use mesh_core::policy::grpc::GrpcStatus;
use opentelemetry::KeyValue;
use opentelemetry::trace::Status;

/// What stands for every name beyond the bound.
pub(super) const OTHER: &str = "_OTHER";

/// Names longer than this come from nobody honest and are not kept.
pub(super) const LONGEST: usize = 256;

/// Which end of the request we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Client,
    Server,
}

/// `http.request.method`: one of the methods OpenTelemetry knows, else [`OTHER`].
pub(super) fn http_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "PATCH" => "PATCH",
        "QUERY" => "QUERY",
        _ => OTHER,
    }
}

/// `rpc.method`: `package.Service/Method` of a gRPC request's path; [`OTHER`] if it is not one.
pub(super) fn rpc_method(path: &str) -> &str {
    let method = path.strip_prefix('/').unwrap_or(OTHER);
    let well_formed = method
        .split_once('/')
        .is_some_and(|(service, name)| !service.is_empty() && !name.is_empty() && !name.contains(['/', '?']));
    if well_formed && method.len() <= LONGEST { method } else { OTHER }
}

/// What a span's name begins with in gRPC (gRFC A72).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    Sent,
    Attempt,
    Recv,
}

/// A gRPC span's name, `Sent.package.Service.Method`.
pub(super) fn rpc_span(prefix: Prefix, method: &str) -> String {
    let prefix = match prefix {
        Prefix::Sent => "Sent",
        Prefix::Attempt => "Attempt",
        Prefix::Recv => "Recv",
    };
    format!("{prefix}.{}", method.replace('/', "."))
}

/// An HTTP span's name, as long as the route is not known.
pub(super) fn http_span(method: &'static str) -> &'static str {
    if method == OTHER { "HTTP" } else { method }
}

/// An HTTP span's name, once the route is known.
pub(super) fn routed(method: &str, route: &str) -> String {
    format!("{} {route}", if method == OTHER { "HTTP" } else { method })
}

/// What an HTTP request's span says of the request. The query stays out: it may hold secrets.
pub(super) fn http_request(method: &Method, path: &str) -> Vec<KeyValue> {
    let known = http_method(method);
    let path = path.split_once('?').map_or(path, |(path, _)| path).to_owned();
    let mut attributes = vec![KeyValue::new("http.request.method", known), KeyValue::new("url.path", path)];
    if known == OTHER {
        attributes.push(KeyValue::new("http.request.method_original", method.as_str().to_owned()));
    }
    attributes
}

/// `name` for the rest of the process, so that spans of calls that are not sampled cost no string.
///
/// The first 1,000 names are kept, for all meshes of the process together; others stay strings.
pub(super) fn intern(name: String) -> Cow<'static, str> {
    const MOST: usize = 1000;
    static NAMES: LazyLock<ArcSwap<HashSet<&'static str>>> = LazyLock::new(ArcSwap::default);

    let names = NAMES.load();
    if let Some(kept) = names.get(name.as_str()) {
        return Cow::Borrowed(kept);
    }
    if names.len() >= MOST || name.len() > 2 * LONGEST {
        return Cow::Owned(name);
    }
    drop(names);
    let kept: &'static str = Box::leak(name.into_boxed_str());
    NAMES.rcu(|names| {
        let mut names = HashSet::clone(names);
        names.insert(kept);
        names
    });
    Cow::Borrowed(kept)
}

/// `server.address` and, where `target` ends in one, `server.port`.
pub(super) fn server(target: &str) -> Vec<KeyValue> {
    let port = target.rsplit_once(':').and_then(|(host, port)| {
        let whole = !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
        let port = port.parse::<u16>().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        whole.then_some((host, port))
    });
    match port {
        Some((host, port)) => {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            vec![KeyValue::new("server.address", host), KeyValue::new("server.port", i64::from(port))]
        }
        None => vec![KeyValue::new("server.address", target.to_owned())],
    }
}

/// The name of a gRPC status code; numbers that nobody has named are UNKNOWN, as gRPC's libraries have it.
pub(super) fn grpc_status(status: GrpcStatus) -> &'static str {
    status.name().unwrap_or("UNKNOWN")
}

/// How something ended, reduced to what a series is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    status: Option<StatusCode>,
    grpc: Option<GrpcStatus>,
    code: Option<mesh_core::error::Code>,
    cancelled: bool,
}

impl Outcome {
    pub(super) const CANCELLED: Self = Self { status: None, grpc: None, code: None, cancelled: true };

    pub(super) fn new(status: Option<StatusCode>, grpc: Option<GrpcStatus>, error: Option<&Error>) -> Self {
        // A peer may send any number; the ones without a name must not make series.
        let status = status.filter(|status| (100..600).contains(&status.as_u16()));
        let grpc = grpc.map(|status| if status.0 > 16 { GrpcStatus::UNKNOWN } else { status });
        Self { status, grpc, code: error.map(Error::code), cancelled: false }
    }

    /// Its attributes, on spans and series alike.
    pub(super) fn attributes(self, side: Side, grpc: bool) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(2);
        if !grpc {
            attributes.extend(
                self.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status.as_u16()))),
            );
        } else if let Some(status) = self.rpc_status() {
            attributes.push(KeyValue::new("rpc.response.status_code", grpc_status(status)));
        }
        attributes.extend(self.error_type(side, grpc).map(|kind| KeyValue::new("error.type", kind)));
        attributes
    }

    fn rpc_status(self) -> Option<GrpcStatus> {
        if self.cancelled { Some(GrpcStatus::CANCELLED) } else { self.grpc }
    }

    /// `error.type`: our code if the mesh failed it, else the peer's status where that is an error for this side.
    fn error_type(self, side: Side, grpc: bool) -> Option<Cow<'static, str>> {
        if self.cancelled {
            return Some(Cow::Borrowed("cancelled"));
        }
        if let Some(code) = self.code {
            return Some(Cow::Owned(code.to_string()));
        }
        if grpc {
            return self.grpc.filter(|&status| is_rpc_error(side, status)).map(|status| grpc_status(status).into());
        }
        let from = if side == Side::Client { 400 } else { 500 };
        let status = self.status.filter(|status| status.as_u16() >= from)?;
        Some(Cow::Owned(status.as_str().to_owned()))
    }

    /// Whether it is no error for this side.
    pub(super) fn is_well(self, side: Side, grpc: bool) -> bool {
        self.error_type(side, grpc).is_none()
    }

    /// A span's status; `message` is the error's text. An HTTP span that went well stays unset, a gRPC one is OK (A72).
    pub(super) fn span_status(self, side: Side, grpc: bool, message: &str) -> Status {
        if self.error_type(side, grpc).is_none() {
            return if grpc { Status::Ok } else { Status::Unset };
        }
        match self.rpc_status().filter(|_| grpc) {
            Some(status) if message.is_empty() => Status::error(grpc_status(status)),
            Some(status) => Status::error(format!("{}, {message}", grpc_status(status))),
            None => Status::error(message.to_owned()),
        }
    }
}

/// A server is not at fault for what its client asked wrongly (OpenTelemetry's rules for gRPC).
fn is_rpc_error(side: Side, status: GrpcStatus) -> bool {
    match side {
        Side::Client => status != GrpcStatus::OK,
        Side::Server => matches!(status.0, 2 | 4 | 12 | 13 | 14 | 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_method_is_a_service_and_a_name() {
        assert_eq!(rpc_method("/pkg.Greeter/SayHello"), "pkg.Greeter/SayHello");
        for path in ["", "/", "/a", "/a/", "//b", "/a/b/c", "a/b", "/a/b?c", &format!("/a/{}", "b".repeat(300))] {
            assert_eq!(rpc_method(path), OTHER, "{path}");
        }
    }

    #[test]
    fn an_address_is_split_from_its_port() {
        let of = |target| server(target).iter().map(|pair| pair.value.to_string()).collect::<Vec<_>>();
        assert_eq!(of("reviews:9080"), ["reviews", "9080"]);
        assert_eq!(of("[::1]:80"), ["::1", "80"]);
        assert_eq!(of("::1"), ["::1"]);
        assert_eq!(of("reviews"), ["reviews"]);
        assert_eq!(of("xds:///reviews:9080"), ["xds:///reviews:9080"]);
        assert_eq!(of("reviews:+80"), ["reviews:+80"]);
    }

    #[test]
    fn a_wrong_question_is_the_clients_error_and_not_the_servers() {
        let not_found = Outcome::new(Some(StatusCode::NOT_FOUND), None, None);
        assert_eq!(not_found.error_type(Side::Client, false).as_deref(), Some("404"));
        assert_eq!(not_found.error_type(Side::Server, false), None);
        let not_found = Outcome::new(Some(StatusCode::OK), Some(GrpcStatus(5)), None);
        assert_eq!(not_found.error_type(Side::Client, true).as_deref(), Some("NOT_FOUND"));
        assert_eq!(not_found.error_type(Side::Server, true), None);
    }

    #[test]
    fn numbers_without_a_name_make_no_series() {
        let strange = Outcome::new(StatusCode::from_u16(777).ok(), Some(GrpcStatus(99)), None);
        assert_eq!(strange, Outcome::new(None, Some(GrpcStatus::UNKNOWN), None));
    }
}
