//! Local rate limits (Envoy's filter): token buckets of this process, for all requests and for those that rules describe.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, request};
use mesh_core::decode::LocalRateLimitFilter as Decoding;
use mesh_core::error::Error;
use mesh_core::model::{Action, FilterConfig, HttpFilter, LocalRateLimit};
use mesh_core::policy::grpc::GrpcStatus;
use mesh_core::policy::rate_limit::{Left, Limiter, Rules, describe};
use mesh_core::route::format::FormatFacts;
use mesh_core::route::mutate::{mutate_request, mutate_response};

use super::{Filter, FilterFacts, FilterType, Kept, Verdict, config_of};
use crate::reply::Reply;

/// What Envoy says to the client.
const MESSAGE: &str = "local_rate_limited";
/// Says that a refusal is one of a limit: whoever retries must ask for that (`envoy-ratelimited`).
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The local rate limit filter. Its buckets are kept for as long as the configuration that they are of: a Listener's are
/// shared by all routes that do not override it, and a change elsewhere fills none.
#[derive(Debug, Default)]
pub struct LocalRateLimitFilterType {
    kept: Kept<Limiter>,
}

impl LocalRateLimitFilterType {
    fn limiter(&self, config: &Arc<dyn FilterConfig>, policy: &LocalRateLimit) -> Result<Arc<Limiter>, Error> {
        self.kept.get(config, || Ok(Limiter::new(policy, tokio::time::Instant::now().into_std())))
    }
}

impl<F: FilterFacts> FilterType<F> for LocalRateLimitFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn build(&self, filter: &HttpFilter, overrides: &[Arc<dyn FilterConfig>]) -> Result<Arc<dyn Filter<F>>, Error> {
        // The most specific replaces the others whole, buckets and all.
        let config = overrides.last().unwrap_or(&filter.config);
        let policy = config_of::<LocalRateLimit>(config, Decoding::TYPE_URL)?;
        let limiter = self.limiter(config, &policy)?;
        Ok(Arc::new(Limits { policy, limiter, _config: config.clone() }))
    }
}

/// The filter of one route.
#[derive(Debug)]
struct Limits {
    policy: LocalRateLimit,
    limiter: Arc<Limiter>,
    /// Its address is what the buckets are found by.
    _config: Arc<dyn FilterConfig>,
}

impl<F: FilterFacts> Filter<F> for Limits {
    fn on_request(&self, request: &mut request::Parts, facts: &F) -> Verdict {
        let policy = &self.policy;
        if !policy.enabled.contains(fastrand::u64(..)) {
            return Verdict::Continue;
        }
        let descriptors = describe(policy, rules(facts), &facts.format(request), facts.cluster());
        let judged = self.limiter.judge(&descriptors, tokio::time::Instant::now().into_std());
        let left = judged.left.filter(|_| policy.say_what_is_left);
        if judged.allowed {
            return watch(left);
        }
        if !policy.enforced.contains(fastrand::u64(..)) {
            mark(policy, request, facts);
            return watch(left);
        }
        Verdict::Reply(Box::new(refusal(policy, left, &facts.format(request))))
    }
}

fn rules<F: FilterFacts>(facts: &F) -> Rules<'_> {
    let host = facts.host().limits.as_slice();
    match &facts.route().action {
        Action::Forward(forward) => Rules { route: &forward.limits, host, include_host: forward.include_host_limits },
        _ => Rules { route: &[], host, include_host: false },
    }
}

fn watch(left: Option<Left>) -> Verdict {
    match left {
        Some(left) => Verdict::Watch(Box::new(move |response| say(&left, &mut response.headers))),
        None => Verdict::Continue,
    }
}

/// What is left of the limit that decided.
fn say(left: &Left, headers: &mut HeaderMap) {
    headers.insert(LIMIT, HeaderValue::from(left.limit));
    headers.insert(REMAINING, HeaderValue::from(left.remaining));
    // Rounded up: who comes back earlier comes in vain.
    headers.insert(RESET, HeaderValue::from(left.reset.as_secs() + u64::from(left.reset.subsec_nanos() > 0)));
}

/// A request that is over a limit and goes on nevertheless.
fn mark<F: FilterFacts>(policy: &LocalRateLimit, request: &mut request::Parts, facts: &F) {
    if policy.headers.request_append.is_empty() {
        return;
    }
    let mut headers = request.headers.clone();
    mutate_request(&policy.headers, &mut headers, &facts.format(request));
    request.headers = headers;
}

fn refusal(policy: &LocalRateLimit, left: Option<Left>, facts: &FormatFacts<'_>) -> Reply {
    let grpc = if policy.resource_exhausted { GrpcStatus::RESOURCE_EXHAUSTED } else { GrpcStatus::UNAVAILABLE };
    let mut reply = Reply { grpc_status: Some(grpc.0), ..Reply::new(policy.status, MESSAGE) };
    reply.headers.insert(RATE_LIMITED, HeaderValue::from_static("true"));
    mutate_response(&policy.headers, &mut reply.headers, &FormatFacts { status: Some(policy.status), ..*facts });
    if let Some(left) = left {
        say(&left, &mut reply.headers);
    }
    reply
}
