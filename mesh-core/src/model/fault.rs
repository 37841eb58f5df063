//! Fault injection as configuration (gRFC A33, `extensions.filters.http.fault.v3.HTTPFault`).

use std::time::Duration;

use http::StatusCode;

use super::Name;
use super::matcher::{Fraction, HeaderMatch};

/// `HTTPFault`, of a Listener's filter or of an override. The default does nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPolicy {
    /// `delay`.
    pub delay: Option<FaultDelay>,
    /// `abort`.
    pub abort: Option<FaultAbort>,
    /// `response_rate_limit`.
    pub rate_limit: Option<FaultRateLimit>,
    /// `upstream_cluster`: only requests to this cluster.
    pub upstream_cluster: Option<Name>,
    /// `headers`: only requests that match all of these.
    pub headers: Vec<HeaderMatch>,
    /// `downstream_nodes`: only requests whose `x-envoy-downstream-service-node` is one of these.
    pub downstream_nodes: Vec<String>,
    /// `max_active_faults`: how many requests may be under a fault at once; None is no limit.
    pub max_active: Option<u32>,
}

impl FaultPolicy {
    /// Whether it does nothing, whatever the request.
    pub fn is_inert(&self) -> bool {
        self.delay.is_none() && self.abort.is_none() && self.rate_limit.is_none()
    }
}

/// `extensions.filters.common.fault.v3.FaultDelay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultDelay {
    /// How long.
    pub amount: FaultDelayAmount,
    /// How many requests; 0 where the field is absent.
    pub share: Fraction,
}

/// How long a [`FaultDelay`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultDelayAmount {
    /// `fixed_delay`.
    Fixed(Duration),
    /// `header_delay`: `x-envoy-fault-delay-request` has milliseconds; `x-envoy-fault-delay-request-percentage` may lower
    /// the share.
    Header,
}

/// `FaultAbort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAbort {
    /// With what.
    pub outcome: FaultOutcome,
    /// How many requests; 0 where the field is absent.
    pub share: Fraction,
}

/// What a [`FaultAbort`] answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOutcome {
    /// `http_status`.
    Http(StatusCode),
    /// `grpc_status`: a gRPC code, 0 to 16 as gRPC defines them, though others may come.
    Grpc(u32),
    /// `header_abort`: `x-envoy-fault-abort-request` has an HTTP status, or `x-envoy-fault-abort-grpc-request` a gRPC
    /// code; `x-envoy-fault-abort-request-percentage` may lower the share.
    Header,
}

/// `FaultRateLimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRateLimit {
    /// `fixed_limit.limit_kbps` in KiB/s; None: `x-envoy-fault-throughput-response` says.
    pub kib_per_second: Option<u64>,
    /// How many requests; 0 where the field is absent.
    pub share: Fraction,
}
