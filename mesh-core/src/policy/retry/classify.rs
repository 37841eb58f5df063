//! How an attempt ended, and whether that is worth another.

use http::{HeaderMap, StatusCode};

use crate::model::{RetryOn, RetryPolicy};
use crate::policy::grpc::GrpcStatus;

/// How an attempt ended, or began to: what is known when its response's head arrives.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// A response's head.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its headers; those of a gRPC "trailers-only" response hold `grpc-status`.
        headers: &'a HeaderMap,
    },
    /// There is no response.
    Failed(Failure),
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// No connection could be made; the request never left.
    Connect,
    /// There is no endpoint that a connection could be made to. Repeating that at once is no use.
    NoEndpoint,
    /// The connection ended before any of the request was written.
    BeforeRequest,
    /// The server said that it did not look at the request: REFUSED_STREAM, or a GOAWAY with a lower stream.
    Refused,
    /// The exchange broke: a reset, with its HTTP/2 error code if there is one, or a lost connection.
    Reset {
        /// The error code of RST_STREAM.
        code: Option<u32>,
    },
    /// The attempt's own time was up (`per_try_timeout`, `per_try_idle_timeout`).
    PerTryTimeout,
    /// The mesh itself refused: circuit breaker, drop, fault. Never retried.
    Refusal,
}

impl Failure {
    /// Whether the request provably never reached the application, so that another attempt is safe whatever the policy
    /// (gRFC A6, "transparent retries").
    pub fn is_unseen(self) -> bool {
        matches!(self, Self::Connect | Self::NoEndpoint | Self::BeforeRequest | Self::Refused)
    }
}

/// Envoy's verdict on an HTTP attempt: whether a condition of the policy holds.
pub fn is_http_retriable(policy: &RetryPolicy, outcome: &Outcome<'_>) -> bool {
    match outcome {
        Outcome::Response { status, headers } => is_response_retriable(policy, *status, headers),
        Outcome::Failed(failure) => is_failure_retriable(policy.on, *failure),
    }
}

fn is_response_retriable(policy: &RetryPolicy, status: StatusCode, headers: &HeaderMap) -> bool {
    // An answer that was rate limited is retried only by who asks for just that, whatever its status.
    if headers.contains_key("x-envoy-ratelimited") {
        return policy.on.intersects(RetryOn::ENVOY_RATELIMITED);
    }
    let on = |condition| policy.on.intersects(condition);
    (on(RetryOn::FIVE_XX) && status.is_server_error())
        || (on(RetryOn::GATEWAY_ERROR) && matches!(status.as_u16(), 502..=504))
        || (on(RetryOn::RETRIABLE_4XX) && status == StatusCode::CONFLICT)
        || (on(RetryOn::RETRIABLE_STATUS_CODES) && policy.status_codes.contains(&status))
        || (on(RetryOn::RETRIABLE_HEADERS)
            && policy.retriable_headers.iter().any(|header| header.is_response_match(headers)))
        || (on(RetryOn::GRPC) && GrpcStatus::of(headers).is_some_and(|status| on(condition_of(status))))
}

fn is_failure_retriable(on: RetryOn, failure: Failure) -> bool {
    // No response at all is what all three of these name.
    let no_response = RetryOn::FIVE_XX.union(RetryOn::GATEWAY_ERROR).union(RetryOn::RESET);
    let conditions = match failure {
        Failure::Connect | Failure::NoEndpoint => {
            no_response.union(RetryOn::CONNECT_FAILURE).union(RetryOn::RESET_BEFORE_REQUEST)
        }
        Failure::BeforeRequest => no_response.union(RetryOn::RESET_BEFORE_REQUEST),
        Failure::Refused => no_response.union(RetryOn::REFUSED_STREAM),
        Failure::Reset { .. } | Failure::PerTryTimeout => no_response,
        Failure::Refusal => RetryOn::NONE,
    };
    on.intersects(conditions)
}

/// gRPC's verdict: whether the status that the attempt ended with is one that the policy names. A response whose head has
/// no status has begun for good, and is not (gRFC A6).
pub fn is_grpc_retriable(policy: &RetryPolicy, outcome: &Outcome<'_>) -> bool {
    !matches!(outcome, Outcome::Failed(Failure::Refusal))
        && grpc_status_of(outcome).is_some_and(|status| policy.on.intersects(condition_of(status)))
}

/// The gRPC status that an attempt ended with, if it ended.
pub fn grpc_status_of(outcome: &Outcome<'_>) -> Option<GrpcStatus> {
    match outcome {
        Outcome::Response { status, headers } => {
            let mapped = || (*status != StatusCode::OK).then(|| GrpcStatus::from_http(*status));
            GrpcStatus::of(headers).or_else(mapped)
        }
        Outcome::Failed(Failure::Reset { code: Some(code) }) => Some(GrpcStatus::from_reset(*code)),
        Outcome::Failed(Failure::PerTryTimeout) => Some(GrpcStatus::DEADLINE_EXCEEDED),
        Outcome::Failed(_) => Some(GrpcStatus::UNAVAILABLE),
    }
}

/// The condition that names a gRPC status.
fn condition_of(status: GrpcStatus) -> RetryOn {
    match status {
        GrpcStatus::CANCELLED => RetryOn::GRPC_CANCELLED,
        GrpcStatus::DEADLINE_EXCEEDED => RetryOn::GRPC_DEADLINE_EXCEEDED,
        GrpcStatus::RESOURCE_EXHAUSTED => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        GrpcStatus::INTERNAL => RetryOn::GRPC_INTERNAL,
        GrpcStatus::UNAVAILABLE => RetryOn::GRPC_UNAVAILABLE,
        _ => RetryOn::NONE,
    }
}
