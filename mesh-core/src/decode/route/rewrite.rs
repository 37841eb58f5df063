//! What becomes of the path and the authority, as Envoy checks it.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use http::HeaderValue;

use super::mutation::check_format;
use crate::decode::at::At;
use crate::decode::value::check_line;
use crate::decode::{envelope, matcher, template};
use crate::model::{HostRewrite, PathMatch, PathRewrite, RouteMatch};

/// The path rewrite of a route: one of four fields, two of which cannot be meant together.
pub(super) fn path(value: &pb::RouteAction, matched: &RouteMatch, at: &At<'_>) -> Option<PathRewrite> {
    let given = [
        !value.prefix_rewrite.is_empty(),
        value.regex_rewrite.is_some(),
        value.path_rewrite_policy.is_some(),
        !value.path_rewrite.is_empty(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        at.fault("has more than one of prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite");
    }
    if !value.prefix_rewrite.is_empty() {
        check_line(&value.prefix_rewrite, &at.field("prefix_rewrite"));
        return Some(PathRewrite::Prefix(value.prefix_rewrite.clone()));
    }
    if let Some(rewrite) = &value.regex_rewrite {
        return matcher::rewrite(rewrite, &at.field("regex_rewrite")).map(PathRewrite::Regex);
    }
    if let Some(policy) = &value.path_rewrite_policy {
        return template_rewrite(policy, matched, &at.field("path_rewrite_policy"));
    }
    if value.path_rewrite.is_empty() {
        return None;
    }
    let at = at.field("path_rewrite");
    check_line(&value.path_rewrite, &at);
    Some(match format(&value.path_rewrite, &at) {
        Some(value) => PathRewrite::Format(value),
        None => PathRewrite::Full(value.path_rewrite.clone()),
    })
}

/// A redirect's whole new path. It is a format string in Envoy, which this version does not compute there.
pub(super) fn full(path: &str, at: &At<'_>) -> Option<PathRewrite> {
    check_line(path, at);
    if path.contains('%') {
        format(path, at);
        at.fails_requests();
    }
    Some(PathRewrite::Full(path.to_owned()))
}

/// A format with `%COMMAND%`s; None where there is none in it. Requests to one that cannot be computed fail.
pub(super) fn format(text: &str, at: &At<'_>) -> Option<HeaderValue> {
    let value = text.contains('%').then(|| HeaderValue::from_str(text).ok()).flatten()?;
    check_format(&value, at);
    Some(value)
}

fn template_rewrite(value: &TypedExtensionConfig, matched: &RouteMatch, at: &At<'_>) -> Option<PathRewrite> {
    let at = at.field("typed_config");
    let Some(any) = &value.typed_config else {
        at.fault("is missing");
        return None;
    };
    let config: UriTemplateRewriteConfig = envelope::expect(any, &at)?;
    let at = at.field("path_template_rewrite");
    let PathMatch::Template(from) = &matched.path else {
        at.fault("needs a route that matches by path_match_policy");
        return None;
    };
    template::check_rewrite(&config.path_template_rewrite, from, &at);
    Some(PathRewrite::Template { from: from.clone(), to: config.path_template_rewrite })
}

/// A fixed authority; empty is none.
pub(super) fn host_literal(host: &str, at: &At<'_>) -> Option<HostRewrite> {
    check_line(host, at);
    (!host.is_empty()).then(|| HostRewrite::Literal(host.to_owned()))
}
