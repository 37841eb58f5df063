//! Questions by HTTP: a request like the one in question.

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use mesh_core::authz::{self, Answer};
use mesh_core::model::HttpAuthz;

use super::Failure;
use crate::outbound::{HttpClient, ResponseBody};

/// So much of an answer is read: a denial is shown up to here, and no answer needs more.
const MOST_BYTES: usize = 1 << 20;

/// Asks, and reads the answer.
pub(super) async fn ask(client: &HttpClient, http: &HttpAuthz, question: Request<Bytes>) -> Result<Answer, Failure> {
    let silence = |why: String| Failure::Silence(why);
    let response = client.send(question.map(Full::new)).await.map_err(|error| silence(error.to_string()))?;
    let (head, body) = response.into_parts();
    if head.status.is_server_error() {
        return Err(silence(format!("the answer is {}", head.status)));
    }
    let body = match beginning(body).await {
        Ok(body) => body,
        // Whoever is denied is denied, whatever becomes of the text.
        Err(_) if head.status != StatusCode::OK => Bytes::new(),
        Err(why) => return Err(silence(why)),
    };
    authz::http::answer(http, head.status, &head.headers, body).map_err(silence)
}

async fn beginning(body: ResponseBody) -> Result<Bytes, String> {
    let mut body = std::pin::pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(&data[..data.len().min(MOST_BYTES - read.len())]);
        }
        if read.len() == MOST_BYTES {
            break;
        }
    }
    Ok(read.freeze())
}
