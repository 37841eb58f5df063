//! How a client treats requests where the configuration has no word.

use std::time::Duration;

use super::OutboundFilters;

/// How a client treats requests where the configuration has no word.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundOptions {
    /// Targets in use at the same time: 1,024 by default. A client for any host takes its targets from requests, and those
    /// may name hosts that a stranger made up.
    pub max_targets: usize,
    /// How long a target that no request asks for is kept: 5 min by default.
    pub target_idle: Duration,
    /// How many bytes of a request's body are kept for another attempt: 64 KiB by default. A longer request is not tried
    /// again.
    pub replay_bytes: usize,
    /// The HTTP filters that can be applied; fault injection and CORS by default.
    pub filters: OutboundFilters,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            max_targets: 1024,
            target_idle: Duration::from_secs(300),
            replay_bytes: 64 * 1024,
            filters: OutboundFilters::standard(),
        }
    }
}
