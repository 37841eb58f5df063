//! Placeholder.

#[cfg(feature = "server")]
pub mod inbound;
