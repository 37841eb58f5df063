//! A call's attempts, one after the other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, Response};
use mesh_core::error::{Code, Error};
use mesh_core::policy::deadline::{earlier, format_grpc_timeout, parse_grpc_timeout};
use mesh_core::policy::retry::{Attempts, Failure, Next, Now, Outcome, RetryPermit};
use pin_project::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::kept::KeptRequest;
use crate::body::MeshBody;
use crate::outbound::cluster::ClusterHandle;
use crate::outbound::stage::{Attempt, AttemptFailed, Call, Tried};
use crate::outbound::view::TargetView;
use crate::outbound::{ResponseBody, Tries};

/// Envoy's count of attempts, where a virtual host asks for it.
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// What a call spends here before its first attempt leaves; the way to the server takes as long.
const AS_GOOD_AS_NOTHING: Duration = Duration::from_millis(1);
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The future of [`Retry`](super::Retry).
#[pin_project]
pub(crate) struct RetryFuture<S: Service<Attempt>> {
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

/// What is known of a call across its attempts.
pub(super) struct Plan {
    pub(super) attempts: Attempts,
    pub(super) call: Call,
    pub(super) count_in_request: bool,
    pub(super) count_in_response: bool,
    pub(super) view: Arc<TargetView>,
    pub(super) cluster: Arc<ClusterHandle>,
    pub(super) hash: Option<u64>,
    pub(super) deadline: Option<Instant>,
    pub(super) auto_host: bool,
    pub(super) tried: Tried,
    pub(super) number: u32,
    pub(super) permit: Option<RetryPermit>,
    /// How many bytes of the body are kept for another attempt.
    pub(super) replay_bytes: usize,
    pub(super) kept: Option<KeptRequest>,
}

impl Plan {
    /// The next attempt. `number` counts those that the policy asked for.
    fn attempt(&mut self, mut request: Request<MeshBody>) -> Attempt {
        self.number = self.attempts.retries() + 1;
        self.attempts.tell_server(request.headers_mut());
        if self.count_in_request {
            request.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(self.number));
        }
        self.tell_deadline(&mut request);
        Attempt {
            request,
            call: self.call.clone(),
            cluster: self.cluster.clone(),
            view: self.view.clone(),
            hash: self.hash,
            number: self.number,
            tried: self.tried.clone(),
            auto_host: self.auto_host,
        }
    }

    /// gRPC's deadline travels as what is left of it. What the caller said stays as it is while it is true.
    fn tell_deadline(&self, request: &mut Request<MeshBody>) {
        let Some(deadline) = self.deadline.filter(|_| self.call.grpc) else { return };
        let said = request.headers().get(GRPC_TIMEOUT).and_then(|value| parse_grpc_timeout(value.as_bytes()));
        if self.number == 1 && said.and_then(|said| self.call.started.checked_add(said)) == Some(deadline) {
            return;
        }
        let limit = deadline.saturating_duration_since(self.call.started);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now().into_std());
        // The limit of the configuration, too, is told as it is while it is as good as true (Envoy).
        let left = if limit - left < AS_GOOD_AS_NOTHING { limit } else { left };
        if let Ok(value) = HeaderValue::try_from(format_grpc_timeout(left)) {
            request.headers_mut().insert(GRPC_TIMEOUT, value);
        }
    }

    /// What follows an attempt: the request to send, and how long to wait before. None: the outcome stands.
    fn next(&mut self, outcome: &Outcome<'_>, given_back: &mut Option<Box<Request<MeshBody>>>) -> Option<Resend> {
        let now =
            Now { unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), random: fastrand::u64(..) };
        match self.attempts.next(outcome, now) {
            Next::Stop(_) => None,
            Next::Transparent => Some(Resend { request: self.again(given_back)?, after: None }),
            // A request that is not kept cannot wait for its turn.
            Next::Retry(_) if self.kept.is_none() => None,
            Next::Retry(after) => {
                let request = self.again(given_back)?;
                self.permit = None;
                let state = self.cluster.state();
                let limits = state.config().cluster.circuit_breakers;
                self.permit = Some(state.budget().allow(&limits, state.breaker().active())?);
                Some(Resend { request, after: Some(after) })
            }
        }
    }

    /// The request, whole: given back by an endpoint that sent nothing of it, or kept.
    fn again(&self, given_back: &mut Option<Box<Request<MeshBody>>>) -> Option<Request<MeshBody>> {
        match (given_back.take(), &self.kept) {
            (Some(request), _) => Some(*request),
            (None, Some(kept)) if kept.can_replay() => Some(kept.again()),
            _ => None,
        }
    }

    /// Endpoints that failed are avoided for as long as another will do; those that answered, where the policy says so
    /// (`previous_hosts`).
    fn avoid(&mut self, failed: Option<&AttemptFailed>, response: Option<&Response<ResponseBody>>) {
        let failed = failed.and_then(|failed| failed.picked.clone());
        let asked = self.attempts.policy().is_some_and(|policy| policy.avoid_previous_hosts);
        let answered = response.filter(|_| asked).and_then(|response| response.body().endpoint().cloned());
        if let Some(state) = failed.or(answered) {
            self.tried.add(state);
        }
    }

    /// The retries that were made; the policy may have asked for one more than the budget or the request's length allowed.
    fn retries(&self) -> u32 {
        self.number.saturating_sub(1)
    }

    /// The call has its response.
    fn commit(&mut self, response: &mut Response<ResponseBody>) {
        if let Some(kept) = &self.kept {
            kept.commit();
        }
        let retries = self.retries();
        response.body_mut().hold_retry(self.permit.take(), retries);
        let idle = self.attempts.policy().and_then(|policy| policy.per_try_idle_timeout);
        response.body_mut().limit(None, idle, self.call.started);
        if self.count_in_response {
            response.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(self.number));
        }
    }
}

/// Another sending of the request.
struct Resend {
    request: Request<MeshBody>,
    after: Option<Duration>,
}

impl<S> RetryFuture<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    pub(super) fn new(mut inner: S, mut plan: Plan, request: Request<MeshBody>) -> Self {
        let stage = Stage::Trying(inner.call(plan.attempt(request)));
        let began = plan.call.started;
        Self { inner, plan, stage, per_try: None, began }
    }
}

impl<S: Service<Attempt>> Tries for RetryFuture<S> {
    fn retries(&self) -> u32 {
        self.plan.retries()
    }
}

impl<S> Future for RetryFuture<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            match this.stage.as_mut().project() {
                Projected::Trying(attempt) => {
                    let done = match attempt.poll(cx) {
                        Poll::Ready(done) => done,
                        Poll::Pending => match per_try(this.plan, this.per_try, *this.began, cx) {
                            Some(failed) => Err(failed),
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

impl<S> RetryFuture<S>
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
    let policy = plan.attempts.policy()?;
    // Nothing of a response is the longest silence of all.
    let limit = earlier(policy.per_try_timeout, policy.per_try_idle_timeout)?;
    let until = began.checked_add(limit)?;
    // An attempt that may take as long as the call has no limit of its own (Envoy).
    if plan.deadline.is_some_and(|deadline| deadline <= until) {
        return None;
    }
    if timer.is_none() {
        timer.set(Some(tokio::time::sleep_until(until.into())));
    }
    timer.as_pin_mut()?.poll(cx).is_ready().then(|| AttemptFailed {
        failure: Failure::PerTryTimeout,
        error: Error::new(Code::ATTEMPT_TIMEOUT, format!("the attempt was not answered within {limit:?}"))
            .with_config_version(plan.view.version()),
        request: None,
        picked: None,
    })
}
