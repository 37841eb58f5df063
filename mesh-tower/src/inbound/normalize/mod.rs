//! A request in the one form that routing, filters and the application all see: one authority, one spelling of the path.
//!
//! What is ambiguous is refused here: two readers that disagree about a request are how authorization is got around.

mod authority;
mod path;

use http::request;
use mesh_core::error::{Code, Error};
use mesh_core::model::HttpConnection;

pub(crate) use authority::authority_of;

/// Brings a request into shape, or says why the client is answered 400.
pub(crate) fn normalize(request: &mut request::Parts, http: &HttpConnection, port: u16) -> Result<(), Error> {
    authority::normalize(request, http, port)?;
    path::normalize(request, http)
}

fn bad(why: &str) -> Error {
    Error::new(Code::BAD_CLIENT, why)
}
