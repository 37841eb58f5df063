//! The header mutation filter, as Envoy checks it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as pb;
use rules::header_mutation::Action;

use crate::decode::at::{At, Findings};
use crate::decode::envelope::proto;
use crate::decode::route::{header_append, mutable_name};
use crate::decode::{ExtensionValue, Fault, HttpFilterType, Side, matcher};
use crate::model::{FilterConfig, HeaderStep, HeaderSteps, UnsupportedEffect};

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
            ("query_parameter_mutations", !value.query_parameter_mutations.is_empty()),
            ("request_trailers_mutations", !value.request_trailers_mutations.is_empty()),
            ("response_trailers_mutations", !value.response_trailers_mutations.is_empty()),
        ]);
        HeaderSteps {
            request: steps(&value.request_mutations, "request_mutations", &at),
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
