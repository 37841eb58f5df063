//! Headers that a configuration adds and removes.

use http::{HeaderName, HeaderValue};

use super::matcher::StringMatch;

/// `request_headers_to_add`, `request_headers_to_remove` and their response twins, for one level of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    /// Added to requests, in order.
    pub request_append: Vec<HeaderAppend>,
    /// Removed from requests, before anything is added.
    pub request_remove: Vec<HeaderName>,
    /// Added to responses, in order.
    pub response_append: Vec<HeaderAppend>,
    /// Removed from responses, before anything is added.
    pub response_remove: Vec<HeaderName>,
}

impl HeaderMutations {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.request_append.is_empty()
            && self.request_remove.is_empty()
            && self.response_append.is_empty()
            && self.response_remove.is_empty()
    }
}

/// `extensions.filters.http.header_mutation.v3.Mutations`: what the filter of that name does, step by step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderSteps {
    /// Done to requests.
    pub request: Vec<HeaderStep>,
    /// `query_parameter_mutations`: done to the query of requests, after [`request`](Self::request).
    pub query: Vec<QueryStep>,
    /// Done to responses.
    pub response: Vec<HeaderStep>,
    /// `most_specific_header_mutations_wins` of the Listener's filter: routes come after virtual hosts, and not before.
    pub most_specific_wins: bool,
}

/// `config.common.mutation_rules.v3.HeaderMutation`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderStep {
    /// Remove a header.
    Remove(HeaderName),
    /// Add one, or replace it.
    Append(HeaderAppend),
    /// Remove every header whose name matches.
    RemoveMatching(StringMatch),
}

/// `config.core.v3.KeyValueMutation`, of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryStep {
    /// Remove a parameter, all of its values.
    Remove(String),
    /// Add a value, or replace all.
    Append {
        /// The parameter's name, as it is behind its percent-encoding.
        name: String,
        /// Its value, with Envoy's `%FORMAT%` substitutions; what comes of it is percent-encoded.
        value: HeaderValue,
        /// What to do when the parameter is already there.
        action: AppendAction,
    },
}

/// `config.core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderAppend {
    /// The header's name.
    pub name: HeaderName,
    /// Its value. Envoy's `%FORMAT%` substitutions are not expanded here.
    pub value: HeaderValue,
    /// What to do when the header is already there.
    pub action: AppendAction,
    /// Keep the header even when its value is empty.
    pub keep_empty: bool,
}

/// `HeaderValueOption.HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Add another value.
    AppendOrAdd,
    /// Add unless it is there.
    AddIfAbsent,
    /// Replace, or add.
    OverwriteOrAdd,
    /// Replace only if it is there.
    OverwriteIfExists,
}
