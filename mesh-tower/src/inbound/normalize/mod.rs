//! A request in the one form that routing, filters and the application all see: one authority, one spelling of the path.
//!
//! What is ambiguous is refused here: two readers that disagree about a request are how authorization is got around.

mod refusal;
mod head;
mod hop;
mod joined;
mod length;
mod origin;
mod own_address;
mod client_cert;
mod authority;
mod path;

use std::net::IpAddr;

use http::request;
use mesh_core::error::{Code, Error};
use mesh_core::model::HttpConnection;

use super::identify::PeerInfo;
pub(crate) use authority::authority_of;
pub(crate) use head::Limits;
pub(crate) use hop::{Asked, method_of, restore};
pub(crate) use length::too_long;
use origin::Origin;
pub(crate) use refusal::Refusal;

/// Brings a request into shape, or says what the client is answered in the application's place. `client` is its address as far
/// as headers that tell of it are believed.
pub(crate) fn normalize(
    request: &mut request::Parts,
    http: &HttpConnection,
    peer: &PeerInfo,
    client: IpAddr,
) -> Result<(), Box<Refusal>> {
    let options = peer.connection().slot.options();
    head::check(request, http, Limits::of(&options.limits, http))?;
    length::check(request, &options.limits)?;
    // Before anything is written: a client can have headers taken out that it names, and not ours.
    hop::normalize(request, &[&http.upgrades, &options.upgrades])?;
    joined::normalize(&mut request.headers);
    origin::normalize(request, http, Origin { peer: peer.remote_addr().ip(), client, secure: peer.is_tls() })?;
    client_cert::normalize(&mut request.headers, http.client_cert, peer.client());
    authority::normalize(request, http, peer.local_addr().port())?;
    path::normalize(request, http)
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::BAD_CLIENT, why)
}
