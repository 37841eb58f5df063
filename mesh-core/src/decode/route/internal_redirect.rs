//! `InternalRedirectPolicy`, as Envoy checks it, and the older fields that say less.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::internal_redirect as extensions;
use extensions::allow_listed_routes::v3::AllowListedRoutesConfig;
use extensions::previous_routes::v3::PreviousRoutesConfig;
use extensions::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use http::{HeaderName, StatusCode};
use pb::route_action::InternalRedirectAction;
use prost::Name as _;

use crate::decode::at::At;
use crate::decode::envelope::{bare, expect};
use crate::decode::value::wanted_header;
use crate::model::{InternalRedirect, RedirectPredicate};

/// Envoy's bound: there are no more.
const MOST_CODES: usize = 5;
/// The statuses that can be followed.
const CODES: [u32; MOST_CODES] = [301, 302, 303, 307, 308];

/// The redirects that a route's requests follow; None: they are the caller's.
#[allow(deprecated, reason = "the older spelling is still sent, and Envoy reads it")]
pub(super) fn internal_redirect(value: &pb::RouteAction, at: &At<'_>) -> Option<Box<InternalRedirect>> {
    if let Some(policy) = &value.internal_redirect_policy {
        return Some(Box::new(policy_of(policy, &at.field("internal_redirect_policy"))));
    }
    let handled = value.internal_redirect_action == InternalRedirectAction::HandleInternalRedirect as i32;
    let max = value.max_internal_redirects.map_or(1, |max| max.value);
    handled.then(|| Box::new(InternalRedirect { max, ..InternalRedirect::default() }))
}

fn policy_of(value: &pb::InternalRedirectPolicy, at: &At<'_>) -> InternalRedirect {
    let mut policy = InternalRedirect {
        max: value.max_internal_redirects.map_or(1, |max| max.value),
        cross_scheme: value.allow_cross_scheme_redirect,
        predicates: value
            .predicates
            .iter()
            .enumerate()
            .filter_map(|(index, value)| predicate(value, &at.item("predicates", index)))
            .collect(),
        copied_headers: copied_headers(&value.response_headers_to_copy, at),
        ..InternalRedirect::default()
    };
    if value.redirect_response_codes.len() > MOST_CODES {
        at.field("redirect_response_codes").envoy_fault(format!("has more than {MOST_CODES} codes"));
    }
    if !value.redirect_response_codes.is_empty() {
        // Envoy takes any number; what is no redirect is not followed.
        let known = CODES.into_iter().filter(|code| value.redirect_response_codes.contains(code));
        policy.codes = known.filter_map(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok()).collect();
    }
    policy
}

/// One that is not known can't be asked, and so nothing may be followed: whatever reads the resource refuses it.
fn predicate(value: &TypedExtensionConfig, at: &At<'_>) -> Option<RedirectPredicate> {
    if value.name.is_empty() {
        at.field("name").envoy_fault("is empty");
    }
    let at = at.field("typed_config");
    let Some(any) = &value.typed_config else {
        at.fault("is missing");
        return None;
    };
    match bare(&any.type_url) {
        kind if kind == PreviousRoutesConfig::full_name() => {
            expect::<PreviousRoutesConfig>(any, &at).map(|_| RedirectPredicate::PreviousRoutes)
        }
        kind if kind == SafeCrossSchemeConfig::full_name() => {
            expect::<SafeCrossSchemeConfig>(any, &at).map(|_| RedirectPredicate::SafeCrossScheme)
        }
        kind if kind == AllowListedRoutesConfig::full_name() => {
            let names = expect::<AllowListedRoutesConfig>(any, &at)?.allowed_route_names;
            Some(RedirectPredicate::AllowListed(names.into_iter().map(Into::into).collect()))
        }
        kind => {
            at.fault(format!("is a `{kind}`, which is not a predicate that is known"));
            None
        }
    }
}

fn copied_headers(names: &[String], at: &At<'_>) -> Vec<HeaderName> {
    let mut seen = BTreeSet::new();
    let mut headers = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let at = at.item("response_headers_to_copy", index);
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            at.fault(format!("is `{name}`, which is not for a response to choose"));
        } else if !seen.insert(name) {
            at.envoy_fault(format!("is `{name}`, which is there twice"));
        } else {
            headers.extend(wanted_header(name, &at));
        }
    }
    headers
}
