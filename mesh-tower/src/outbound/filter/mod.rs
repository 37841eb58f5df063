//! Runs the Listener's HTTP filters, with the route's overrides, in the Listener's order (gRFC A39).

mod future;
mod layer;
mod service;

pub(crate) use future::FilterFuture;
pub(crate) use layer::FilterLayer;
pub(crate) use service::Filter;
