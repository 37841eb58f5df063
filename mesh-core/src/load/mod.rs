//! Load: what endpoints say of theirs, and what our requests come to.
//!
//! A [`LoadReport`] is what a backend says with a response (ORCA, gRFC A51). A [`LocalityLoad`] counts the requests to one
//! locality of a cluster and sums up their reports: with atomics, on a request's way. The [`LoadStore`] holds what is counted
//! for each control plane that asked for it; [`lrs`](crate::lrs) sends it there. What endpoints say
//! on streams of their own is asked for by [`orca`](crate::orca).

mod counters;
mod headers;
mod recorded;
mod report;
mod store;
pub(crate) mod wire;
#[cfg(test)]
mod tests;

pub use counters::{ClusterLoad, LocalityLoad, Outcome};
pub use headers::LOAD_REPORT;
pub use recorded::Load;
pub use report::{LoadReport, NamedValues};
pub use store::{ClusterCounts, ClusterKey, LoadLease, LoadStore, LocalityCounts, Selection, Summed};
