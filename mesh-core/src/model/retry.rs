//! When to try again, as configuration (gRFC A44, Envoy's `config.route.v3.RetryPolicy`).

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::Metadata;
use super::matcher::HeaderMatch;

/// `config.route.v3.RetryPolicy`, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The conditions of `retry_on`; unknown words are dropped.
    pub on: RetryOn,
    /// `retriable_status_codes`, which count when `retry_on` says `retriable-status-codes`.
    pub status_codes: Vec<StatusCode>,
    /// Attempts after the first; default 1.
    pub num_retries: u32,
    /// `per_try_timeout`: each attempt's share, until its response is complete. None: the route's.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`: the longest silence inside an attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// `rate_limited_retry_back_off`: the response says when.
    pub rate_limited_backoff: Option<RateLimitedBackoff>,
    /// `retry_host_predicate` contains `previous_hosts`: avoid hosts that were tried.
    pub avoid_previous_hosts: bool,
    /// `retry_host_predicate` contains `omit_canary_hosts`.
    pub omit_canary_hosts: bool,
    /// `retry_host_predicate` contains `omit_host_metadata`: hosts that carry all of one of these values in the namespace
    /// `envoy.lb`.
    pub omit_metadata: Vec<Metadata>,
    /// `retry_priority` is `previous_priorities`: after each so many attempts (`update_frequency`), the priorities that were
    /// tried are left alone while another one is there. None: priorities are as without a retry.
    pub previous_priorities: Option<u32>,
    /// `host_selection_retry_max_attempts`: how often to pick again for a host that passes; default 1.
    pub host_selection_attempts: u32,
    /// `retriable_headers`: response headers that make a response retriable, with `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatch>,
    /// `retriable_request_headers`: if not empty, requests must match one to be retried at all.
    pub retriable_request_headers: Vec<HeaderMatch>,
}

impl Default for RetryPolicy {
    /// No condition, one retry, and Envoy's backoff.
    fn default() -> Self {
        Self {
            on: RetryOn::NONE,
            status_codes: Vec::new(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            backoff: Backoff::default(),
            rate_limited_backoff: None,
            avoid_previous_hosts: false,
            omit_canary_hosts: false,
            omit_metadata: Vec::new(),
            previous_priorities: None,
            host_selection_attempts: 1,
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
        }
    }
}

impl RetryPolicy {
    /// Whether a retry is to leave endpoints alone for what they are, and not only for what became of an attempt there.
    pub fn chooses_hosts(&self) -> bool {
        self.omit_canary_hosts || !self.omit_metadata.is_empty() || self.previous_priorities.is_some()
    }
}

/// The conditions of `retry_on`, Envoy's words and gRPC's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! retry_on {
    ($($(#[$doc:meta])* $name:ident = $bit:expr, $word:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// The condition that `word` names, if any does.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        /// Every condition, with the word that names it.
        const WORDS: &[(RetryOn, &str)] = &[$((RetryOn::$name, $word)),*];
    };
}

retry_on! {
    /// `5xx`: any 5xx, a disconnect, a reset, or a read timeout.
    FIVE_XX = 0, "5xx";
    /// `gateway-error`: 502, 503 or 504.
    GATEWAY_ERROR = 1, "gateway-error";
    /// `reset`: no response at all.
    RESET = 2, "reset";
    /// `connect-failure`: the connection could not be made.
    CONNECT_FAILURE = 3, "connect-failure";
    /// `retriable-4xx`: 409.
    RETRIABLE_4XX = 4, "retriable-4xx";
    /// `refused-stream`: REFUSED_STREAM.
    REFUSED_STREAM = 5, "refused-stream";
    /// `retriable-status-codes`: the codes of the policy.
    RETRIABLE_STATUS_CODES = 6, "retriable-status-codes";
    /// `retriable-headers`: the headers of the policy.
    RETRIABLE_HEADERS = 7, "retriable-headers";
    /// `envoy-ratelimited`: `x-envoy-ratelimited` is there.
    ENVOY_RATELIMITED = 8, "envoy-ratelimited";
    /// `http3-post-connect-failure`: accepted, never true here.
    HTTP3_POST_CONNECT_FAILURE = 9, "http3-post-connect-failure";
    /// `reset-before-request`: reset before the request was sent.
    RESET_BEFORE_REQUEST = 10, "reset-before-request";
    /// gRPC `cancelled` (1).
    GRPC_CANCELLED = 16, "cancelled";
    /// gRPC `deadline-exceeded` (4).
    GRPC_DEADLINE_EXCEEDED = 17, "deadline-exceeded";
    /// gRPC `resource-exhausted` (8).
    GRPC_RESOURCE_EXHAUSTED = 18, "resource-exhausted";
    /// gRPC `internal` (13).
    GRPC_INTERNAL = 19, "internal";
    /// gRPC `unavailable` (14).
    GRPC_UNAVAILABLE = 20, "unavailable";
}

impl fmt::Display for RetryOn {
    /// As `retry_on` says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = WORDS.iter().filter(|(condition, _)| self.intersects(*condition)).map(|(_, word)| word);
        if let Some(first) = words.next() {
            f.write_str(first)?;
        }
        words.try_for_each(|word| write!(f, ",{word}"))
    }
}

impl RetryOn {
    /// No condition.
    pub const NONE: Self = Self(0);

    /// Reads a comma-separated list; unknown words are ignored, as gRPC and Envoy do.
    pub fn parse(list: &str) -> Self {
        list.split(',').filter_map(|word| Self::from_word(word.trim())).fold(Self::NONE, Self::union)
    }

    /// Both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any condition of `other` is here.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The five conditions of gRFC A44.
    pub const GRPC: Self = Self(0b1_1111 << 16);

    /// All but the five conditions of gRFC A44.
    #[must_use]
    pub fn http_only(self) -> Self {
        Self(self.0 & !Self::GRPC.0)
    }

    /// Only the five conditions of gRFC A44 that are here.
    #[must_use]
    pub fn grpc_only(self) -> Self {
        Self(self.0 & Self::GRPC.0)
    }
}

/// `RetryPolicy.RetryBackOff`: full-jitter exponential for HTTP, ±20 % for gRPC (gRFC A6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay's bound; 25 ms by default, 1 ms at least.
    pub base: Duration,
    /// No delay is longer; ten times `base` by default.
    pub max: Duration,
}

impl Default for Backoff {
    /// Envoy's and gRPC's: 25 ms, at most 250 ms.
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// `RetryPolicy.RateLimitedRetryBackOff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitedBackoff {
    /// The headers that say when, in order.
    pub reset_headers: Vec<ResetHeader>,
    /// No wait is longer; 300 s by default.
    pub max: Duration,
}

/// One header of [`RateLimitedBackoff`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// The header's name.
    pub name: HeaderName,
    /// How its value is meant.
    pub format: ResetFormat,
}

/// How a [`ResetHeader`]'s value is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since the Unix epoch.
    UnixTimestamp,
}

/// `config.route.v3.HedgePolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgePolicy {
    /// Attempts sent at once; 1 by default.
    pub initial_requests: u32,
    /// Start another attempt on a per-try timeout without giving up the first.
    pub on_per_try_timeout: bool,
}
