//! What the mesh knows and decides.
//!
//! Two paths run through this crate, and its modules are listed in their order.
//!
//! A configuration update:
//!
//! ```text
//! bootstrap -> source (ADS | file | memory) -> ads -> decode -> graph -> snapshot -> publish
//! ```
//!
//! A request, as pure decisions:
//!
//! ```text
//! target -> route -> policy -> balance -> identity        (inbound: chain -> route -> policy)
//! ```
//!
//! There is no Tower here, no clock and no TLS library: time is an argument, randomness is injected, and I/O happens
//! only in [`bootstrap`], in [`source`], in `ads::driver`, in [`dns`], in `lrs::driver`, in [`certificates`] and in `identity::file_watcher`.
#![forbid(unsafe_code)]

pub mod model;
pub mod resource;

// -- a configuration update's way --

pub mod bootstrap;
pub mod source;
pub mod ads;
pub mod decode;
pub mod dns;
pub mod graph;
pub mod snapshot;
pub mod publish;
pub mod config;
pub mod lrs;
pub mod orca;
pub mod certificates;
pub mod authz;

// -- a request's way --

pub mod target;
pub mod route;
pub mod policy;
pub mod balance;
pub mod load;
pub mod chain;
pub mod identity;

// -- for everyone --

pub mod error;
pub mod event;
pub mod status;
mod line;
mod planted;
