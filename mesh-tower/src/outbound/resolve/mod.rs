//! From a request to its target's configuration: found by authority or fixed, waited for on first use.

mod future;
mod layer;
mod service;

pub(crate) use future::ResolveFuture;
pub(crate) use layer::ResolveLayer;
pub(crate) use service::{Resolve, Way};
