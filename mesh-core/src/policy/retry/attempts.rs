//! One call's attempts: what happened, and what happens next.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::backoff::{grpc_backoff, http_backoff, reset_delay};
use super::classify::{Failure, Outcome, is_grpc_retriable, is_http_retriable};
use crate::model::RetryPolicy;
use crate::route::{Binary, RequestFacts};

/// gRPC never makes more attempts than this (gRFC A6).
const GRPC_MAX_ATTEMPTS: u32 = 5;

/// How often a request that never left is repeated without asking the policy. gRPC sets no bound, as its endpoints back
/// off; ours keeps a server that accepts connections and drops them from being called in a tight loop.
const MAX_UNSENT: u32 = 32;

/// Follows the attempts of one call. Without a policy it still knows which failures are safe to repeat.
#[derive(Debug, Clone)]
pub struct Attempts {
    policy: Option<Arc<RetryPolicy>>,
    is_grpc: bool,
    /// Retries by the policy.
    retries: u32,
    /// Retries since the server last said how long to wait: what backoff grows with.
    backoffs: u32,
    /// Transparent repetitions of a request that never left.
    unsent: u32,
    /// Whether a refused request was repeated transparently.
    refused_once: bool,
}

/// What happens after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Make another after this long, if the budget allows.
    Retry(Duration),
    /// Make another at once: the request provably never reached the application. It needs no budget and does not count.
    Transparent,
    /// The outcome stands.
    Stop(Stop),
}

/// Why there is no other attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// There is no policy, or it does not name this outcome.
    NotRetriable,
    /// The policy's attempts are used up.
    Exhausted,
    /// The server asked not to (`grpc-retry-pushback-ms`).
    PushedBack,
}

/// The chance and the time of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The time since the Unix epoch, for responses that say when to come back.
    pub unix: Duration,
    /// 64 random bits.
    pub random: u64,
}

impl Attempts {
    /// Follows a new call. `policy` is its route's, or its virtual host's where the route has none.
    ///
    /// A policy with `retriable_request_headers` counts only for requests that match one of them.
    pub fn new(policy: Option<&Arc<RetryPolicy>>, facts: &RequestFacts<'_>) -> Self {
        let applies = |policy: &&Arc<RetryPolicy>| {
            let wanted = &policy.retriable_request_headers;
            facts.is_grpc || wanted.is_empty() || wanted.iter().any(|header| header.is_match(facts, Binary::Visible))
        };
        Self {
            policy: policy.filter(applies).cloned(),
            is_grpc: facts.is_grpc,
            retries: 0,
            backoffs: 0,
            unsent: 0,
            refused_once: false,
        }
    }

    /// Whether a policy may ask for another attempt: if not, nothing of the request needs keeping for it.
    pub fn may_retry(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| !policy.on.is_empty() && self.retries < self.most(policy))
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&Arc<RetryPolicy>> {
        self.policy.as_ref()
    }

    /// How many retries there were, transparent ones left out: `grpc-previous-rpc-attempts`, one less than
    /// `x-envoy-attempt-count`.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// Says how many attempts there were before this one, as gRPC does: in `grpc-previous-rpc-attempts`, from the second
    /// on (gRFC A6).
    pub fn tell_server(&self, headers: &mut HeaderMap) {
        if self.is_grpc && self.retries > 0 {
            headers.insert("grpc-previous-rpc-attempts", HeaderValue::from(self.retries));
        }
    }

    /// Decides what happens after an attempt that ended with `outcome`. A retry counts as made.
    pub fn next(&mut self, outcome: &Outcome<'_>, now: Now) -> Next {
        if let Outcome::Failed(failure) = outcome
            && self.repeats(*failure)
        {
            return Next::Transparent;
        }
        let Some(policy) = self.policy.clone() else { return Next::Stop(Stop::NotRetriable) };
        if !self.is_retriable(outcome) {
            return Next::Stop(Stop::NotRetriable);
        }
        if self.retries >= self.most(&policy) {
            return Next::Stop(Stop::Exhausted);
        }
        let Some(delay) = self.delay(&policy, outcome, now) else { return Next::Stop(Stop::PushedBack) };
        self.retries += 1;
        Next::Retry(delay)
    }

    /// Whether the policy names `outcome`, however many attempts are left.
    pub fn is_retriable(&self, outcome: &Outcome<'_>) -> bool {
        self.policy.as_ref().is_some_and(|policy| {
            if self.is_grpc { is_grpc_retriable(policy, outcome) } else { is_http_retriable(policy, outcome) }
        })
    }

    /// Decides whether another attempt joins one that is late (Envoy's `hedge_on_per_try_timeout`): whatever the policy
    /// says of timeouts, if it retries at all and attempts are left. A retry counts as made.
    pub fn beside(&mut self, now: Now) -> Next {
        let Some(policy) = self.policy.clone().filter(|_| self.may_retry()) else {
            return Next::Stop(Stop::Exhausted);
        };
        self.retries += 1;
        self.backoffs += 1;
        Next::Retry(http_backoff(&policy.backoff, self.backoffs, now.random))
    }

    /// A request that never left is repeated, with another endpoint; one that the server refused to look at is repeated
    /// once (gRFC A6).
    fn repeats(&mut self, failure: Failure) -> bool {
        match failure {
            Failure::Connect | Failure::BeforeRequest => {
                self.unsent += 1;
                self.unsent <= MAX_UNSENT
            }
            Failure::Refused => !std::mem::replace(&mut self.refused_once, true),
            _ => false,
        }
    }

    fn most(&self, policy: &RetryPolicy) -> u32 {
        if self.is_grpc { policy.num_retries.min(GRPC_MAX_ATTEMPTS - 1) } else { policy.num_retries }
    }

    /// How long to wait; None if the server asked for no other attempt.
    fn delay(&mut self, policy: &RetryPolicy, outcome: &Outcome<'_>, now: Now) -> Option<Duration> {
        let headers = match outcome {
            Outcome::Response { headers, .. } => Some(*headers),
            Outcome::Failed(_) => None,
        };
        if self.is_grpc {
            if let Some(pushback) = headers.and_then(pushback) {
                self.backoffs = 0;
                return pushback;
            }
            self.backoffs += 1;
            return Some(grpc_backoff(&policy.backoff, self.backoffs, now.random));
        }
        let limited = policy.rate_limited_backoff.as_ref().zip(headers);
        if let Some(delay) = limited.and_then(|(limited, headers)| reset_delay(limited, headers, now.unix, now.random))
        {
            return Some(delay);
        }
        self.backoffs += 1;
        Some(http_backoff(&policy.backoff, self.backoffs, now.random))
    }
}

/// `grpc-retry-pushback-ms`: how long the server wants us to wait; inner None (a negative number, or none at all) is
/// forever. Outer None: it did not say.
fn pushback(headers: &HeaderMap) -> Option<Option<Duration>> {
    let value = headers.get("grpc-retry-pushback-ms")?;
    let millis = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    Some(millis.map(|millis| Duration::from_millis(millis.into())))
}
