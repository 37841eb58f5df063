//! Makes a call's attempts: one, or more where the route's policy says so or the request provably never arrived.
//!
//! Where no policy is set nothing of the request is kept, and nothing is allocated for it (`outbound::tests::allocating`).

mod future;
mod hedged;
mod in_turn;
mod layer;
mod plan;
mod service;

pub(crate) use layer::RetryLayer;
pub(crate) use service::Retry;
