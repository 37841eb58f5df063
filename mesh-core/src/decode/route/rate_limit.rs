//! `RateLimit`: how requests are described for limits, as Envoy checks it.

use envoy_types::pb::envoy::config::route::v3 as pb;
use http::HeaderValue;
use pb::rate_limit::Action as PbAction;
use pb::rate_limit::action::ActionSpecifier;

use super::mutation::check_format;
use crate::decode::at::At;
use crate::decode::matcher;
use crate::model::{LimitAction, LimitRule};

/// The highest stage (Envoy).
const LAST_STAGE: u32 = 10;

/// The rules of one level.
pub(in crate::decode) fn rules(values: &[pb::RateLimit], at: &At<'_>) -> Vec<LimitRule> {
    values.iter().enumerate().filter_map(|(index, value)| rule(value, &at.item("rate_limits", index))).collect()
}

/// A stage of a rule or of a filter.
pub(in crate::decode) fn stage(value: u32, at: &At<'_>) -> u32 {
    if value > LAST_STAGE {
        at.field("stage").fault("must be from 0 to 10");
    }
    value
}

fn rule(value: &pb::RateLimit, at: &At<'_>) -> Option<LimitRule> {
    if value.actions.is_empty() {
        at.field("actions").fault("is empty");
    }
    at.all_fail_requests(&[
        ("hits_addend", value.hits_addend.is_some()),
        ("apply_on_stream_done", value.apply_on_stream_done),
    ]);
    // For the rate limit service only.
    at.all_left_out(&[("limit", value.limit.is_some())]);
    let actions = value.actions.iter().enumerate();
    let actions: Option<Vec<LimitAction>> =
        actions.map(|(index, value)| action(value, &at.item("actions", index))).collect();
    let rule = LimitRule { stage: stage(value.stage.map_or(0, |stage| stage.value), at), actions: actions? };
    // A rule with a key is one that somebody may switch off, and off is how Envoy's local limits take it.
    value.disable_key.is_empty().then_some(rule)
}

/// An action. None: it has a fault, or is one whose requests fail.
fn action(value: &PbAction, at: &At<'_>) -> Option<LimitAction> {
    let or = |key: &str, default: &str| if key.is_empty() { default.to_owned() } else { key.to_owned() };
    Some(match value.action_specifier.as_ref() {
        Some(ActionSpecifier::DestinationCluster(_)) => LimitAction::DestinationCluster,
        Some(ActionSpecifier::RemoteAddress(_)) => LimitAction::RemoteAddress,
        Some(ActionSpecifier::RequestHeaders(value)) => {
            let at = at.field("request_headers");
            not_empty(&value.descriptor_key, "descriptor_key", &at);
            LimitAction::Header {
                name: matcher::match_name(&value.header_name, &at.field("header_name"))?,
                key: value.descriptor_key.clone(),
                skip_if_absent: value.skip_if_absent,
            }
        }
        Some(ActionSpecifier::QueryParameters(value)) => {
            let at = at.field("query_parameters");
            not_empty(&value.descriptor_key, "descriptor_key", &at);
            not_empty(&value.query_parameter_name, "query_parameter_name", &at);
            LimitAction::Query {
                name: value.query_parameter_name.clone(),
                key: value.descriptor_key.clone(),
                skip_if_absent: value.skip_if_absent,
            }
        }
        Some(ActionSpecifier::MaskedRemoteAddress(value)) => {
            let at = at.field("masked_remote_address");
            LimitAction::MaskedRemoteAddress {
                v4: mask(value.v4_prefix_mask_len.map(|value| value.value), 32, &at.field("v4_prefix_mask_len")),
                v6: mask(value.v6_prefix_mask_len.map(|value| value.value), 128, &at.field("v6_prefix_mask_len")),
            }
        }
        Some(ActionSpecifier::GenericKey(value)) => {
            let at = at.field("generic_key");
            not_empty(&value.descriptor_value, "descriptor_value", &at);
            LimitAction::Generic {
                key: or(&value.descriptor_key, "generic_key"),
                value: format(&value.descriptor_value, &at.field("descriptor_value"))?,
                default: value.default_value.clone(),
            }
        }
        Some(ActionSpecifier::HeaderValueMatch(value)) => {
            let at = at.field("header_value_match");
            if value.headers.is_empty() {
                at.field("headers").fault("is empty");
            }
            LimitAction::HeaderMatch {
                key: or(&value.descriptor_key, "header_match"),
                value: plain(&value.descriptor_value, &at.field("descriptor_value")),
                expect: value.expect_match.is_none_or(|value| value.value),
                headers: matcher::headers(&value.headers, "headers", &at),
            }
        }
        Some(ActionSpecifier::QueryParameterValueMatch(value)) => {
            let at = at.field("query_parameter_value_match");
            if value.query_parameters.is_empty() {
                at.field("query_parameters").fault("is empty");
            }
            let parameters = value.query_parameters.iter().enumerate();
            LimitAction::QueryMatch {
                key: or(&value.descriptor_key, "query_match"),
                value: plain(&value.descriptor_value, &at.field("descriptor_value")),
                expect: value.expect_match.is_none_or(|value| value.value),
                parameters: parameters
                    .filter_map(|(index, value)| matcher::query(value, &at.item("query_parameters", index)))
                    .collect(),
            }
        }
        Some(_) => {
            at.fails_requests();
            return None;
        }
        None => {
            at.fault("says nothing, or says it in a way that is not known here");
            return None;
        }
    })
}

fn not_empty(text: &str, name: &str, at: &At<'_>) {
    if text.is_empty() {
        at.field(name).fault("is empty");
    }
}

fn mask(value: Option<u32>, most: u8, at: &At<'_>) -> u8 {
    match value.map(u8::try_from) {
        None => most,
        Some(Ok(length)) if length <= most => length,
        Some(_) => {
            at.fault(format!("must be {most} at most"));
            most
        }
    }
}

fn format(text: &str, at: &At<'_>) -> Option<HeaderValue> {
    match HeaderValue::from_str(text) {
        Ok(value) => {
            check_format(&value, at);
            Some(value)
        }
        Err(_) => {
            at.fault("is not the value of a header");
            None
        }
    }
}

/// A fixed value. Envoy knows formats here, too, which this version does not compute.
fn plain(text: &str, at: &At<'_>) -> String {
    if text.is_empty() {
        at.fault("is empty");
    }
    if text.contains('%') {
        at.fails_requests();
    }
    text.to_owned()
}
