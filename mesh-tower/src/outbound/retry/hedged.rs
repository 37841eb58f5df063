//! A call whose attempts run beside each other: the first good answer is the call's (Envoy's `HedgePolicy`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use mesh_core::error::{Code, Error};
use mesh_core::model::HedgePolicy;
use mesh_core::policy::retry::{Outcome, RetryPermit};
use tokio::time::Sleep;
use tower_service::Service;

use super::plan::{Plan, Resend};
use crate::outbound::ResponseBody;
use crate::outbound::kept::KeptRequest;
use crate::outbound::stage::{At, Attempt, AttemptFailed, Avoid};

type Done = Result<Response<ResponseBody>, AttemptFailed>;

/// A call whose attempts run beside each other.
pub(super) struct Hedged<S: Service<Attempt>> {
    inner: S,
    plan: Plan,
    running: Vec<Running<S::Future>>,
    /// Another attempt is to come.
    pause: Option<(Pin<Box<Sleep>>, Option<RetryPermit>)>,
    /// How long the newest attempt may take before another one joins it; None: no other will.
    patience: Option<Duration>,
    /// Whether an attempt that takes longer than `per_try_timeout` is given up: where none joins it.
    gives_up: bool,
    late: Option<Pin<Box<Sleep>>>,
}

/// An attempt under way.
struct Running<F> {
    future: Pin<Box<F>>,
    permit: Option<RetryPermit>,
    /// Its own limit.
    limit: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl<F: At> Running<F> {
    /// The failure of an attempt whose own time is up.
    fn given_up(&mut self, plan: &Plan, cx: &mut Context<'_>) -> Poll<Done> {
        let Some((timer, limit)) = &mut self.limit else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(AttemptFailed { picked: self.future.endpoint().cloned(), ..plan.given_up(*limit) }))
    }
}

impl<S: Service<Attempt>> Hedged<S> {
    pub(super) fn retries(&self) -> u32 {
        self.plan.retries()
    }
}

impl<S> Hedged<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
    S::Future: At,
{
    /// Starts the attempts that begin at once, as far as the budget agrees to more than one. Another joins each time that one
    /// has taken its `per_try_timeout`, if the policy says so; else that ends it.
    pub(super) fn new(inner: S, plan: Plan, policy: HedgePolicy) -> Self {
        let patience = plan.attempts.policy().and_then(|policy| policy.per_try_timeout);
        let patience = patience.filter(|_| policy.on_per_try_timeout);
        let gives_up = !policy.on_per_try_timeout;
        let mut hedged = Self { inner, plan, running: Vec::new(), pause: None, patience, gives_up, late: None };
        hedged.start(None);
        for _ in 1..policy.initial_requests {
            let Some(permit) = hedged.plan.allowed() else { break };
            hedged.start(Some(permit));
        }
        hedged
    }

    fn start(&mut self, permit: Option<RetryPermit>) {
        let kept = self.plan.kept.as_ref().filter(|kept| kept.can_replay());
        let Some(request) = kept.map(KeptRequest::again) else { return };
        let attempt = self.plan.attempt(request);
        let limit = self.plan.limit_of_attempt(tokio::time::Instant::now().into_std(), self.gives_up);
        let limit = limit.map(|(until, limit)| (Box::pin(tokio::time::sleep_until(until.into())), limit));
        self.running.push(Running { future: Box::pin(self.inner.call(attempt)), permit, limit });
        self.late = self.patience.map(|patience| Box::pin(tokio::time::sleep(patience)));
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<ResponseBody>, Error>> {
        loop {
            if let Some(result) = self.poll_running(cx) {
                return Poll::Ready(result.map_err(|error| error.with_retries(self.retries())));
            }
            if let Some((pause, permit)) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                let permit = permit.take();
                self.pause = None;
                self.start(permit);
            } else if self.running.is_empty() {
                // Its last attempt could not be sent: the body is gone.
                let text = "the request that was kept for another attempt is gone";
                return Poll::Ready(Err(Error::new(Code::INTERNAL, text)));
            } else {
                let Some(late) = &mut self.late else { return Poll::Pending };
                ready!(late.as_mut().poll(cx));
                self.late = None;
                // Where no other may join, those that run have the call's whole time.
                let Some((after, permit)) = self.plan.beside() else { return Poll::Pending };
                self.running
                    .iter()
                    .filter_map(|running| running.future.endpoint())
                    .for_each(|at| self.plan.tried.add(at.clone(), Avoid::Yes));
                self.pause = Some((Box::pin(tokio::time::sleep(after)), Some(permit)));
            }
        }
    }

    /// Asks each attempt once; the call's result, if one of them makes it.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<Result<Response<ResponseBody>, Error>> {
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            let polled = match running.future.as_mut().poll(cx) {
                Poll::Pending => running.given_up(&self.plan, cx),
                done => done,
            };
            match polled {
                Poll::Pending => index += 1,
                Poll::Ready(done) => {
                    let Running { permit, .. } = self.running.swap_remove(index);
                    if let Some(result) = self.judge(done, permit) {
                        return Some(result);
                    }
                }
            }
        }
        None
    }

    fn judge(&mut self, done: Done, permit: Option<RetryPermit>) -> Option<Result<Response<ResponseBody>, Error>> {
        let plan = &mut self.plan;
        let mut failed = None;
        let outcome = match &done {
            Ok(response) => Outcome::Response { status: response.status(), headers: response.headers() },
            Err(failed) => Outcome::Failed(failed.failure),
        };
        let others = !self.running.is_empty() || self.pause.is_some();
        if others && plan.attempts.is_retriable(&outcome) {
            // One that is under way may do better (Envoy).
            plan.avoid(done.as_ref().err(), done.as_ref().ok());
            return None;
        }
        let resend = plan.next(&outcome, &mut failed);
        if let Some(Resend { after, .. }) = resend {
            plan.avoid(done.as_ref().err(), done.as_ref().ok());
            let permit = plan.permit.take();
            self.pause = Some((Box::pin(tokio::time::sleep(after.unwrap_or_default())), permit));
            return None;
        }
        // The others are cancelled.
        self.running.clear();
        Some(match done {
            Ok(mut response) => {
                plan.permit = permit;
                plan.commit(&mut response);
                Ok(response)
            }
            Err(failed) => Err(failed.error),
        })
    }
}
