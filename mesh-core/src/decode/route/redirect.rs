//! `RedirectAction`, as Envoy checks it.

use envoy_types::pb::envoy::config::route::v3 as pb;
use http::StatusCode;
use pb::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};

use super::rewrite;
use crate::decode::at::At;
use crate::decode::matcher;
use crate::decode::value::check_line;
use crate::model::{Action, PathRewrite, Redirect};

/// A redirect.
pub(super) fn redirect(value: &pb::RedirectAction, at: &At<'_>) -> Action {
    check_line(&value.host_redirect, &at.field("host_redirect"));
    Action::Redirect(Box::new(Redirect {
        scheme: scheme(value, at),
        host: (!value.host_redirect.is_empty()).then(|| value.host_redirect.clone()),
        port: port(value.port_redirect, &at.field("port_redirect")),
        path: path(value.path_rewrite_specifier.as_ref(), at),
        status: status(value.response_code, &at.field("response_code")),
        strip_query: value.strip_query,
    }))
}

fn scheme(value: &pb::RedirectAction, at: &At<'_>) -> Option<String> {
    match value.scheme_rewrite_specifier.as_ref()? {
        SchemeRewriteSpecifier::HttpsRedirect(https) => https.then(|| "https".to_owned()),
        SchemeRewriteSpecifier::SchemeRedirect(scheme) => {
            check_line(scheme, &at.field("scheme_redirect"));
            (!scheme.is_empty()).then(|| scheme.clone())
        }
    }
}

/// Envoy takes any number, and writes it; one that is no port makes no URL, so those requests fail.
fn port(value: u32, at: &At<'_>) -> Option<u16> {
    let port = u16::try_from(value).ok();
    if port.is_none() {
        at.fails_requests();
    }
    port.filter(|port| *port != 0)
}

fn path(value: Option<&PathRewriteSpecifier>, at: &At<'_>) -> Option<PathRewrite> {
    match value? {
        PathRewriteSpecifier::PathRedirect(path) => {
            check_line(path, &at.field("path_redirect"));
            (!path.is_empty()).then(|| PathRewrite::Full(path.clone()))
        }
        PathRewriteSpecifier::PrefixRewrite(prefix) => {
            check_line(prefix, &at.field("prefix_rewrite"));
            (!prefix.is_empty()).then(|| PathRewrite::Prefix(prefix.clone()))
        }
        PathRewriteSpecifier::RegexRewrite(value) => {
            matcher::rewrite(value, &at.field("regex_rewrite")).map(PathRewrite::Regex)
        }
        PathRewriteSpecifier::PathRewrite(path) => rewrite::full(path, &at.field("path_rewrite")),
    }
}

fn status(value: i32, at: &At<'_>) -> StatusCode {
    match value {
        0 => StatusCode::MOVED_PERMANENTLY,
        1 => StatusCode::FOUND,
        2 => StatusCode::SEE_OTHER,
        3 => StatusCode::TEMPORARY_REDIRECT,
        4 => StatusCode::PERMANENT_REDIRECT,
        other => {
            at.fault(format!("is {other}, which is not known"));
            StatusCode::MOVED_PERMANENTLY
        }
    }
}
