//! Headers to add and remove, as Envoy checks them.

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use http::HeaderValue;

use crate::decode::Dialect;
use crate::decode::at::At;
use crate::decode::value::{LONGEST_HEADER, is_sendable, wanted_header};
use crate::model::{AppendAction, HeaderAppend, HeaderMutations};
use crate::route::format;

/// Envoy's bound for one level.
const MOST_ADDED: usize = 1000;

/// The mutations of one level.
pub(super) fn mutations(
    request_add: &[HeaderValueOption],
    request_remove: &[String],
    response_add: &[HeaderValueOption],
    response_remove: &[String],
    at: &At<'_>,
) -> HeaderMutations {
    HeaderMutations {
        request_append: appends(request_add, "request_headers_to_add", at),
        request_remove: removals(request_remove, "request_headers_to_remove", at),
        response_append: appends(response_add, "response_headers_to_add", at),
        response_remove: removals(response_remove, "response_headers_to_remove", at),
    }
}

/// The mutations of a filter, which only adds.
pub(in crate::decode) fn of_filter(
    request_add: &[HeaderValueOption],
    response_add: &[HeaderValueOption],
    at: &At<'_>,
) -> HeaderMutations {
    mutations(request_add, &[], response_add, &[], at)
}

fn appends(values: &[HeaderValueOption], name: &str, at: &At<'_>) -> Vec<HeaderAppend> {
    if values.len() > MOST_ADDED {
        at.field(name).envoy_fault(format!("has more than {MOST_ADDED} headers"));
    }
    values.iter().enumerate().filter_map(|(index, value)| append(value, &at.item(name, index))).collect()
}

pub(in crate::decode) fn append(value: &HeaderValueOption, at: &At<'_>) -> Option<HeaderAppend> {
    let at_header = at.field("header");
    let Some(header) = &value.header else {
        at_header.fault("is missing");
        return None;
    };
    let name = added_name(&header.key, &at_header.field("key"));
    let (bytes, at_value) = if header.raw_value.is_empty() {
        (header.value.as_bytes(), at_header.field("value"))
    } else {
        (&header.raw_value[..], at_header.field("raw_value"))
    };
    let parsed = HeaderValue::from_bytes(bytes).ok().filter(|_| bytes.len() <= LONGEST_HEADER);
    match &parsed {
        Some(value) => check_format(value, &at_value),
        None => at_value.fault("is not the value of a header"),
    }
    let action = action(value, at);
    Some(HeaderAppend { name: name?, value: parsed?, action: action?, keep_empty: value.keep_empty_value })
}

/// The name of a header to add. Envoy takes, and sends, what no message can have; those requests fail here.
fn added_name(name: &str, at: &At<'_>) -> Option<http::HeaderName> {
    if Dialect::is_envoy() && !name.starts_with(':') && is_sendable(name) == Some(false) {
        if name.len() > LONGEST_HEADER {
            at.fault(format!("has more than {LONGEST_HEADER} bytes"));
        }
        at.fails_requests();
        return None;
    }
    mutable_name(name, at)
}

/// `append` is the older spelling, and has priority where it is set: true is append, false is overwrite.
fn action(value: &HeaderValueOption, at: &At<'_>) -> Option<AppendAction> {
    if let Some(append) = &value.append {
        if value.append_action != 0 {
            at.fault("has both append and append_action");
        }
        return Some(if append.value { AppendAction::AppendOrAdd } else { AppendAction::OverwriteOrAdd });
    }
    append_action(value.append_action, &at.field("append_action"))
}

pub(in crate::decode) fn append_action(value: i32, at: &At<'_>) -> Option<AppendAction> {
    match value {
        0 => Some(AppendAction::AppendOrAdd),
        1 => Some(AppendAction::AddIfAbsent),
        2 => Some(AppendAction::OverwriteOrAdd),
        3 => Some(AppendAction::OverwriteIfExists),
        other => {
            at.fault(format!("is {other}, which is not known"));
            None
        }
    }
}

fn removals(values: &[String], name: &str, at: &At<'_>) -> Vec<http::HeaderName> {
    let values = values.iter().enumerate();
    values.filter_map(|(index, value)| mutable_name(value, &at.item(name, index))).collect()
}

/// Pseudo-headers and `host` have rewrites of their own.
pub(in crate::decode) fn mutable_name(name: &str, at: &At<'_>) -> Option<http::HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        at.fault(format!("is `{name}`, which cannot be added or removed; use a rewrite"));
        return None;
    }
    wanted_header(name, at)
}

/// Envoy's format strings: a command that is not known cannot be computed, and sending it as text would be a lie.
pub(in crate::decode) fn check_format(value: &HeaderValue, at: &At<'_>) {
    match format::check(value) {
        Ok(()) => {}
        Err(format::BadFormat::Broken) => at.fault("has a `%` that begins nothing; write `%%` for the character"),
        Err(format::BadFormat::Misused(name)) => {
            at.envoy_fault(format!(
                "has a `%{name}%` with an argument or a length that it does not take, or without one"
            ));
            at.fails_requests();
        }
        Err(format::BadFormat::Unknown(name)) => {
            if !format::is_command(&name) {
                at.envoy_fault(format!("has a `%{name}%`, which Envoy does not know either"));
            }
            at.fails_requests();
        }
    }
}
