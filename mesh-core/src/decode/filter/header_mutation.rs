//! The header mutation filter, as Envoy checks it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3::{KeyValueAppend, KeyValueMutation};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as pb;
use envoy_types::pb::google::protobuf::value::Kind;
use http::HeaderValue;
use rules::header_mutation::Action;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::route::{append_action, check_format, header_append, mutable_name};
use crate::decode::value::LONGEST_HEADER;
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::{FilterConfig, HeaderStep, HeaderSteps, QueryStep, UnsupportedEffect};

/// `extensions.filters.http.header_mutation.v3.HeaderMutation`; its overrides are `HeaderMutationPerRoute`. Both are
/// [`HeaderSteps`](crate::model::HeaderSteps).
#[derive(Debug, Clone, Copy, Default)]
pub struct HeaderMutationFilter;

impl HeaderMutationFilter {
    /// The type of its configuration.
    pub const TYPE_URL: &'static str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
}

impl HttpFilterType for HeaderMutationFilter {
    fn type_url(&self) -> &'static str {
        Self::TYPE_URL
    }

    fn override_type_url(&self) -> Option<&str> {
        Some("envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute")
    }

    fn supports(&self, _side: Side) -> bool {
        true
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::HeaderMutation>(value)?;
        all(value.mutations.as_ref(), value.most_specific_header_mutations_wins)
    }

    fn decode_override(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        let value = proto::<pb::HeaderMutationPerRoute>(value)?;
        all(value.mutations.as_ref(), false)
    }
}

fn all(value: Option<&pb::Mutations>, most_specific_wins: bool) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
    let findings = Findings::default();
    let root = findings.root();
    let at = root.field("mutations");
    let steps = value.map_or_else(HeaderSteps::default, |value| {
        at.all_fail_requests(&[
            ("request_trailers_mutations", !value.request_trailers_mutations.is_empty()),
            ("response_trailers_mutations", !value.response_trailers_mutations.is_empty()),
        ]);
        HeaderSteps {
            request: steps(&value.request_mutations, "request_mutations", &at),
            query: value
                .query_parameter_mutations
                .iter()
                .enumerate()
                .filter_map(|(index, value)| query_step(value, &at.item("query_parameter_mutations", index)))
                .collect(),
            response: steps(&value.response_mutations, "response_mutations", &at),
            most_specific_wins,
        }
    });
    // A filter that cannot do what it is asked for is refused.
    for note in root.notes_since(0).into_iter().filter(|note| note.effect == UnsupportedEffect::FailsRequests) {
        root.field(&note.field).fault("is not supported");
    }
    let faults = findings.into_faults();
    if faults.is_empty() { Ok(Arc::new(steps)) } else { Err(faults) }
}

fn steps(values: &[rules::HeaderMutation], name: &str, at: &At<'_>) -> Vec<HeaderStep> {
    values.iter().enumerate().filter_map(|(index, value)| step(value, &at.item(name, index))).collect()
}

fn step(value: &rules::HeaderMutation, at: &At<'_>) -> Option<HeaderStep> {
    match &value.action {
        Some(Action::Remove(name)) => mutable_name(name, &at.field("remove")).map(HeaderStep::Remove),
        Some(Action::Append(value)) => header_append(value, &at.field("append")).map(HeaderStep::Append),
        Some(Action::RemoveOnMatch(value)) => {
            let at = at.field("remove_on_match");
            let Some(key) = &value.key_matcher else {
                at.field("key_matcher").fault("is missing");
                return None;
            };
            matcher::string(key, &at.field("key_matcher")).map(HeaderStep::RemoveMatching)
        }
        None => {
            at.fault("says nothing, or says it in a way that is not known here");
            None
        }
    }
}

fn query_step(value: &KeyValueMutation, at: &At<'_>) -> Option<QueryStep> {
    match (&value.append, value.remove.as_str()) {
        (Some(append), "") => query_append(append, &at.field("append")),
        (None, "") => {
            at.fault("says nothing: set append or remove");
            None
        }
        (None, name) => Some(QueryStep::Remove(name.to_owned())),
        (Some(_), _) => {
            at.fault("has both append and remove");
            None
        }
    }
}

fn query_append(value: &KeyValueAppend, at: &At<'_>) -> Option<QueryStep> {
    let action = append_action(value.action, &at.field("action"));
    let at = at.field("record");
    let Some(record) = &value.record else {
        at.fault("is missing");
        return None;
    };
    if record.key.is_empty() || record.key.len() > LONGEST_HEADER {
        at.field("key").fault(format!("must have from 1 to {LONGEST_HEADER} bytes"));
    }
    let at = at.field("value");
    let Some(Kind::StringValue(text)) = record.value.as_ref().and_then(|value| value.kind.as_ref()) else {
        at.fault("must be a string");
        return None;
    };
    let Ok(format) = HeaderValue::from_bytes(text.as_bytes()) else {
        at.fault("has control characters");
        return None;
    };
    check_format(&format, &at);
    Some(QueryStep::Append { name: record.key.clone(), value: format, action: action? })
}
