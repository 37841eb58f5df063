//! A call's attempts, one after the other.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use mesh_core::error::{Code, Error};
use mesh_core::policy::retry::Outcome;
use pin_project::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::plan::{Plan, Resend};
use crate::body::MeshBody;
use crate::outbound::ResponseBody;
use crate::outbound::kept::KeptRequest;
use crate::outbound::stage::{At, Attempt, AttemptFailed};

/// A call whose attempts are made in turn.
#[pin_project]
pub(super) struct InTurn<S: Service<Attempt>> {
    inner: S,
    plan: Plan,
    #[pin]
    stage: Stage<S::Future>,
    /// The attempt's own limit; made when the attempt has to wait for the first time.
    #[pin]
    per_try: Option<Sleep>,
    began: Instant,
}

#[pin_project(project = Projected)]
enum Stage<F> {
    Trying(#[pin] F),
    Pausing(#[pin] Sleep),
}

impl<S> InTurn<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    pub(super) fn new(mut inner: S, mut plan: Plan, request: Request<MeshBody>) -> Self {
        let stage = Stage::Trying(inner.call(plan.attempt(request)));
        let began = plan.call.started;
        Self { inner, plan, stage, per_try: None, began }
    }
}

impl<S: Service<Attempt>> InTurn<S> {
    pub(super) fn retries(&self) -> u32 {
        self.plan.retries()
    }
}

impl<S> Future for InTurn<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
    S::Future: At,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            match this.stage.as_mut().project() {
                Projected::Trying(attempt) => {
                    let mut attempt = attempt;
                    let done = match attempt.as_mut().poll(cx) {
                        Poll::Ready(done) => done,
                        Poll::Pending => match per_try(this.plan, this.per_try, *this.began, cx) {
                            // Where it hangs, the next one does not go.
                            Some(failed) => Err(AttemptFailed { picked: attempt.endpoint().cloned(), ..failed }),
                            None => return Poll::Pending,
                        },
                    };
                    if let Some(result) = self.as_mut().judge(done) {
                        return Poll::Ready(result.map_err(|error| error.with_retries(self.plan.retries())));
                    }
                }
                Projected::Pausing(pause) => {
                    if pause.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let request = this.plan.kept.as_ref().filter(|kept| kept.can_replay()).map(KeptRequest::again);
                    let Some(request) = request else {
                        let text = "the request that was kept for another attempt is gone";
                        return Poll::Ready(Err(Error::new(Code::INTERNAL, text)));
                    };
                    self.as_mut().resend(request);
                }
            }
        }
    }
}

impl<S> InTurn<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    /// Ends the call with the attempt's outcome, or starts another attempt.
    fn judge(
        mut self: Pin<&mut Self>,
        done: Result<Response<ResponseBody>, AttemptFailed>,
    ) -> Option<Result<Response<ResponseBody>, Error>> {
        let plan = self.as_mut().project().plan;
        let (resend, done) = match done {
            Ok(mut response) => {
                let outcome = Outcome::Response { status: response.status(), headers: response.headers() };
                // Without a policy a response stands, whatever it says.
                let resend = plan.kept.is_some().then(|| plan.next(&outcome, &mut None)).flatten();
                match resend {
                    Some(_) => plan.avoid(None, Some(&response)),
                    None => plan.commit(&mut response),
                }
                (resend, Ok(response))
            }
            Err(mut failed) => {
                let resend = plan.next(&Outcome::Failed(failed.failure), &mut failed.request);
                plan.avoid(Some(&failed), None);
                (resend, Err(failed.error))
            }
        };
        match resend {
            None => Some(done),
            Some(Resend { request, after: None }) => {
                self.resend(request);
                None
            }
            Some(Resend { after: Some(after), request }) => {
                // What was given back is whole again in what is kept: the pause needs no second copy.
                drop((request, done));
                self.project().stage.set(Stage::Pausing(tokio::time::sleep(after)));
                None
            }
        }
    }

    fn resend(self: Pin<&mut Self>, request: Request<MeshBody>) {
        let mut this = self.project();
        *this.began = tokio::time::Instant::now().into_std();
        this.per_try.set(None);
        let attempt = this.plan.attempt(request);
        let future = this.inner.call(attempt);
        this.stage.set(Stage::Trying(future));
    }
}

/// The failure of an attempt whose own time is up (`per_try_timeout`, `per_try_idle_timeout`).
fn per_try(
    plan: &Plan,
    mut timer: Pin<&mut Option<Sleep>>,
    began: Instant,
    cx: &mut Context<'_>,
) -> Option<AttemptFailed> {
    let (until, limit) = plan.limit_of_attempt(began, true)?;
    if timer.is_none() {
        timer.set(Some(tokio::time::sleep_until(until.into())));
    }
    timer.as_pin_mut()?.poll(cx).is_ready().then(|| plan.given_up(limit))
}
