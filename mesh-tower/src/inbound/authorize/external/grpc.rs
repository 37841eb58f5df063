//! Questions by gRPC: one message there, one back.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderName, HeaderValue, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use mesh_core::authz::{self, Answer};
use mesh_core::model::AuthzService;
use mesh_core::policy::deadline::format_grpc_timeout;
use mesh_core::policy::grpc::GrpcStatus;

use super::Failure;
use crate::outbound::HttpClient;

/// gRPC's bound for a message.
const MOST_BYTES: usize = 4 << 20;
/// A flag and a length stand before a message.
const PREFIX: usize = 5;

/// Asks, and reads the answer.
pub(super) async fn ask(
    client: &HttpClient,
    service: &AuthzService,
    metadata: &[(HeaderName, HeaderValue)],
    question: &[u8],
) -> Result<Answer, Failure> {
    let silence = |why: String| Failure::Silence(why);
    let request = request(service, metadata, question).map_err(|error| silence(error.to_string()))?;
    let response = client.send(request).await.map_err(|error| silence(error.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(silence(format!("the answer is {}", response.status())));
    }
    let in_head = GrpcStatus::of(response.headers());
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| silence(error.to_string()))?;
    let in_trailers = body.trailers().and_then(GrpcStatus::of);
    match in_trailers.or(in_head) {
        Some(GrpcStatus::OK) => {}
        Some(status) => return Err(silence(format!("the call ends with {status:?}"))),
        None => return Err(silence("the call ends without a status".to_owned())),
    }
    let message = unframed(&body.to_bytes()).ok_or_else(|| Failure::Nonsense("it is no message".to_owned()))?;
    authz::answer(&message).map_err(Failure::Nonsense)
}

fn request(
    service: &AuthzService,
    metadata: &[(HeaderName, HeaderValue)],
    question: &[u8],
) -> http::Result<Request<Full<Bytes>>> {
    let mut framed = BytesMut::with_capacity(PREFIX + question.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(question.len()).unwrap_or(u32::MAX));
    framed.put_slice(question);
    let mut request = Request::post(authz::CHECK)
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header("grpc-timeout", format_grpc_timeout(service.timeout));
    for (name, value) in metadata {
        request = request.header(name, value);
    }
    request.body(Full::new(framed.freeze()))
}

/// The one message of a body, which is not compressed: we have not said that it may be.
fn unframed(body: &Bytes) -> Option<Bytes> {
    let (prefix, rest) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let whole = prefix[0] == 0 && usize::try_from(length) == Ok(rest.len());
    whole.then(|| body.slice(PREFIX..))
}
