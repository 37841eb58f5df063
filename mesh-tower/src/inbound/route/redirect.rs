//! The answer to who should have come over TLS.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode, request};
use mesh_core::error::{Code, Error};

use crate::filter::{Filter, FilterFacts, Verdict};
use crate::inbound::RequestFacts;
use crate::reply::Reply;

/// Has a request asked again in `https` (`require_tls`), at the place of the application: behind the Listener's filters, which
/// may say no before.
#[derive(Debug)]
pub(super) struct ToHttps;

impl Filter<RequestFacts> for ToHttps {
    fn on_request(&self, request: &mut request::Parts, facts: &RequestFacts) -> Verdict {
        let facts = facts.request(request);
        // Authority and path as they are: Envoy leaves even the port of plaintext in place.
        let location = format!("https://{}{}", facts.authority, facts.path);
        Verdict::Reply(Box::new(match HeaderValue::try_from(location) {
            Ok(location) => {
                let mut reply = Reply::new(StatusCode::MOVED_PERMANENTLY, "");
                reply.headers.insert(LOCATION, location);
                reply
            }
            Err(_) => Reply::of(&Error::new(Code::BAD_REQUEST, "the request's path can't be in a header")),
        }))
    }
}
