//! Weights from the endpoints' own load reports, as configuration (gRFC A58).

use std::sync::Arc;
use std::time::Duration;

use super::{Candidate, Picker, PolicyConfig, RoundRobinConfig};

/// `load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin`.
///
/// Until endpoints report load there are no weights, and the gRFC asks for round robin then. This version makes
/// no weights of the reports yet, so that is all it does.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSideWrrConfig {
    /// `enable_oob_load_report`: reports come on a stream of their own; false by default.
    pub out_of_band: bool,
    /// `oob_reporting_period`: 10 s by default.
    pub reporting_period: Duration,
    /// `blackout_period`: how long a new endpoint's reports are not believed; 10 s by default.
    pub blackout_period: Duration,
    /// `weight_expiration_period`: how long a report counts; 180 s by default.
    pub weight_expiration_period: Duration,
    /// `weight_update_period`: how often weights are computed; 1 s by default, 100 ms at least.
    pub weight_update_period: Duration,
    /// `error_utilization_penalty`: how much errors weigh against an endpoint; 1.0 by default.
    pub error_utilization_penalty: f64,
    /// `metric_names_for_computing_utilization`: named metrics to prefer over the reported utilization.
    pub utilization_metrics: Vec<String>,
}

impl Default for ClientSideWrrConfig {
    fn default() -> Self {
        Self {
            out_of_band: false,
            reporting_period: Duration::from_secs(10),
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 1.0,
            utilization_metrics: Vec::new(),
        }
    }
}

impl PolicyConfig for ClientSideWrrConfig {
    fn build(&self, candidates: &[Arc<Candidate>], previous: Option<&Arc<dyn Picker>>, seed: u64) -> Arc<dyn Picker> {
        RoundRobinConfig.build(candidates, previous, seed)
    }
}
