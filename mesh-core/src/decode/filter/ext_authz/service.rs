//! Who is asked, and how.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3::{GrpcService, HeaderValue as PbHeaderValue, HttpUri};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as pb;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue};

use super::{refuse, strings};
use crate::decode::at::At;
use crate::decode::route::mutable_name;
use crate::decode::value::{header_name, positive_duration};
use crate::model::{AuthzPath, AuthzService, AuthzTransport, HttpAuthz};
use crate::route::format;

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Where the cluster's name is no authority.
const NO_AUTHORITY: Authority = Authority::from_static("ext-authz");

/// Stands where a fault has been told.
pub(super) fn nobody() -> AuthzService {
    let transport = AuthzTransport::Grpc { metadata: Vec::new() };
    AuthzService { cluster: "".into(), authority: NO_AUTHORITY, timeout: TIMEOUT, transport }
}

/// A cluster's name may be anything: the server is found by the cluster.
fn authority_of(cluster: &str) -> Authority {
    cluster.parse().unwrap_or(NO_AUTHORITY)
}

/// `GrpcService`.
pub(super) fn grpc(value: &GrpcService, at: &At<'_>) -> Option<AuthzService> {
    refuse(&[("retry_policy", value.retry_policy.is_some())], at);
    let metadata = value.initial_metadata.iter().enumerate();
    let metadata = metadata.filter_map(|(index, value)| header(value, &at.item("initial_metadata", index))).collect();
    let timeout = positive_duration(value.timeout.as_ref(), &at.field("timeout")).unwrap_or(TIMEOUT);
    match &value.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => {
            let here = at.field("envoy_grpc");
            refuse(&[("retry_policy", envoy.retry_policy.is_some())], &here);
            if envoy.cluster_name.is_empty() {
                here.field("cluster_name").fault("is empty");
            }
            let said = (!envoy.authority.is_empty()).then(|| envoy.authority.parse());
            if said.as_ref().is_some_and(Result::is_err) {
                here.field("authority").fault("is no authority");
            }
            Some(AuthzService {
                cluster: envoy.cluster_name.clone().into(),
                authority: said.and_then(Result::ok).unwrap_or_else(|| authority_of(&envoy.cluster_name)),
                timeout,
                transport: AuthzTransport::Grpc { metadata },
            })
        }
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            at.field("google_grpc")
                .fault("is not supported: whom a process may ask beside the mesh is not the control plane's");
            None
        }
        None => {
            at.fault("must have envoy_grpc");
            None
        }
    }
}

fn header(value: &PbHeaderValue, at: &At<'_>) -> Option<(HeaderName, HeaderValue)> {
    let name = header_name(&value.key, &at.field("key"));
    let parsed = HeaderValue::try_from(&value.value).ok();
    if parsed.is_none() {
        at.field("value").fault("is not the value of a header");
    }
    name.zip(parsed)
}

/// `HttpService`.
pub(super) fn http(value: &pb::HttpService, at: &At<'_>) -> Option<AuthzService> {
    refuse(&[("retry_policy", value.retry_policy.is_some())], at);
    let (cluster, timeout) = server(value.server_uri.as_ref(), &at.field("server_uri"))?;
    let request = value.authorization_request.clone().unwrap_or_default();
    let of_request = at.field("authorization_request");
    let add = request.headers_to_add.iter().enumerate();
    let response = value.authorization_response.clone().unwrap_or_default();
    let here = at.field("authorization_response");
    let of = |list, name: &str| strings(list, &here.field(name));
    let transport = HttpAuthz {
        path: path(value, at),
        headers_to_add: add
            .filter_map(|(index, value)| added(value, &of_request.item("headers_to_add", index)))
            .collect(),
        upstream: of(response.allowed_upstream_headers.as_ref(), "allowed_upstream_headers").unwrap_or_default(),
        upstream_append: of(response.allowed_upstream_headers_to_append.as_ref(), "allowed_upstream_headers_to_append")
            .unwrap_or_default(),
        client: of(response.allowed_client_headers.as_ref(), "allowed_client_headers"),
        client_on_success: of(response.allowed_client_headers_on_success.as_ref(), "allowed_client_headers_on_success")
            .unwrap_or_default(),
        metadata: of(response.dynamic_metadata_from_headers.as_ref(), "dynamic_metadata_from_headers")
            .unwrap_or_default(),
    };
    Some(AuthzService {
        authority: authority_of(&cluster),
        cluster: cluster.into(),
        timeout,
        transport: AuthzTransport::Http(Box::new(transport)),
    })
}

/// The host and the path of the URI are nobody's, in Envoy, too: what is asked is a request like the one in question.
fn server(value: Option<&HttpUri>, at: &At<'_>) -> Option<(String, Duration)> {
    let Some(value) = value else {
        at.fault("is missing");
        return None;
    };
    if value.uri.is_empty() {
        at.field("uri").fault("is empty");
    }
    let HttpUpstreamType::Cluster(cluster) =
        value.http_upstream_type.clone().unwrap_or_else(|| HttpUpstreamType::Cluster(String::new()));
    if cluster.is_empty() {
        at.field("cluster").fault("is empty");
    }
    if value.timeout.is_none() {
        at.field("timeout").fault("is missing");
    }
    Some((cluster, positive_duration(value.timeout.as_ref(), &at.field("timeout")).unwrap_or(TIMEOUT)))
}

fn path(value: &pb::HttpService, at: &At<'_>) -> AuthzPath {
    let check = |text: &str, name: &str| {
        if !text.starts_with('/') || PathAndQuery::try_from(text).is_err() {
            at.field(name).fault("must be a path that begins with `/`");
        }
    };
    match (&*value.path_prefix, &*value.path_override) {
        ("", "") => AuthzPath::Same,
        (prefix, "") => {
            check(prefix, "path_prefix");
            AuthzPath::Prefix(prefix.to_owned())
        }
        ("", path) => {
            check(path, "path_override");
            AuthzPath::Override(path.to_owned())
        }
        (_, path) => {
            at.field("path_override").fault("must not be there beside path_prefix");
            AuthzPath::Override(path.to_owned())
        }
    }
}

/// A format that cannot be computed would tell the server something else.
fn added(value: &PbHeaderValue, at: &At<'_>) -> Option<(HeaderName, HeaderValue)> {
    if !value.raw_value.is_empty() {
        at.field("raw_value").fault("is not supported; give value");
    }
    let name = mutable_name(&value.key, &at.field("key"))?;
    let parsed = HeaderValue::try_from(&value.value).ok().filter(|value| format::check(value).is_ok());
    if parsed.is_none() {
        at.field("value").fault("is not the value of a header, or a format with a command that is not known here");
    }
    Some((name, parsed?))
}
