//! How long to wait before the next attempt.

use std::time::Duration;

use http::HeaderMap;

use crate::model::{Backoff, RateLimitedBackoff, ResetFormat};
use crate::route::matcher::parse_number;

/// Envoy's delay before the `nth` retry (from 1): anything up to an interval that doubles from `base` to `max`.
pub fn http_backoff(backoff: &Backoff, nth: u32, random: u64) -> Duration {
    scaled(interval(backoff, nth), unit(random))
}

/// gRPC's delay before the `nth` retry (from 1): an interval that doubles from `base` to `max`, give or take 20 %
/// (gRFC A6).
pub fn grpc_backoff(backoff: &Backoff, nth: u32, random: u64) -> Duration {
    scaled(interval(backoff, nth), 0.8 + 0.4 * unit(random))
}

fn interval(backoff: &Backoff, nth: u32) -> Duration {
    let doubled = backoff.base.checked_mul(2_u32.checked_pow(nth.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.unwrap_or(backoff.max).min(backoff.max)
}

/// A number from 0 up to but not including 1.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// A configured delay may be as long as a `Duration` can be; the product must not overflow it.
fn scaled(interval: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(interval.as_secs_f64() * factor).unwrap_or(interval)
}

/// The delay that a response itself asks for: the first header of the policy that says one within its maximum, and up to
/// half as much again (Envoy). `unix_now` is the time since the Unix epoch.
pub fn reset_delay(
    policy: &RateLimitedBackoff,
    headers: &HeaderMap,
    unix_now: Duration,
    random: u64,
) -> Option<Duration> {
    let asked = policy.reset_headers.iter().find_map(|header| {
        let number = Duration::from_secs(parse_number(headers.get(&header.name)?.as_bytes())?);
        let delay = match header.format {
            ResetFormat::Seconds => number,
            ResetFormat::UnixTimestamp => number.checked_sub(unix_now)?,
        };
        (delay <= policy.max).then_some(delay)
    })?;
    Some(scaled(asked, 1.0 + unit(random) / 2.0))
}
