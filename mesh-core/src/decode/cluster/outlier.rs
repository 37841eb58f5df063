//! Outlier detection (gRFC A50): rules 123 and 124.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::decode::at::At;
use crate::decode::value::{percent_u32, positive_duration};
use crate::model::OutlierDetection;
use crate::model::cluster::{FailurePercentage, SuccessRate};

/// Envoy's and gRPC's default for the longest ejection, unless the base is longer.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// The settings with every default filled in.
pub(super) fn outlier(value: &pb::OutlierDetection, at: &At<'_>) -> OutlierDetection {
    note_unsupported(value, at);
    let interval = positive_duration(value.interval.as_ref(), &at.field("interval"));
    let base = positive_duration(value.base_ejection_time.as_ref(), &at.field("base_ejection_time"));
    let base = base.unwrap_or(Duration::from_secs(30));
    let longest = positive_duration(value.max_ejection_time.as_ref(), &at.field("max_ejection_time"));
    if longest.is_some_and(|longest| longest < base) {
        at.field("max_ejection_time").envoy_fault("is shorter than base_ejection_time");
    }
    let percent =
        |value: &Option<UInt32Value>, name: &str, default| percent_u32(value.as_ref(), default, &at.field(name));
    let enforces_5xx = percent(&value.enforcing_consecutive_5xx, "enforcing_consecutive_5xx", 100) > 0;
    let enforces_gateway =
        percent(&value.enforcing_consecutive_gateway_failure, "enforcing_consecutive_gateway_failure", 0) > 0;
    OutlierDetection {
        interval: interval.unwrap_or(Duration::from_secs(10)),
        base_ejection_time: base,
        max_ejection_time: longest.unwrap_or(LONGEST_EJECTION.max(base)),
        max_ejection_percent: percent(&value.max_ejection_percent, "max_ejection_percent", 10),
        success_rate: success_rate(value, at),
        failure_percentage: failure_percentage(value, at),
        consecutive_5xx: if enforces_5xx { or(value.consecutive_5xx, 5) } else { 0 },
        consecutive_gateway_failure: if enforces_gateway { or(value.consecutive_gateway_failure, 5) } else { 0 },
    }
}

fn note_unsupported(value: &pb::OutlierDetection, at: &At<'_>) {
    at.all_left_out(&[
        ("split_external_local_origin_errors", value.split_external_local_origin_errors),
        ("monitors", !value.monitors.is_empty()),
        ("max_ejection_time_jitter", value.max_ejection_time_jitter.is_some()),
    ]);
}

fn or(value: Option<UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// On unless its enforcement is 0.
fn success_rate(value: &pb::OutlierDetection, at: &At<'_>) -> Option<SuccessRate> {
    let enforcement = percent_u32(value.enforcing_success_rate.as_ref(), 100, &at.field("enforcing_success_rate"));
    (enforcement > 0).then(|| SuccessRate {
        stdev_factor: or(value.success_rate_stdev_factor, 1900),
        enforcement,
        minimum_hosts: or(value.success_rate_minimum_hosts, 5),
        request_volume: or(value.success_rate_request_volume, 100),
    })
}

/// Off unless its enforcement is more than 0.
fn failure_percentage(value: &pb::OutlierDetection, at: &At<'_>) -> Option<FailurePercentage> {
    let enforcement =
        percent_u32(value.enforcing_failure_percentage.as_ref(), 0, &at.field("enforcing_failure_percentage"));
    let threshold =
        percent_u32(value.failure_percentage_threshold.as_ref(), 85, &at.field("failure_percentage_threshold"));
    (enforcement > 0).then(|| FailurePercentage {
        threshold,
        enforcement,
        minimum_hosts: or(value.failure_percentage_minimum_hosts, 5),
        request_volume: or(value.failure_percentage_request_volume, 50),
    })
}
