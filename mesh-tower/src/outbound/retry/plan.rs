//! What is known of a call across its attempts, and what follows each.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, Response};
use mesh_core::error::{Code, Error};
use mesh_core::model::Metadata;
use mesh_core::policy::deadline::{earlier, format_grpc_timeout, parse_grpc_timeout};
use mesh_core::policy::retry::{Attempts, Failure, Next, Now, Outcome, RetryPermit};

use crate::body::MeshBody;
use crate::outbound::ResponseBody;
use crate::outbound::cluster::ClusterHandle;
use crate::outbound::kept::KeptRequest;
use crate::outbound::stage::{Attempt, AttemptFailed, Avoid, Call, Tried};
use crate::outbound::view::TargetView;

/// Envoy's count of attempts, where a virtual host asks for it.
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// What a call spends here before its first attempt leaves; the way to the server takes as long.
const AS_GOOD_AS_NOTHING: Duration = Duration::from_millis(1);
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

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
    pub(super) metadata: Option<Arc<Metadata>>,
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
    pub(super) fn attempt(&mut self, mut request: Request<MeshBody>) -> Attempt {
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
            choice: self.attempts.policy().filter(|policy| self.number > 1 && policy.chooses_hosts()).cloned(),
            metadata: self.metadata.clone(),
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
        let left = if limit.saturating_sub(left) < AS_GOOD_AS_NOTHING { limit } else { left };
        if let Ok(value) = HeaderValue::try_from(format_grpc_timeout(left)) {
            request.headers_mut().insert(GRPC_TIMEOUT, value);
        }
    }

    /// What follows an attempt: the request to send, and how long to wait before. None: the outcome stands.
    pub(super) fn next(
        &mut self,
        outcome: &Outcome<'_>,
        given_back: &mut Option<Box<Request<MeshBody>>>,
    ) -> Option<Resend> {
        match self.attempts.next(outcome, now()) {
            Next::Stop(_) => None,
            Next::Transparent => Some(Resend { request: self.again(given_back)?, after: None }),
            // A request that is not kept cannot wait for its turn.
            Next::Retry(_) if self.kept.is_none() => None,
            Next::Retry(after) => {
                let request = self.again(given_back)?;
                self.permit = None;
                self.permit = Some(self.allowed()?);
                Some(Resend { request, after: Some(after) })
            }
        }
    }

    /// When an attempt that `began` then is over, and how long that is: `per_try_timeout`, unless it only has another attempt
    /// join, and `per_try_idle_timeout`, as nothing of a response is the longest silence of all.
    pub(super) fn limit_of_attempt(&self, began: Instant, gives_up: bool) -> Option<(Instant, Duration)> {
        let policy = self.attempts.policy()?;
        let limit = earlier(policy.per_try_timeout.filter(|_| gives_up), policy.per_try_idle_timeout)?;
        let until = began.checked_add(limit)?;
        // An attempt that may take as long as the call has no limit of its own (Envoy).
        self.deadline.is_none_or(|deadline| until < deadline).then_some((until, limit))
    }

    /// What became of an attempt whose own time is up.
    pub(super) fn given_up(&self, limit: Duration) -> AttemptFailed {
        let error = Error::new(Code::ATTEMPT_TIMEOUT, format!("the attempt was not answered within {limit:?}"));
        AttemptFailed {
            failure: Failure::PerTryTimeout,
            error: error.with_config_version(self.view.version()),
            request: None,
            picked: None,
        }
    }

    /// A permit for one more attempt, if the cluster's budget agrees.
    pub(super) fn allowed(&self) -> Option<RetryPermit> {
        let state = self.cluster.state();
        let limits = state.config().cluster.circuit_breakers;
        state.budget().allow(&limits, state.breaker().active())
    }

    /// How long to wait before another attempt beside one that is late; None: there is none to come.
    pub(super) fn beside(&mut self) -> Option<(Duration, RetryPermit)> {
        self.kept.as_ref().filter(|kept| kept.can_replay())?;
        match self.attempts.beside(now()) {
            Next::Retry(after) => Some((after, self.allowed()?)),
            _ => None,
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
    pub(super) fn avoid(&mut self, failed: Option<&AttemptFailed>, response: Option<&Response<ResponseBody>>) {
        let failed = failed.and_then(|failed| failed.picked.clone());
        if let Some(state) = failed {
            self.tried.add(state, Avoid::Yes);
        } else if let Some(policy) = self.attempts.policy()
            && (policy.avoid_previous_hosts || policy.previous_priorities.is_some())
            && let Some(state) = response.and_then(|response| response.body().endpoint().cloned())
        {
            self.tried.add(state, if policy.avoid_previous_hosts { Avoid::Yes } else { Avoid::No });
        }
    }

    /// The retries that were made; the policy may have asked for one more than the budget or the request's length allowed.
    pub(super) fn retries(&self) -> u32 {
        self.number.saturating_sub(1)
    }

    /// The call has its response.
    pub(super) fn commit(&mut self, response: &mut Response<ResponseBody>) {
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
pub(super) struct Resend {
    pub(super) request: Request<MeshBody>,
    pub(super) after: Option<Duration>,
}

/// The time and the chance of a decision.
fn now() -> Now {
    Now { unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), random: fastrand::u64(..) }
}
