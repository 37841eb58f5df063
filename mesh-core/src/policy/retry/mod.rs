//! Whether to try again, when, and how often (gRFC A44 on A6; Envoy's retry policy for HTTP).
//!
//! An [`Attempts`] follows one call: it is told how each attempt ended and answers with [`Next`]. Before another attempt
//! starts, the cluster's [`Budget`] must agree.

mod attempts;
mod backoff;
mod budget;
mod classify;
mod hosts;
#[cfg(test)]
mod tests;

pub use attempts::{Attempts, Next, Now, Stop};
pub use backoff::{grpc_backoff, http_backoff, reset_delay};
pub use budget::{Budget, RetryPermit};
pub use classify::{Failure, Outcome, grpc_status_of, is_grpc_retriable, is_http_retriable};
pub use hosts::{omits, previous_priorities};
