//! How long a request says that its body is.

use http::header::CONTENT_LENGTH;
use http::{StatusCode, request};
use mesh_core::error::{Code, Error};

use super::Refusal;
use crate::inbound::InboundLimits;

/// Refuses a body that says itself that it is too long: nobody needs to read it in order to know. What the number says is what
/// comes: hyper holds bodies to it.
pub(super) fn check(request: &request::Parts, limits: &InboundLimits) -> Result<(), Box<Refusal>> {
    let Some(most) = limits.max_body_bytes else { return Ok(()) };
    let said = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match said {
        Some(length) if length > most => Err(Refusal::with_status(too_long(most), StatusCode::PAYLOAD_TOO_LARGE)),
        _ => Ok(()),
    }
}

/// Why a body is refused.
pub(crate) fn too_long(most: u64) -> Error {
    Error::new(Code::BAD_CLIENT, format!("the request's body is longer than {most} bytes, the server's max_body_bytes"))
}
