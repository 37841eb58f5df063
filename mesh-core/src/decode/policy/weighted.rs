//! Client-side weighted round robin (gRFC A58): rule 114.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3 as pb;
use envoy_types::pb::google::protobuf;

use super::{PolicyScope, check_slow_start};
use crate::balance::{ClientSideWrrConfig, PolicyConfig};
use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::value::duration;
use crate::decode::{ExtensionValue, Fault};

/// Weights are not computed more often than this (gRFC A58).
const SHORTEST_UPDATE: Duration = Duration::from_millis(100);

/// `ClientSideWeightedRoundRobin`.
pub(super) fn client_side(
    value: ExtensionValue<'_>,
    scope: &PolicyScope<'_>,
) -> Result<Arc<dyn PolicyConfig>, Vec<Fault>> {
    let value = proto::<pb::ClientSideWeightedRoundRobin>(value)?;
    check_slow_start(value.slow_start_config.as_ref(), &scope.at);
    if value.oob_reporting_config.is_some() {
        scope.left_out("oob_reporting_config");
    }
    let findings = Findings::default();
    let config = read(value, &findings.root());
    let faults = findings.into_faults();
    if faults.is_empty() { Ok(Arc::new(config)) } else { Err(faults) }
}

fn read(value: pb::ClientSideWeightedRoundRobin, at: &At<'_>) -> ClientSideWrrConfig {
    let default = ClientSideWrrConfig::default();
    let period = |value: Option<protobuf::Duration>, name: &str, default: Duration| {
        duration(value.as_ref(), &at.field(name)).unwrap_or(default)
    };
    let penalty =
        value.error_utilization_penalty.map_or(default.error_utilization_penalty, |penalty| f64::from(penalty.value));
    if !penalty.is_finite() || penalty < 0.0 {
        at.field("error_utilization_penalty").fault("must be at least 0");
    }
    ClientSideWrrConfig {
        out_of_band: value.enable_oob_load_report.is_some_and(|value| value.value),
        reporting_period: period(value.oob_reporting_period, "oob_reporting_period", default.reporting_period),
        blackout_period: period(value.blackout_period, "blackout_period", default.blackout_period),
        weight_expiration_period: period(
            value.weight_expiration_period,
            "weight_expiration_period",
            default.weight_expiration_period,
        ),
        weight_update_period: period(value.weight_update_period, "weight_update_period", default.weight_update_period)
            .max(SHORTEST_UPDATE),
        error_utilization_penalty: penalty,
        utilization_metrics: value.metric_names_for_computing_utilization.into(),
    }
}
