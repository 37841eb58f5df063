//! Which route a request takes: virtual host, then route, then cluster; and why.
//!
//! ```text
//! authority -> host -> (path index) -> matcher -> decide -> Decision -> { mutate, rewrite, hash } or { redirect }
//! ```
//!
//! A [`RouteIndex`] is built from a [`RouteTable`](crate::model::RouteTable) on the configuration thread. Requests read it
//! without a lock, and deciding allocates nothing. [`RouteIndex::explain`] runs the same code with an observer that is
//! told of every route tried.

pub mod facts;
pub mod format;
pub mod hash;
pub mod matcher;
pub mod mutate;
pub mod query;
pub mod redirect;
pub mod rewrite;

mod decide;
mod explain;
mod host;
mod index;
mod paths;
mod prefix;
mod words;
#[cfg(test)]
mod tests;

pub use decide::{ChosenCluster, Decision, NoDecision, WeightedPick};
pub use explain::{Explanation, Tried};
pub use facts::{RequestFacts, TlsFacts};
pub use host::without_port;
pub use index::RouteIndex;
pub use matcher::{Binary, Mismatch};
