//! Redirects that are followed: what a policy may ask for.

use envoy_types::pb::envoy::extensions::internal_redirect as extensions;
use extensions::allow_listed_routes::v3::AllowListedRoutesConfig;
use extensions::previous_routes::v3::PreviousRoutesConfig;
use extensions::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use http::StatusCode;
use prost::Name as _;

use super::actions::route_action;
use super::values::{first, forwarding};
use super::*;
use crate::model::{InternalRedirect, RedirectPredicate};

type Policy = pb::InternalRedirectPolicy;

fn policy(action: &mut pb::RouteAction) -> &mut Policy {
    action.internal_redirect_policy.get_or_insert_default()
}

fn read(change: fn(&mut pb::RouteAction)) -> Option<InternalRedirect> {
    let table: Arc<RouteTable> = route_action().value(change);
    assert_eq!(first(&table).unsupported, []);
    forwarding(&table).internal_redirect.as_deref().cloned()
}

#[test]
fn a_policy_that_says_nothing_follows_one_302_and_a_route_without_one_none() {
    assert_eq!(read(|_| {}), None);
    assert_eq!(read(|action| *policy(action) = Policy::default()), Some(InternalRedirect::default()));
}

#[test]
fn a_policy_says_which_how_many_and_where_to() {
    let found = read(|action| {
        *policy(action) = Policy {
            max_internal_redirects: u32_value(3),
            redirect_response_codes: vec![307, 304, 301, 301],
            allow_cross_scheme_redirect: true,
            response_headers_to_copy: vec!["X-A".to_owned()],
            predicates: vec![
                extension(&PreviousRoutesConfig {}),
                extension(&AllowListedRoutesConfig { allowed_route_names: vec!["two".to_owned()] }),
                extension(&SafeCrossSchemeConfig {}),
            ],
        };
    });
    let listed = RedirectPredicate::AllowListed(vec!["two".into()]);
    let expected = InternalRedirect {
        max: 3,
        // 304 is none that leads anywhere.
        codes: vec![StatusCode::MOVED_PERMANENTLY, StatusCode::TEMPORARY_REDIRECT],
        cross_scheme: true,
        predicates: vec![RedirectPredicate::PreviousRoutes, listed, RedirectPredicate::SafeCrossScheme],
        copied_headers: vec![http::HeaderName::from_static("x-a")],
    };
    assert_eq!(found, Some(expected));
    // Only what is listed: not even 302.
    let none = read(|action| policy(action).redirect_response_codes = vec![304]).expect("there is one");
    assert!(none.codes.is_empty());
}

#[test]
#[allow(deprecated, reason = "the older spelling is still sent")]
fn the_older_fields_say_less_and_only_where_there_is_no_policy() {
    use pb::route_action::InternalRedirectAction;
    fn handle(action: &mut pb::RouteAction) {
        action.internal_redirect_action = InternalRedirectAction::HandleInternalRedirect as i32;
        action.max_internal_redirects = u32_value(2);
    }
    assert_eq!(read(handle).map(|found| found.max), Some(2));
    assert_eq!(read(|action| action.max_internal_redirects = u32_value(2)), None);
    let both = read(|action| {
        handle(action);
        *policy(action) = Policy::default();
    });
    assert_eq!(both.map(|found| found.max), Some(1));
}

#[test]
fn what_cannot_be_asked_or_chosen_is_refused() {
    route_action().refuses(&[
        (0, "internal_redirect_policy.predicates[0].typed_config", |action| {
            policy(action).predicates = vec![extension(&Policy::default())];
        }),
        (0, "internal_redirect_policy.predicates[1].typed_config", |action| {
            let nothing = core::TypedExtensionConfig { name: "previous_routes".to_owned(), typed_config: None };
            policy(action).predicates = vec![extension(&PreviousRoutesConfig {}), nothing];
        }),
        (0, "internal_redirect_policy.predicates[0].typed_config", |action| {
            let broken = garbage(&AllowListedRoutesConfig::full_name());
            policy(action).predicates =
                vec![core::TypedExtensionConfig { name: "x".to_owned(), typed_config: Some(broken) }];
        }),
        (0, "internal_redirect_policy.response_headers_to_copy[0]", |action| {
            policy(action).response_headers_to_copy = vec![":path".to_owned()];
        }),
        (0, "internal_redirect_policy.response_headers_to_copy[1]", |action| {
            policy(action).response_headers_to_copy = vec!["x-a".to_owned(), "Host".to_owned()];
        }),
    ]);
    route_action().takes(&[
        (0, "predicates", |action| policy(action).predicates = vec![extension(&PreviousRoutesConfig {})]),
        (0, "headers", |action| policy(action).response_headers_to_copy = vec!["x-a".to_owned(), "x-host".to_owned()]),
    ]);
}
