//! `DirectResponseAction`, as Envoy checks it.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::config::route::v3 as pb;
use http::StatusCode;

use crate::decode::at::At;
use crate::model::{Action, DirectResponse};

/// Whoever writes routes could read this process's secrets by asking for them.
const ELSEWHERE: &str = "is not read: a route must not answer with what this process can read; put the body inline";

/// A fixed response.
pub(super) fn direct_response(value: pb::DirectResponseAction, max_body: u32, at: &At<'_>) -> Action {
    at.all_fail_requests(&[("body_format", value.body_format.is_some())]);
    let status = status(value.status, &at.field("status"));
    let body = value.body.map(|body| body_of(body, max_body, &at.field("body"))).unwrap_or_default();
    Action::Direct(DirectResponse { status, body })
}

fn status(value: u32, at: &At<'_>) -> StatusCode {
    let known = u16::try_from(value).ok().filter(|code| (200..600).contains(code));
    match known.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status) => status,
        None => {
            at.fault("must be from 200 to 599");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn body_of(value: DataSource, max_body: u32, at: &At<'_>) -> Bytes {
    let bytes = match value.specifier {
        Some(Specifier::InlineString(text)) => Bytes::from(text),
        Some(Specifier::InlineBytes(bytes)) => Bytes::from(bytes),
        Some(Specifier::Filename(_)) => {
            at.field("filename").fault(ELSEWHERE);
            Bytes::new()
        }
        Some(Specifier::EnvironmentVariable(_)) => {
            at.field("environment_variable").fault(ELSEWHERE);
            Bytes::new()
        }
        None => {
            at.fault("does not say where it is");
            Bytes::new()
        }
    };
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > u64::from(max_body) {
        at.fault(format!("has more than the {max_body} bytes of max_direct_response_body_size_bytes"));
    }
    bytes
}
