//! The mesh, spoken in gRPC.
#![forbid(unsafe_code)]

#[cfg(feature = "control")]
pub mod control;
