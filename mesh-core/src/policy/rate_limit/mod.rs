//! How many requests are let through (Envoy's local rate limit): token buckets for all, and for those that are described so.
//!
//! [`describe`] says what a request is, a [`Limiter`] whether there is a token for it. A bucket per peer identity is a
//! descriptor with an open value: `generic_key` with `%DOWNSTREAM_PEER_URI_SAN%`, so that one tenant can't starve another.

mod bucket;
mod descriptor;
mod limiter;
#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use descriptor::{Descriptor, Rules, describe};
pub use limiter::{Judgement, Left, Limiter};
