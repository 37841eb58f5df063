//! An attempt that looks for its endpoint, and then goes there.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use mesh_core::balance::{self, CandidateState, MetadataSubsets, PickGuard};
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, HostRewrite};
use mesh_core::policy::retry::Failure;
use mesh_core::publish::Reader;
use mesh_core::snapshot::ClusterConfig;
use pin_project::pin_project;
use tower_service::Service;

use super::choice::choose;
use crate::outbound::ResponseBody;
use crate::outbound::cluster::{Lane, LaneView, note};
use crate::outbound::explain::said;
use crate::outbound::shape::set_authority;
use crate::outbound::stage::{At, Attempt, AttemptFailed, Picked};

/// The future of [`Pick`](super::Pick).
#[pin_project]
pub(crate) struct PickFuture<S: Service<Picked>>(#[pin] Stage<S>);

#[pin_project(project = Projected)]
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
enum Stage<S: Service<Picked>> {
    Picking {
        inner: S,
        attempt: Option<Attempt>,
        /// There once the first look found nobody.
        views: Option<Reader<LaneView>>,
    },
    Sent(#[pin] S::Future),
}

/// What a look at the lane came to.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
enum Look {
    Picked(Picked),
    Wait,
    Fail(Error),
}

impl<S: Service<Picked>> PickFuture<S> {
    pub(super) fn new(inner: S, attempt: Attempt) -> Self {
        Self(Stage::Picking { inner, attempt: Some(attempt), views: None })
    }
}

impl<S: Service<Picked>> At for PickFuture<S>
where
    S::Future: At,
{
    fn endpoint(&self) -> Option<&Arc<CandidateState>> {
        match &self.0 {
            Stage::Picking { .. } => None,
            Stage::Sent(future) => future.endpoint(),
        }
    }
}

impl<S> Future for PickFuture<S>
where
    S: Service<Picked, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    type Output = Result<Response<ResponseBody>, AttemptFailed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().0;
        loop {
            let next = match stage.as_mut().project() {
                Projected::Sent(future) => return future.poll(cx),
                Projected::Picking { inner, attempt, views } => {
                    let cluster = attempt.as_ref().map(|attempt| attempt.cluster.clone());
                    let cluster = cluster.expect("a future is not polled after it is done");
                    let call = attempt.as_ref().map(|attempt| &attempt.call).expect("the attempt is there");
                    let (lane, waits) = (cluster.state().lane(call.grpc, call.http2), call.wait_for_ready);
                    lane.want();
                    match look(lane, attempt) {
                        Look::Picked(picked) => Stage::Sent(inner.call(picked)),
                        Look::Fail(error) if !waits => {
                            return Poll::Ready(Err(unsent(error, attempt.take())));
                        }
                        Look::Fail(_) | Look::Wait => match views {
                            // What changed between the look and now must not be missed: look again.
                            None => {
                                *views = Some(lane.reader());
                                continue;
                            }
                            Some(views) => match views.poll_changed(cx) {
                                Poll::Ready(_) => continue,
                                Poll::Pending => return Poll::Pending,
                            },
                        },
                    }
                }
            };
            stage.set(next);
        }
    }
}

fn look(lane: &Lane, slot: &mut Option<Attempt>) -> Look {
    let view = lane.load();
    let Some(attempt) = slot.as_ref() else { return Look::Wait };
    match choose(&view, attempt) {
        balance::Pick::Candidate(index) => match slot.take() {
            Some(attempt) => Look::Picked(picked(&view, index, attempt)),
            None => Look::Wait,
        },
        balance::Pick::Wait { connect } => {
            if let Some(way) = connect.and_then(|index| view.ways.get(index)) {
                way.connect();
            }
            Look::Wait
        }
        _ => Look::Fail(nobody(&view, attempt)),
    }
}

fn picked(view: &LaneView, index: usize, mut attempt: Attempt) -> Picked {
    let candidate = &view.candidates[index];
    let hostname = &candidate.endpoint.hostname;
    if attempt.auto_host && !hostname.is_empty() {
        // A hostname that is no authority leaves the request's own in place.
        if let Ok(authority) = hostname.parse() {
            let _ = set_authority(&mut attempt.request, authority);
        }
    }
    let guard = PickGuard::new(candidate.state.clone(), candidate.observer.clone(), attempt.call.grpc);
    let state = candidate.state.clone();
    let (number, address) = (attempt.number, candidate.endpoint.address);
    let observer = attempt.call.link.attempt(number, address, attempt.request.headers_mut());
    Picked { request: attempt.request, way: view.ways[index].clone(), observer, guard, state, address }
}

/// Why nobody takes the attempt.
fn nobody(view: &LaneView, attempt: &Attempt) -> Error {
    let cluster = attempt.cluster.name();
    let config = attempt.cluster.state().config();
    let note = note(&config).or(attempt.view.note());
    // gRFC A88's `resolution_note`: what is wrong with the configuration may be why the endpoints are. Where nothing is, whoever
    // looks into it needs to know whom to ask the control plane about.
    let told = |before: &str| match (note, attempt.view.node()) {
        (Some(note), _) => format!("{before}{}", note.message()),
        (None, Some(id)) => format!(" [xDS node id: {id}]"),
        (None, None) => String::new(),
    };
    let error = if view.candidates.is_empty() {
        Error::new(Code::NO_ENDPOINTS, format!("cluster `{cluster}` has no endpoints{}", told(": ")))
    } else if view.any_ready() && has_subsets(&config) {
        let wanted = attempt.metadata.as_ref().map_or_else(|| "it asks for none".to_owned(), |wanted| said(wanted));
        let text = format!("no endpoint of cluster `{cluster}` is in the subset that the route asks for: {wanted}");
        Error::new(Code::NO_ENDPOINTS, text)
    } else {
        no_connection(cluster, view, &told("; besides, "))
    };
    error.with_config_version(attempt.view.version())
}

fn has_subsets(config: &ClusterConfig) -> bool {
    let policy: &dyn Any = &*config.cluster.policy;
    policy.is::<MetadataSubsets>()
}

/// TLS that fails is another fault than a network that does, and has its own code.
fn no_connection(cluster: &str, view: &LaneView, beside: &str) -> Error {
    let count = view.candidates.len();
    match view.last_error() {
        Some(last) if last.kind() == mesh_core::error::Kind::Security => {
            Error::new(last.code(), format!("cluster `{cluster}`: {}{beside}", last.message())).with_source(last)
        }
        Some(last) => {
            let last_words = last.message();
            let text =
                format!("none of the {count} endpoints of cluster `{cluster}` can be reached: {last_words}{beside}");
            Error::new(Code::NO_CONNECTION, text).with_source(last)
        }
        None => {
            let text = format!("none of the {count} endpoints of cluster `{cluster}` is usable{beside}");
            Error::new(Code::NO_CONNECTION, text)
        }
    }
}

/// The request never left: it goes back whole.
fn unsent(error: Error, attempt: Option<Attempt>) -> AttemptFailed {
    let request = attempt.map(|attempt| Box::new(attempt.request));
    AttemptFailed { failure: Failure::NoEndpoint, error, request, picked: None }
}

/// Whether the picked endpoint's hostname becomes the authority (`auto_host_rewrite`). gRPC does so only for servers that
/// the bootstrap trusts (gRFC A81), which nothing says yet.
pub(crate) fn auto_host(action: &Action, grpc: bool) -> bool {
    matches!(action, Action::Forward(forward) if !grpc && forward.host_rewrite == Some(HostRewrite::Auto))
}
