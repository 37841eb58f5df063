//! What happens to a route's requests: rule 67.

use envoy_types::pb::envoy::config::route::v3 as pb;
use pb::route::Action as Pb;

use super::{direct, forward, redirect};
use crate::decode::Decoder;
use crate::decode::at::At;
use crate::model::{Action, RouteMatch};

/// The action of a route that takes requests that are `matched`.
pub(super) fn action(decoder: &Decoder, value: Option<Pb>, matched: &RouteMatch, max_body: u32, at: &At<'_>) -> Action {
    match value {
        Some(Pb::Route(value)) => forward::forward(decoder, &value, matched, &at.field("route")),
        Some(Pb::Redirect(value)) => redirect::redirect(&value, &at.field("redirect")),
        Some(Pb::DirectResponse(value)) => direct::direct_response(value, max_body, &at.field("direct_response")),
        Some(Pb::NonForwardingAction(_)) => Action::NonForwarding,
        Some(Pb::FilterAction(_)) => Action::Unknown("filter_action".into()),
        // An action of a later version, or none: the route matches, and its requests fail.
        None => {
            at.envoy_fault("says nothing of what to do, or says it in a way that is not known here");
            Action::Unknown("an action that is not known here".into())
        }
    }
}
