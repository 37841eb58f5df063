//! Hash policies (gRFC A42): rule 84.

use envoy_types::pb::envoy::config::route::v3 as pb;
use pb::route_action::HashPolicy as PbHash;
use pb::route_action::hash_policy::PolicySpecifier;

use crate::decode::at::At;
use crate::decode::matcher;
use crate::decode::value::{short_duration, wanted_header};
use crate::model::{HashPolicy, HashSource};

/// The one key of `filter_state` that has a meaning (gRFC A42).
const CHANNEL_ID: &str = "io.grpc.channel_id";

/// The hash policies of a route, in order.
pub(super) fn policies(values: &[PbHash], at: &At<'_>) -> Vec<HashPolicy> {
    values
        .iter()
        .enumerate()
        .filter_map(|(index, value)| {
            let source = source(value, &at.item("hash_policy", index))?;
            Some(HashPolicy { source, terminal: value.terminal })
        })
        .collect()
}

fn source(value: &PbHash, at: &At<'_>) -> Option<HashSource> {
    match &value.policy_specifier {
        Some(PolicySpecifier::Header(header)) => {
            let at = at.field("header");
            let name = wanted_header(&header.header_name, &at.field("header_name"));
            let rewrite = match &header.regex_rewrite {
                Some(value) => Some(matcher::rewrite(value, &at.field("regex_rewrite"))?),
                None => None,
            };
            // A header that no message can have is never there.
            Some(name.map_or(HashSource::Nothing, |name| HashSource::Header { name, rewrite }))
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            let at = at.field("cookie");
            if cookie.name.is_empty() {
                at.field("name").fault("is empty");
            }
            at.all_left_out(&[("attributes", !cookie.attributes.is_empty())]);
            for (index, _) in cookie.attributes.iter().enumerate().filter(|(_, attribute)| attribute.name.is_empty()) {
                at.item("attributes", index).field("name").envoy_fault("is empty");
            }
            Some(HashSource::Cookie {
                name: cookie.name.clone(),
                ttl: short_duration(cookie.ttl.as_ref(), &at.field("ttl")),
                path: cookie.path.clone(),
            })
        }
        Some(PolicySpecifier::QueryParameter(query)) => {
            if query.name.is_empty() {
                at.field("query_parameter").field("name").fault("is empty");
            }
            Some(HashSource::Query(query.name.clone()))
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => Some(HashSource::SourceIp),
        Some(PolicySpecifier::FilterState(state)) if state.key == CHANNEL_ID => Some(HashSource::ChannelId),
        Some(PolicySpecifier::FilterState(state)) if state.key.is_empty() => {
            at.field("filter_state").field("key").envoy_fault("is empty");
            Some(HashSource::Nothing)
        }
        None => {
            at.envoy_fault("says nothing, or says it in a way that is not known here");
            Some(HashSource::Nothing)
        }
        // Rule 84: kinds that are not known are ignored, but keep their place and their `terminal`.
        _ => Some(HashSource::Nothing),
    }
}
