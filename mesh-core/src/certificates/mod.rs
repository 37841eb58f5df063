//! Where certificates come from over a connection: SDS, the SPIFFE Workload API, and Istio's CA.
//!
//! Each is a [`CertificateSource`](crate::identity::CertificateSource) for whoever makes handshakes, and a future that keeps it
//! fresh: the configuration thread's work in the background. Keys stay in this process. What a source is told goes into
//! [`Slot`](crate::identity::Slot)s, which hold on to the last good material whatever happens to the connection.

mod call;
mod sds;
mod spiffe;
mod istio;
#[cfg(test)]
mod tests;

pub use istio::{IstioCa, MakeRequest, SigningRequest};
pub use sds::{Sds, SdsRun};
pub use spiffe::Spiffe;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::ads::{ControlTransport, Settings};
use crate::bootstrap::Node;
use crate::event::EventSink;
use crate::identity::PairCheck;

/// What every such source needs of its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// How servers are reached.
    pub transport: Arc<dyn ControlTransport>,
    /// Who we are to them.
    pub node: Node,
    /// How an xDS client behaves; of it the backoff is everyone's.
    pub settings: Settings,
    /// Whether a key belongs to a certificate.
    pub pair: PairCheck,
    /// Who is told of trouble.
    pub events: Arc<dyn EventSink>,
    /// All the randomness.
    pub seed: u64,
    /// The time on the wall, which certificates are good or bad by.
    pub clock: fn() -> SystemTime,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("seed", &self.seed).finish_non_exhaustive()
    }
}
