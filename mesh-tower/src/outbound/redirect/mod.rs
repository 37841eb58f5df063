//! Follows redirects where the route says so (Envoy's internal redirects): what comes back from here is no response then, but a
//! request that goes on, and `route` decides on it anew.
//!
//! It sits where Envoy's router does: below rewrites and mutations of requests, which stay with the request, and below those of
//! responses, which a redirect that is followed does not pass.

mod future;
mod layer;
mod service;

pub(crate) use layer::RedirectLayer;
pub(crate) use service::Redirect;

use http::Request;
use mesh_core::policy::internal_redirect::Trail;

use crate::body::MeshBody;

/// A request that goes on to where a redirect points.
pub(crate) struct Onward {
    pub(crate) request: Request<MeshBody>,
    pub(crate) trail: Box<Trail>,
    /// Whether the URL it goes on to has `https` in it, on a connection that is ours to make.
    pub(crate) https: bool,
    /// What the policy judged the new route by: other dice may have it go by another one.
    pub(crate) dice: u64,
}
