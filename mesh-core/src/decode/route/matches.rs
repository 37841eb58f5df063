//! `RouteMatch`: rules 54 to 66. gRPC can't match query parameters, separated prefixes, templates and CONNECT; we can.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use pb::route_match::PathSpecifier;

use crate::decode::at::At;
use crate::decode::value::runtime_fraction;
use crate::decode::{envelope, matcher, metadata, template};
use crate::model::matcher::UriTemplate;
use crate::model::{CookieMatch, MetadataSource, PathMatch, RouteMatch};

/// Envoy's bound for the name of a cookie.
const LONGEST_COOKIE_NAME: usize = 1024;

/// Which requests a route takes.
pub(in crate::decode) fn route_match(value: &pb::RouteMatch, at: &At<'_>) -> RouteMatch {
    let path = path(value.path_specifier.as_ref(), at);
    let tls = value.tls_context.as_ref();
    RouteMatch {
        // With a fault the value is not used.
        path: path.unwrap_or(PathMatch::Prefix(String::new())),
        // Rule 66.
        case_sensitive: value.case_sensitive.is_none_or(|value| value.value),
        headers: matcher::headers(&value.headers, "headers", at),
        query: list(&value.query_parameters, "query_parameters", at, matcher::query),
        // Rule 65.
        fraction: value
            .runtime_fraction
            .as_ref()
            .and_then(|value| runtime_fraction(value, &at.field("runtime_fraction"))),
        grpc_only: value.grpc.is_some(),
        tls_presented: tls.and_then(|tls| tls.presented).map(|value| value.value),
        tls_validated: tls.and_then(|tls| tls.validated).map(|value| value.value),
        metadata: list(&value.dynamic_metadata, "dynamic_metadata", at, |value, at| {
            metadata::matches(value, MetadataSource::Dynamic, at)
        }),
        cookies: list(&value.cookies, "cookies", at, cookie),
        // Rule 64 ignores it; a route that asks for what nothing sets must not match instead.
        never: !value.filter_state.is_empty(),
    }
}

/// Several parts of one kind.
fn list<V, T>(values: &[V], name: &str, at: &At<'_>, read: impl Fn(&V, &At<'_>) -> Option<T>) -> Vec<T> {
    values.iter().enumerate().filter_map(|(index, value)| read(value, &at.item(name, index))).collect()
}

impl RouteMatch {
    /// Matches nothing.
    pub(super) fn never() -> Self {
        Self { never: true, ..Self::default() }
    }
}

fn cookie(value: &pb::CookieMatcher, at: &At<'_>) -> Option<CookieMatch> {
    if value.name.is_empty() || value.name.len() > LONGEST_COOKIE_NAME {
        at.field("name").fault(format!("must have from 1 to {LONGEST_COOKIE_NAME} bytes"));
    }
    let at_test = at.field("string_match");
    let Some(test) = &value.string_match else {
        at_test.fault("is missing");
        return None;
    };
    Some(CookieMatch { name: value.name.clone(), test: matcher::string(test, &at_test)?, invert: value.invert_match })
}

fn path(value: Option<&PathSpecifier>, at: &At<'_>) -> Option<PathMatch> {
    match value {
        Some(PathSpecifier::Prefix(prefix)) => Some(PathMatch::Prefix(prefix.clone())),
        Some(PathSpecifier::Path(path)) => Some(PathMatch::Exact(path.clone())),
        // Rule 56.
        Some(PathSpecifier::SafeRegex(value)) => matcher::regex(value, &at.field("safe_regex")).map(PathMatch::Regex),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            separated_prefix(prefix, &at.field("path_separated_prefix"))
        }
        Some(PathSpecifier::PathMatchPolicy(value)) => {
            uri_template(value, &at.field("path_match_policy")).map(PathMatch::Template)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => Some(PathMatch::Connect),
        // Rule 55.
        None => {
            at.fault("does not say which path, or says it in a way that is not known here");
            None
        }
    }
}

/// Envoy's rule: two characters or more of a path without query and fragment, the last one no slash.
fn separated_prefix(prefix: &str, at: &At<'_>) -> Option<PathMatch> {
    let good = prefix.len() > 1 && !prefix.ends_with('/') && !prefix.contains(['?', '#']);
    if !good {
        at.fault("must have two characters or more, not end with `/`, and have no `?` and no `#`");
        return None;
    }
    Some(PathMatch::SeparatedPrefix(prefix.to_owned()))
}

/// An extension that is a URI template, the only kind of path matcher there is.
pub(in crate::decode) fn uri_template(value: &TypedExtensionConfig, at: &At<'_>) -> Option<UriTemplate> {
    let at = at.field("typed_config");
    let Some(any) = &value.typed_config else {
        at.fault("is missing");
        return None;
    };
    let config: UriTemplateMatchConfig = envelope::expect(any, &at)?;
    template::matcher(&config.path_template, &at.field("path_template"))
}
