//! Circuit breakers (gRFC A32): rules 126 and 128.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use pb::circuit_breakers::Thresholds;
use pb::circuit_breakers::thresholds::RetryBudget as PbBudget;

use crate::decode::at::At;
use crate::decode::value::percent;
use crate::model::CircuitBreakers;
use crate::model::cluster::RetryBudget;

/// `RoutingPriority.DEFAULT`.
const DEFAULT_PRIORITY: i32 = 0;
/// Envoy's default budget, in percent.
const BUDGET_PERCENT: f64 = 20.0;
/// Envoy's default for retries that are always allowed.
const MIN_CONCURRENCY: u32 = 3;

/// The limits of priority DEFAULT: of the first entry, as rule 128 says.
pub(super) fn circuit_breakers(value: Option<&pb::CircuitBreakers>, at: &At<'_>) -> CircuitBreakers {
    let default = CircuitBreakers::default();
    let Some(value) = value else { return default };
    let at = at.field("circuit_breakers");
    check_per_host(&value.per_host_thresholds, &at);
    for (index, limits) in value.thresholds.iter().enumerate() {
        at.item("thresholds", index).field("priority").envoy_known::<RoutingPriority>(limits.priority);
    }
    let is_default = |(_, limits): &(usize, &Thresholds)| limits.priority == DEFAULT_PRIORITY;
    let Some((index, limits)) = value.thresholds.iter().enumerate().find(is_default) else {
        return default;
    };
    let at = at.item("thresholds", index);
    CircuitBreakers {
        max_requests: limits.max_requests.map_or(default.max_requests, |value| value.value),
        max_connections: limits.max_connections.map_or(default.max_connections, |value| value.value),
        max_pending_requests: limits.max_pending_requests.map_or(default.max_pending_requests, |value| value.value),
        max_retries: limits.max_retries.map(|value| value.value),
        retry_budget: limits.retry_budget.as_ref().map(|value| budget(value, &at.field("retry_budget"))),
    }
}

fn budget(value: &PbBudget, at: &At<'_>) -> RetryBudget {
    at.all_left_out(&[("budget_interval", value.budget_interval.is_some())]);
    let share = value.budget_percent.as_ref();
    let share = share.map_or(BUDGET_PERCENT, |share| percent(share, &at.field("budget_percent")));
    RetryBudget {
        // From 0 to 1,000,000: `percent` saw to it.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        millionths: (share * 10_000.0).round() as u32,
        min_concurrency: value.min_retry_concurrency.map_or(MIN_CONCURRENCY, |value| value.value),
    }
}

/// Rule 126; the limit itself is not implemented.
fn check_per_host(values: &[Thresholds], at: &At<'_>) {
    for (index, limits) in values.iter().enumerate().filter(|(_, limits)| limits.priority == DEFAULT_PRIORITY) {
        let at = at.item("per_host_thresholds", index);
        if limits.max_connections.is_some_and(|value| value.value == 0) {
            at.field("max_connections").fault("must be at least 1");
        }
        at.left_out();
    }
}
