//! Retry and hedge policies: rules 77 to 82, and Envoy's fields.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::retry as extensions;
use extensions::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
use extensions::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use extensions::host::previous_hosts::v3::PreviousHostsPredicate;
use extensions::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use http::StatusCode;
use pb::retry_policy::retry_host_predicate::ConfigType;
use pb::retry_policy::retry_priority::ConfigType as PriorityConfig;
use pb::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader as PbResetHeader, RetryBackOff, RetryHostPredicate, RetryPriority,
};
use prost::Name as _;

use super::forward::endpoint_metadata;
use crate::decode::at::At;
use crate::decode::envelope::{bare, expect};
use crate::decode::matcher;
use crate::decode::value::{positive_duration, short_duration, wanted_header};
use crate::model::{Backoff, HedgePolicy, RateLimitedBackoff, ResetFormat, ResetHeader, RetryOn, RetryPolicy};

/// Delays below this are read as this.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(1);

/// A retry policy. One in which no condition is left never retries (rule 82); on a route it still hides the virtual
/// host's, in gRPC (A44) as in Envoy.
pub(super) fn retry(value: &pb::RetryPolicy, at: &At<'_>) -> RetryPolicy {
    at.all_left_out(&[
        ("retry_options_predicates", !value.retry_options_predicates.is_empty()),
        ("refresh_cluster_on_retry", value.refresh_cluster_on_retry),
    ]);
    if !value.retry_options_predicates.is_empty() {
        at.field("retry_options_predicates").envoy_fault("has predicates, and Envoy has none that is public");
    }
    let hosts = predicates(&value.retry_host_predicate, at);
    RetryPolicy {
        on: RetryOn::parse(&value.retry_on),
        // Envoy takes any number; one that is no status is never seen.
        status_codes: value.retriable_status_codes.iter().filter_map(|code| status(*code)).collect(),
        num_retries: num_retries(value, at),
        per_try_timeout: short_duration(value.per_try_timeout.as_ref(), &at.field("per_try_timeout"))
            .filter(|timeout| !timeout.is_zero()),
        per_try_idle_timeout: short_duration(value.per_try_idle_timeout.as_ref(), &at.field("per_try_idle_timeout"))
            .filter(|timeout| !timeout.is_zero()),
        backoff: value
            .retry_back_off
            .as_ref()
            .map(|value| backoff(value, &at.field("retry_back_off")))
            .unwrap_or_default(),
        rate_limited_backoff: value
            .rate_limited_retry_back_off
            .as_ref()
            .map(|value| rate_limited(value, &at.field("rate_limited_retry_back_off"))),
        previous_priorities: value
            .retry_priority
            .as_ref()
            .and_then(|priority| previous_priorities(priority, &at.field("retry_priority"))),
        host_selection_attempts: u32::try_from(value.host_selection_retry_max_attempts).unwrap_or(1).max(1),
        retriable_headers: matcher::headers(&value.retriable_headers, "retriable_headers", at),
        retriable_request_headers: matcher::headers(&value.retriable_request_headers, "retriable_request_headers", at),
        ..hosts
    }
}

/// After how many attempts priorities are left alone. Where it is not known which, they are as without a retry.
fn previous_priorities(value: &RetryPriority, at: &At<'_>) -> Option<u32> {
    if value.name.is_empty() {
        at.field("name").envoy_fault("is empty");
    }
    match &value.config_type {
        Some(PriorityConfig::TypedConfig(any)) if bare(&any.type_url) == PreviousPrioritiesConfig::full_name() => {
            let config: PreviousPrioritiesConfig = expect(any, &at.field("typed_config"))?;
            Some(u32::try_from(config.update_frequency).unwrap_or(1).max(1))
        }
        _ => {
            at.envoy_fault("is not a priority that is known");
            at.left_out();
            None
        }
    }
}

fn status(code: u32) -> Option<StatusCode> {
    StatusCode::from_u16(u16::try_from(code).ok()?).ok()
}

/// Rule 77.
fn num_retries(value: &pb::RetryPolicy, at: &At<'_>) -> u32 {
    match value.num_retries.map(|value| value.value) {
        None => 1,
        Some(0) => {
            at.field("num_retries").grpc_fault("is 0; leave the policy out instead");
            0
        }
        Some(retries) => retries,
    }
}

/// Rules 78 to 81.
fn backoff(value: &RetryBackOff, at: &At<'_>) -> Backoff {
    let base_at = at.field("base_interval");
    if value.base_interval.is_none() {
        base_at.fault("is missing");
    }
    let base = positive_duration(value.base_interval.as_ref(), &base_at).unwrap_or(Backoff::default().base);
    let max_at = at.field("max_interval");
    let max = positive_duration(value.max_interval.as_ref(), &max_at);
    if max.is_some_and(|max| max < base) {
        max_at.fault("is shorter than base_interval");
    }
    let base = base.max(SHORTEST_BACKOFF);
    Backoff { base, max: max.unwrap_or(base.saturating_mul(10)).max(base) }
}

fn rate_limited(value: &RateLimitedRetryBackOff, at: &At<'_>) -> RateLimitedBackoff {
    if value.reset_headers.is_empty() {
        at.field("reset_headers").fault("is empty");
    }
    let headers = value.reset_headers.iter().enumerate();
    RateLimitedBackoff {
        reset_headers: headers
            .filter_map(|(index, header)| reset_header(header, &at.item("reset_headers", index)))
            .collect(),
        max: positive_duration(value.max_interval.as_ref(), &at.field("max_interval"))
            .unwrap_or(Duration::from_secs(300)),
    }
}

fn reset_header(value: &PbResetHeader, at: &At<'_>) -> Option<ResetHeader> {
    let format = match value.format {
        0 => ResetFormat::Seconds,
        1 => ResetFormat::UnixTimestamp,
        other => {
            at.field("format").fault(format!("is {other}, which is not known"));
            ResetFormat::Seconds
        }
    };
    Some(ResetHeader { name: wanted_header(&value.name, &at.field("name"))?, format })
}

/// Which hosts a retry avoids. What is not known is left out: it only makes a retry luckier.
fn predicates(values: &[RetryHostPredicate], at: &At<'_>) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    for (index, value) in values.iter().enumerate() {
        let at = at.item("retry_host_predicate", index);
        if value.name.is_empty() {
            at.field("name").envoy_fault("is empty");
        }
        let Some(ConfigType::TypedConfig(any)) = &value.config_type else {
            by_name(&value.name, &mut policy, &at);
            continue;
        };
        match bare(&any.type_url) {
            kind if kind == PreviousHostsPredicate::full_name() => policy.avoid_previous_hosts = true,
            kind if kind == OmitCanaryHostsPredicate::full_name() => policy.omit_canary_hosts = true,
            kind if kind == OmitHostMetadataConfig::full_name() => {
                let config = expect::<OmitHostMetadataConfig>(any, &at.field("typed_config")).unwrap_or_default();
                policy.omit_metadata.push(endpoint_metadata(config.metadata_match));
            }
            _ => {
                at.envoy_fault("is not a predicate that is known");
                at.left_out();
            }
        }
    }
    policy
}

/// The older spelling, which Envoy does not take any more.
fn by_name(name: &str, policy: &mut RetryPolicy, at: &At<'_>) {
    at.envoy_fault("has no typed_config");
    match name {
        "envoy.retry_host_predicates.previous_hosts" => policy.avoid_previous_hosts = true,
        "envoy.retry_host_predicates.omit_canary_hosts" => policy.omit_canary_hosts = true,
        _ => at.left_out(),
    }
}

/// A hedge policy.
pub(super) fn hedge(value: &pb::HedgePolicy, at: &At<'_>) -> HedgePolicy {
    at.all_left_out(&[("additional_request_chance", value.additional_request_chance.is_some())]);
    let initial_requests = value.initial_requests.map_or(1, |value| value.value);
    if initial_requests == 0 {
        at.field("initial_requests").fault("must be at least 1");
    }
    HedgePolicy { initial_requests, on_per_try_timeout: value.hedge_on_per_try_timeout }
}
