//! What the mesh itself answers: a plain HTTP error, or the same in gRPC's way. Neither tells a client about configuration.

#[cfg(feature = "server")]
mod body;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use mesh_core::error::{Code, Error};

#[cfg(feature = "server")]
pub use body::ReplyBody;

/// The response header with the code of the error that the mesh answered with: `MESH-202`.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-mesh-code");

/// An answer that the mesh gives in the application's place.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status; gRPC clients see [`grpc_status`](Self::grpc_status) instead.
    pub status: StatusCode,
    /// The gRPC status: by default what gRPC's table makes of the HTTP status.
    pub grpc_status: Option<u8>,
    /// The text: the body in HTTP (none if it is empty), `grpc-message` in gRPC. The client sees it.
    pub message: String,
    /// Headers to add.
    pub headers: HeaderMap,
    /// A body in place of the text, byte by byte; none by default, and none in gRPC.
    pub body: Option<Bytes>,
}

impl Reply {
    /// An answer of this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, grpc_status: None, message: message.into(), headers: HeaderMap::new(), body: None }
    }

    /// What a client is told of `error`: its code and what the code means. The rest is for the log.
    pub fn of(error: &Error) -> Self {
        let code = error.code();
        let (status, grpc_status) = statuses(code);
        let mut reply = Self::new(status, format!("{code}: {}", code.meaning()));
        reply.grpc_status = Some(grpc_status);
        if let Ok(value) = HeaderValue::try_from(code.to_string()) {
            reply.headers.insert(ERROR_HEADER, value);
        }
        reply
    }

    /// As a response; in gRPC's way for a gRPC request.
    pub(crate) fn into_response(self, grpc: bool) -> Response<Bytes> {
        let grpc_status = self.grpc_status.unwrap_or_else(|| from_http(self.status));
        let mut response = Response::new(Bytes::new());
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        if grpc {
            // Trailers-only: the head is the trailers.
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(u16::from(grpc_status)));
            if let Ok(message) = HeaderValue::try_from(percent_encode(&self.message)) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        if let Some(body) = self.body {
            if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            }
            *response.body_mut() = body;
        } else if !self.message.is_empty() {
            let mut message = self.message;
            // What has a type of its own is not text for people: not a byte is added.
            if !headers.contains_key(CONTENT_TYPE) {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                message.push('\n');
            }
            *response.body_mut() = Bytes::from(message);
        }
        *response.status_mut() = self.status;
        response
    }
}

const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// The HTTP and gRPC statuses of a code.
fn statuses(code: Code) -> (StatusCode, u8) {
    match code {
        // gRFC A36: no virtual host, no route and a wrong action are UNAVAILABLE. Envoy answers 404 to the first two.
        Code::NO_ROUTE | Code::NO_VIRTUAL_HOST => (StatusCode::NOT_FOUND, UNAVAILABLE),
        Code::ACCESS_DENIED => (StatusCode::FORBIDDEN, PERMISSION_DENIED),
        // gRFC A41: INTERNAL where HTTP has 400.
        Code::BAD_CLIENT | Code::BAD_REQUEST => (StatusCode::BAD_REQUEST, INTERNAL),
        Code::DEADLINE | Code::ATTEMPT_TIMEOUT | Code::CONNECTION_TIMEOUT => {
            (StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED)
        }
        Code::HANDLER_FAILED | Code::FILTER_FAILED | Code::INTERNAL => (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL),
        _ => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
    }
}

/// gRPC's table from HTTP statuses, which every client applies to answers without `grpc-status`.
fn from_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => PERMISSION_DENIED,
        404 => 12,
        429 | 502..=504 => UNAVAILABLE,
        _ => 2,
    }
}

/// `grpc-message`: printable ASCII except `%`, everything else percent-encoded.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_gets_trailers_only() {
        let error = Error::new(Code::NO_ROUTE, "secret: vhost `internal`");
        let response = Reply::of(&error).into_response(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["x-mesh-code"], "MESH-202");
        assert!(!response.headers()["grpc-message"].to_str().unwrap().contains("secret"));
        assert!(response.body().is_empty());
    }

    #[test]
    fn an_http_client_gets_a_status_and_text() {
        let error = Error::new(Code::NO_ROUTE, "secret: vhost `internal`");
        let response = Reply::of(&error).into_response(false);
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["x-mesh-code"], "MESH-202");
        let text = std::str::from_utf8(response.body()).unwrap();
        assert!(text.starts_with("MESH-202") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_message_survives_its_way() {
        assert_eq!(percent_encode("a b%ü\n"), "a b%25%C3%BC%0A");
        let reply = Reply { grpc_status: Some(7), ..Reply::new(StatusCode::IM_A_TEAPOT, "no") };
        assert_eq!(reply.into_response(true).headers()["grpc-status"], "7");
        assert_eq!(Reply::new(StatusCode::FORBIDDEN, "no").into_response(true).headers()["grpc-status"], "7");
    }
}
