//! Chooses an endpoint for each attempt, among those that can take it now, and waits where there may be one soon.

mod choice;
mod future;
mod layer;
mod service;
mod wire;

pub(crate) use future::{PickFuture, auto_host};
pub(crate) use layer::PickLayer;
pub(crate) use service::Pick;
pub(crate) use wire::Wire;
