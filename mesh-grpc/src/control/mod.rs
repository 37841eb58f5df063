//! The local control plane: serves resources over real ADS to any xDS client, and issues development certificates.
//!
//! It is what a laptop, a test and a CI job use in the place of istiod. It is also the test double of the mesh: it records
//! all that clients say, and can be told to fail in every way in which control planes fail (see [`Faults`]).
//!
//! It speaks plaintext and asks nobody who they are: for development, on loopback.
//!
//! In the order of an update's way: what is served ([`ControlPlane`]), how it is listened for (`door`), one HTTP/2 request
//! (`grpc`), one stream (`conversation`, or `load` for load reports), and what is remembered of it ([`Event`]).

mod plane;
mod faults;
mod invalid;
mod door;
mod grpc;
mod conversation;
mod load;
mod registry;
mod log;
mod bootstrap;
mod certificates;

#[cfg(test)]
mod tests;

pub use bootstrap::DevBootstrap;
pub use certificates::{DevCa, DevCertificates, Workload};
pub use faults::Faults;
pub use load::{LoadReport, LocalityReport};
pub use log::{Event, Events, Request, Response, Verdict, What};
pub use plane::{Builder, ControlPlane};
pub use registry::StreamInfo;
