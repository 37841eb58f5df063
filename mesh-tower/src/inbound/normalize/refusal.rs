//! What a client is answered whose request goes no further.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use mesh_core::error::Error;

use super::bad;
use crate::reply::Reply;

/// An answer in the application's place, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) why: Error,
    pub(crate) reply: Reply,
}

impl Refusal {
    /// With another status than the error's own.
    pub(super) fn with_status(why: Error, status: StatusCode) -> Box<Self> {
        let mut reply = Reply::of(&why);
        reply.status = status;
        Box::new(Self { why, reply })
    }

    /// The client is to ask for another path.
    pub(super) fn redirect(path: &str) -> Box<Self> {
        let why = bad("the path holds escaped slashes: the client is sent to the path without");
        let Ok(location) = HeaderValue::try_from(path) else { return why.into() };
        let mut reply = Reply::new(StatusCode::TEMPORARY_REDIRECT, "");
        reply.headers.insert(LOCATION, location);
        Box::new(Self { why, reply })
    }
}

impl From<Error> for Box<Refusal> {
    fn from(why: Error) -> Self {
        let reply = Reply::of(&why);
        Box::new(Refusal { why, reply })
    }
}
