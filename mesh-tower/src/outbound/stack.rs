//! The stack: every layer that an outbound request passes, in the order it passes them, and why each sits there.

use std::sync::Arc;

use tower_layer::Layer;
use tower_service::Service;

use super::deadline::{Deadline, DeadlineLayer, From};
use super::filter::{Filter, FilterLayer};
use super::limit::{Limit, LimitLayer};
use super::mirror::{Mirror, MirrorLayer};
use super::options::OutboundOptions;
use super::pick::{Pick, PickLayer, Wire};
use super::redirect::{Redirect, RedirectLayer};
use super::resolve::{Resolve, ResolveLayer, Way};
use super::retry::{Retry, RetryLayer};
use super::route::{Route, RouteLayer};
use super::shape::{Shape, ShapeLayer};
use super::stage::Arrived;
use super::target::Targets;

/// What [`stack`] puts together.
pub(crate) type Stack = Resolve<Route<Deadline<Filter<Deadline<Shape<Redirect<Mirror<Retry<Attempts>, Attempts>>>>>>>>;

/// What an attempt passes.
type Attempts = Limit<Pick<Wire>>;

/// A call on its way through the [`Stack`].
pub(crate) type StackFuture = <Stack as Service<Arrived>>::Future;

/// Puts the layers together, in request order.
pub(crate) fn stack(way: Way, targets: Arc<Targets>, options: &OutboundOptions, keep_extensions: bool) -> Stack {
    // The target comes first: everything else is its configuration.
    let resolve = ResolveLayer::new(way, fastrand::u64(..), !keep_extensions);
    // The route and the cluster are decided once, so that retries stay on them (gRFC A31).
    let route = RouteLayer::new(targets);
    // A gRPC deadline and a stream's longest life begin with the call, and cover its filters.
    let deadline = DeadlineLayer(From::Beginning);
    // Filters see the request as the application made it, and answer in the route's place.
    let filter = FilterLayer;
    // Envoy arms the route's timeout once the filters have let the request pass.
    let timeout = DeadlineLayer(From::Here);
    // Rewrites and mutations come after the filters, which match what was asked for, and once for all attempts.
    let shape = ShapeLayer;
    // A redirect is followed with the request as it left, and before its response is anybody's.
    let redirect = RedirectLayer { replay_bytes: options.replay_bytes, own_connections: !keep_extensions };
    // Each attempt is limited and picked anew.
    let retry = RetryLayer { replay_bytes: options.replay_bytes, keep_extensions };
    // A request that is over the cluster's limit must not wait for an endpoint (gRFC A32).
    let limit = LimitLayer;
    // The endpoint is chosen last, among those that can take the request now.
    let pick = PickLayer;
    let attempts: Attempts = limit.layer(pick.layer(Wire));
    // Copies are of the request as it leaves, once for all its attempts.
    let mirror = MirrorLayer::new(attempts.clone(), options.max_mirrors);

    resolve.layer(route.layer(
        deadline.layer(filter.layer(timeout.layer(shape.layer(redirect.layer(mirror.layer(retry.layer(attempts))))))),
    ))
}
