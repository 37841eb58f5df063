//! Ends a request whose time is up.
//!
//! It stands at two places: around everything, for limits that count from the call's beginning (gRFC A31, Envoy's
//! `max_stream_duration`); and behind the filters, for the route's timeout, which Envoy arms there.

mod future;
mod layer;
mod quiet;
mod service;

pub(crate) use future::{DeadlineFuture, over};
pub(crate) use layer::DeadlineLayer;
pub(crate) use service::{Deadline, From};
