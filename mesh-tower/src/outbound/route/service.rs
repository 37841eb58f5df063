//! Decides on each request.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, ClusterChoice};
use mesh_core::policy::deadline::{deadline, grpc_timeout, http_timeouts, parse_grpc_timeout};
use mesh_core::route::hash::request_hash;
use mesh_core::route::{Decision, NoDecision};
use tower_service::Service;

use super::RouteFuture;
use crate::outbound::redirect::Onward;
use crate::outbound::stage::{Call, Resolved, Routed};
use crate::outbound::target::Targets;
use crate::outbound::view::TargetView;
use crate::outbound::{ResponseBody, refuse_unsupported};
use crate::reply::Reply;

/// Gives each request its route and cluster.
#[derive(Clone)]
pub(crate) struct Route<S> {
    inner: S,
    targets: Arc<Targets>,
}

impl<S> Route<S> {
    pub(super) fn new(inner: S, targets: Arc<Targets>) -> Self {
        Self { inner, targets }
    }
}

impl<S> Service<Resolved> for Route<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RouteFuture<S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, resolved: Resolved) -> RouteFuture<S> {
        let routed = match decide(resolved) {
            Err(Refusal::Error(error)) => return RouteFuture::failed(error),
            Err(Refusal::Reply(response)) => return RouteFuture::answered(*response),
            Ok(routed) => routed,
        };
        let onward = Onwards::of(self, &routed);
        if let Some(name) = named_cluster(&routed) {
            match &routed.cluster {
                Some(Ok(cluster)) => cluster.lease().touch(),
                Some(Err(_)) => {}
                // The graph has not been asked for it yet.
                None => {
                    if let Some(slot) = self.targets.get(&routed.view.snapshot.target) {
                        self.targets.want_cluster(&slot, &name);
                        return RouteFuture::waiting(self.inner.clone(), routed, &slot, name, onward);
                    }
                }
            }
        }
        RouteFuture::routed(self.inner.call(routed), onward)
    }
}

/// What decides on a request again, where its route follows redirects.
pub(super) struct Onwards<S> {
    route: Route<S>,
    call: Call,
    view: Arc<TargetView>,
}

impl<S: Clone> Onwards<S> {
    /// None, and nothing is kept for it: every response of the route is the caller's.
    fn of(route: &Route<S>, routed: &Routed) -> Option<Box<Self>> {
        routed.forward()?.internal_redirect.as_ref()?;
        Some(Box::new(Self { route: route.clone(), call: routed.call.clone(), view: routed.view.clone() }))
    }
}

impl<S> Onwards<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    /// The request that a redirect leads to, under the configuration that the first one is under. Its host chooses the virtual
    /// host, also where a fixed target did before: another service's redirects are not to end at this one.
    pub(super) fn follow(mut self, onward: Onward) -> RouteFuture<S> {
        let Onward { request, trail, https, dice } = onward;
        self.call.https |= https;
        let resolved =
            Resolved { request, call: self.call, view: self.view, authority: None, dice, trail: Some(trail) };
        self.route.call(resolved)
    }
}

/// Why a request gets no further.
enum Refusal {
    Error(Error),
    Reply(Box<Response<ResponseBody>>),
}

/// The cluster that a request has brought up by a header or a redirect: the target's configuration may not have it.
fn named_cluster(routed: &Routed) -> Option<mesh_core::model::Name> {
    let chosen = routed.decision.cluster.as_ref()?;
    let by_header = match &routed.forward()?.cluster {
        ClusterChoice::Header(_) => true,
        ClusterChoice::Weighted(_) => routed.decision.weighted_cluster().is_some_and(|one| one.header.is_some()),
        _ => false,
    };
    // A redirect may lead to another virtual host, whose clusters nobody has asked for.
    (by_header || routed.trail.is_some()).then(|| chosen.name.clone())
}

fn decide(resolved: Resolved) -> Result<Routed, Refusal> {
    let Resolved { request, call, view, authority, dice, trail } = resolved;
    let facts = call.facts_of(request.method(), request.uri(), request.headers());
    let host = authority.as_deref().unwrap_or(facts.authority);
    let decision = match view.index().decide(host, &facts, dice) {
        Ok(decision) => decision,
        Err(why) => return Err(no_decision(&view, &why, &facts, call.grpc)),
    };
    if let Some(chosen) = &decision.cluster {
        call.link.decided(&chosen.name, &decision.route.name, view.version());
    }
    supported(&view, &decision).map_err(|error| Refusal::Error(error.with_config_version(view.version())))?;
    let cluster = decision.cluster.as_ref().and_then(|chosen| view.cluster(&chosen.name));
    let (mut hash, mut until) = (None, None);
    if let Action::Forward(forward) = &decision.route.action {
        hash = request_hash(&forward.hash, &facts).value;
        let connection_max = view.http().max_stream_duration;
        let limit = if call.grpc {
            let asked = request.headers().get("grpc-timeout").and_then(|value| parse_grpc_timeout(value.as_bytes()));
            grpc_timeout(asked, &forward.max_stream_duration, connection_max)
        } else {
            http_timeouts(forward, connection_max).stream
        };
        until = deadline(call.started, limit);
    }
    Ok(Routed { request, call, view, decision, cluster, hash, deadline: until, steering: None, trail })
}

fn supported(view: &TargetView, decision: &Decision) -> Result<(), Error> {
    let table = view.table();
    refuse_unsupported(&view.http().unsupported, || format!("Listener `{}`", view.snapshot.listener.name))?;
    refuse_unsupported(&table.unsupported, || format!("route table `{}`", table.name))?;
    refuse_unsupported(&decision.host.unsupported, || format!("virtual host `{}`", decision.host.name))?;
    refuse_unsupported(&decision.route.unsupported, || format!("route `{}`", decision.route.name))
}

fn no_decision(view: &TargetView, why: &NoDecision, facts: &mesh_core::route::RequestFacts<'_>, grpc: bool) -> Refusal {
    let code = match why {
        NoDecision::NoVirtualHost => Code::NO_VIRTUAL_HOST,
        NoDecision::NoRoute { .. } => Code::NO_ROUTE,
        _ => Code::NO_CLUSTER,
    };
    let (table, target) = (&view.table().name, &view.snapshot.target);
    let text =
        format!("{why}: {} {}{} (target `{target}`, route table `{table}`)", facts.method, facts.authority, facts.path);
    let error = Error::new(code, text).with_config_version(view.version());
    if let NoDecision::NoClusterHeader { route, .. } = why
        && let Action::Forward(forward) = &route.action
        && !grpc
    {
        return Refusal::Reply(Box::new(not_found(forward.cluster_not_found, &error)));
    }
    Refusal::Error(error)
}

/// `cluster_not_found_response_code`, with the reason as any other refusal has it.
pub(crate) fn not_found(status: http::StatusCode, error: &Error) -> Response<ResponseBody> {
    let reply = Reply { status, message: error.to_string(), ..Reply::of(error) };
    reply.into_response(false).map(|text| ResponseBody::ours(text.into()))
}
