//! The load reporting service, client side (`spec` section 2.14; gRFCs A27, A47, A64, A85).
//!
//! Each control plane that a cluster with `lrs_server.self` came from gets one stream for as long as any such cluster is in
//! use. [`Reporter`] is the stream's protocol, without I/O; what it reports is counted in the
//! [`LoadStore`](crate::load::LoadStore). [`Driver`] moves the bytes over a
//! [`ControlTransport`](crate::ads::ControlTransport).

mod message;
mod reporter;
mod driver;
#[cfg(test)]
mod tests;

pub use driver::Driver;
pub use reporter::{Action, Reporter};

/// The method of load reporting.
pub const STREAM_LOAD_STATS: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
