//! A call's attempts: in turn, or beside each other where the route hedges.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use mesh_core::error::Error;
use pin_project::pin_project;
use tower_service::Service;

use super::hedged::Hedged;
use super::in_turn::InTurn;
use super::plan::Plan;
use crate::body::MeshBody;
use crate::outbound::stage::{At, Attempt, AttemptFailed};
use crate::outbound::{ResponseBody, Tries};

/// The future of [`Retry`](super::Retry).
#[pin_project]
pub(crate) struct RetryFuture<S: Service<Attempt>>(#[pin] Way<S>);

#[pin_project(project = Projected)]
#[allow(clippy::large_enum_variant, reason = "the large one is the common one, and a box would be an allocation")]
enum Way<S: Service<Attempt>> {
    InTurn(#[pin] InTurn<S>),
    Hedged(Box<Hedged<S>>),
}

impl<S> RetryFuture<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    pub(super) fn in_turn(inner: S, plan: Plan, request: Request<MeshBody>) -> Self {
        Self(Way::InTurn(InTurn::new(inner, plan, request)))
    }

    pub(super) fn hedged(hedged: Hedged<S>) -> Self {
        Self(Way::Hedged(Box::new(hedged)))
    }
}

impl<S: Service<Attempt>> Tries for RetryFuture<S> {
    fn retries(&self) -> u32 {
        match &self.0 {
            Way::InTurn(calls) => calls.retries(),
            Way::Hedged(calls) => calls.retries(),
        }
    }
}

impl<S> Future for RetryFuture<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
    S::Future: At,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            Projected::InTurn(calls) => calls.poll(cx),
            Projected::Hedged(calls) => calls.poll(cx),
        }
    }
}
