//! A request in the one form that routing, filters and the application all see: one authority, one spelling of the path.
//!
//! What is ambiguous is refused here: two readers that disagree about a request are how authorization is got around.

mod authority;
mod client_cert;
mod origin;
mod path;

use http::request;
use mesh_core::error::{Code, Error};
use mesh_core::model::HttpConnection;

use super::identify::PeerInfo;
pub(crate) use authority::authority_of;

/// Brings a request into shape, or says why the client is answered 400.
pub(crate) fn normalize(request: &mut request::Parts, http: &HttpConnection, peer: &PeerInfo) -> Result<(), Error> {
    origin::normalize(request, http, peer.remote_addr(), peer.is_tls())?;
    client_cert::normalize(&mut request.headers, http.client_cert, peer.client());
    authority::normalize(request, http, peer.local_addr().port())?;
    path::normalize(request, http)
}

fn bad(why: &str) -> Error {
    Error::new(Code::BAD_CLIENT, why)
}
