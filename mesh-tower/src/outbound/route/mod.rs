//! Decides on a request: virtual host, route, cluster. Once, for all its attempts.

mod future;
mod layer;
mod service;

pub(crate) use future::RouteFuture;
pub(crate) use layer::RouteLayer;
pub(crate) use service::{Route, not_found};
