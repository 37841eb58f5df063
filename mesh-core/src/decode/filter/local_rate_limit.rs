//! Local rate limits, as Envoy checks them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::LocalRateLimitDescriptor;
use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use envoy_types::pb::envoy::r#type::v3 as types;
use http::StatusCode;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::route::{header_mutations, limit_rules, limit_stage};
use crate::decode::value::{positive_duration, runtime_fraction};
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side};
use crate::model::{
    FilterConfig, Fraction, HostRules, LimitDescriptor, LocalRateLimit, TokenBucket, UnsupportedEffect,
};

/// Envoy's bound: tokens that come faster than that are no limit.
const SHORTEST_FILL: Duration = Duration::from_millis(50);
/// Envoy's bound.
const MOST_HEADERS: usize = 10;
/// Envoy's default.
const DYNAMIC: u32 = 20;
/// Each costs memory that clients make us spend.
const MOST_DYNAMIC: u32 = 65_536;
/// What is not said is nobody.
const NOBODY: Fraction = Fraction { numerator: 0, denominator: 100 };

/// `extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, for the Listener and for overrides; a
/// [`LocalRateLimit`](crate::model::LocalRateLimit).
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalRateLimitFilter;

impl LocalRateLimitFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
}

impl HttpFilterType for LocalRateLimitFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn supports(&self, _side: Side) -> bool {
        true
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        decode(value, false)
    }

    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        decode(value, true)
    }
}

fn decode(value: ExtensionValue<'_>, needs_bucket: bool) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
    let value = proto::<pb::LocalRateLimit>(value)?;
    let findings = Findings::default();
    let root = findings.root();
    if needs_bucket && value.token_bucket.is_none() {
        root.field("token_bucket").fault("is missing, and an override must have one");
    }
    let limit = limit(&value, &root);
    // A limit that is not the one asked for is none.
    for note in root.notes_since(0).into_iter().filter(|note| note.effect == UnsupportedEffect::FailsRequests) {
        root.field(&note.field).fault("is not supported");
    }
    let faults = findings.into_faults();
    if faults.is_empty() { Ok(Arc::new(limit)) } else { Err(faults) }
}

fn limit(value: &pb::LocalRateLimit, at: &At<'_>) -> LocalRateLimit {
    if value.stat_prefix.is_empty() {
        at.field("stat_prefix").fault("is empty");
    }
    at.all_fail_requests(&[
        ("local_rate_limit_per_downstream_connection", value.local_rate_limit_per_downstream_connection),
        ("local_cluster_rate_limit", value.local_cluster_rate_limit.is_some()),
    ]);
    if value.response_headers_to_add.len() > MOST_HEADERS {
        at.field("response_headers_to_add").fault(format!("has more than {MOST_HEADERS} headers"));
    }
    at.field("enable_x_ratelimit_headers")
        .envoy_known::<common::XRateLimitHeadersRfcVersion>(value.enable_x_ratelimit_headers);
    let bucket = value.token_bucket.as_ref().map(|value| bucket(value, &at.field("token_bucket")));
    LocalRateLimit {
        status: status(value.status.as_ref(), &at.field("status")),
        descriptors: descriptors(&value.descriptors, at),
        bucket,
        enabled: share(value.filter_enabled.as_ref(), &at.field("filter_enabled")),
        enforced: share(value.filter_enforced.as_ref(), &at.field("filter_enforced")),
        headers: header_mutations(&value.request_headers_to_add_when_not_enforced, &value.response_headers_to_add, at),
        stage: limit_stage(value.stage, at),
        host_rules: host_rules(value.vh_rate_limits, &at.field("vh_rate_limits")),
        always_default: value.always_consume_default_token_bucket.is_none_or(|value| value.value),
        say_what_is_left: value.enable_x_ratelimit_headers == 1,
        resource_exhausted: value.rate_limited_as_resource_exhausted,
        rules: limit_rules(&value.rate_limits, at),
        most_dynamic: most_dynamic(value.max_dynamic_descriptors.map(|most| most.value), at),
    }
}

/// Any status below 400 is no refusal; Envoy takes 429 in its place.
fn status(value: Option<&types::HttpStatus>, at: &At<'_>) -> StatusCode {
    if let Some(value) = value {
        // 0 says nothing, which Envoy refuses.
        if value.code == 0 {
            at.field("code").fault("is missing");
        }
        at.field("code").envoy_known::<types::StatusCode>(value.code);
    }
    let code = value.and_then(|value| u16::try_from(value.code).ok()).filter(|code| (400..600).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::TOO_MANY_REQUESTS)
}

fn share(value: Option<&RuntimeFractionalPercent>, at: &At<'_>) -> Fraction {
    value.and_then(|value| runtime_fraction(value, at)).unwrap_or(NOBODY)
}

fn host_rules(value: i32, at: &At<'_>) -> HostRules {
    match value {
        0 => HostRules::Override,
        1 => HostRules::Include,
        2 => HostRules::Ignore,
        other => {
            at.fault(format!("is {other}, which is not known"));
            HostRules::Override
        }
    }
}

fn most_dynamic(value: Option<u32>, at: &At<'_>) -> u32 {
    let most = value.unwrap_or(DYNAMIC);
    if !(1..=MOST_DYNAMIC).contains(&most) {
        at.field("max_dynamic_descriptors").fault(format!("must be from 1 to {MOST_DYNAMIC}"));
    }
    most
}

fn bucket(value: &types::TokenBucket, at: &At<'_>) -> TokenBucket {
    let per_fill = value.tokens_per_fill.map_or(1, |value| value.value);
    if per_fill == 0 {
        at.field("tokens_per_fill").fault("must be at least 1");
    }
    let at_interval = at.field("fill_interval");
    if value.fill_interval.is_none() {
        at_interval.fault("is missing");
    }
    let interval = positive_duration(value.fill_interval.as_ref(), &at_interval).unwrap_or(SHORTEST_FILL);
    if interval < SHORTEST_FILL {
        at_interval.fault("must be at least 50 ms");
    }
    TokenBucket { max: value.max_tokens, per_fill, interval: interval.max(SHORTEST_FILL) }
}

fn descriptors(values: &[LocalRateLimitDescriptor], at: &At<'_>) -> Vec<LimitDescriptor> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = at.item("descriptors", index);
        let Some(descriptor) = descriptor(value, &at) else { continue };
        if !seen.insert(descriptor.entries.clone()) {
            at.fault("is there twice");
        }
        all.push(descriptor);
    }
    all
}

fn descriptor(value: &LocalRateLimitDescriptor, at: &At<'_>) -> Option<LimitDescriptor> {
    if value.entries.is_empty() {
        at.field("entries").fault("is empty");
    }
    for (index, entry) in value.entries.iter().enumerate() {
        if entry.key.is_empty() {
            at.item("entries", index).field("key").fault("is empty");
        }
    }
    let Some(given) = &value.token_bucket else {
        at.field("token_bucket").fault("is missing");
        return None;
    };
    let bucket = bucket(given, &at.field("token_bucket"));
    let open = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Some(LimitDescriptor {
        entries: value.entries.iter().map(|entry| (entry.key.clone(), open(&entry.value))).collect(),
        bucket,
        shadow: value.shadow_mode,
    })
}
