//! Does what the route says where Envoy's router filter would: answers itself, or rewrites the request and lets it go; and
//! changes the response on its way back.

mod answer;
mod future;
mod layer;
mod request;
mod service;

pub(crate) use layer::ShapeLayer;
pub(crate) use request::set_authority;
pub(crate) use service::Shape;
