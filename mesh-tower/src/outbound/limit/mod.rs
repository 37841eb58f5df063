//! Lets through as much load as the cluster takes: drops, then the circuit breaker (gRFC A32).

mod future;
mod layer;
mod service;

pub(crate) use future::LimitFuture;
pub(crate) use layer::LimitLayer;
pub(crate) use service::Limit;
