//! The weight that an endpoint's load reports give it (gRFC A58).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::{ClientSideWrrConfig, Observer};
use crate::load::LoadReport;

/// A time that is not.
const NEVER: u64 = 0;

/// What an endpoint's load reports make of it. Whoever reads a report writes here, requests among them, so it is atomics alone;
/// the configuration thread reads it. Two reports at the same time may leave the weight of one and the time of the other.
#[derive(Debug, Default)]
pub struct EndpointWeight {
    /// Times are counted from the first one there was.
    origin: OnceLock<Instant>,
    /// An `f64`'s bits.
    weight: AtomicU64,
    /// `last_updated`: when the last report that makes a weight came.
    updated: AtomicU64,
    /// `non_empty_since`: since when such reports come.
    since: AtomicU64,
}

impl EndpointWeight {
    /// What a report that came at `now` makes the weight.
    fn set(&self, weight: f64, now: Instant) {
        let at = self.at(now);
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        // Whoever was first says since when.
        let _ = self.since.compare_exchange(NEVER, at, Ordering::Relaxed, Ordering::Relaxed);
        self.updated.store(at, Ordering::Release);
    }

    /// The endpoint has another connection: perhaps another server, that has yet to warm up.
    pub(super) fn forget(&self) {
        self.updated.store(NEVER, Ordering::Relaxed);
        self.since.store(NEVER, Ordering::Relaxed);
    }

    /// The weight, unless it may not be used at `now`: there is none, it is too old, or reports have not come for long enough.
    pub(super) fn get(&self, now: Instant, config: &ClientSideWrrConfig) -> Option<f64> {
        let updated = self.updated.load(Ordering::Acquire);
        if updated == NEVER {
            return None;
        }
        let now = self.at(now);
        let passed = |since: u64| Duration::from_nanos(now.saturating_sub(since));
        if passed(updated) >= config.weight_expiration_period {
            // Fresh reports have to prove themselves as the first ones had to.
            self.since.store(NEVER, Ordering::Relaxed);
            return None;
        }
        let since = self.since.load(Ordering::Relaxed);
        if !config.blackout_period.is_zero() && (since == NEVER || passed(since) < config.blackout_period) {
            return None;
        }
        Some(f64::from_bits(self.weight.load(Ordering::Relaxed)))
    }

    fn at(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }
}

/// Makes weights of one endpoint's load reports.
#[derive(Debug)]
pub(super) struct Weigher {
    weight: Arc<EndpointWeight>,
    penalty: f64,
    metrics: Arc<[String]>,
}

impl Weigher {
    pub(super) fn new(weight: Arc<EndpointWeight>, config: &ClientSideWrrConfig) -> Self {
        Self { weight, penalty: config.error_utilization_penalty, metrics: config.utilization_metrics.clone() }
    }

    /// Of the named metrics that the report has, the largest (gRFC A114); without any what the application says of itself, and
    /// without that what its CPU does (gRFC A58).
    fn utilization(&self, report: &LoadReport<'_>) -> f64 {
        let named = self.metrics.iter().filter_map(|name| report.metric(name)).fold(0.0, f64::max);
        let all = [named, report.application_utilization, report.cpu_utilization];
        all.into_iter().find(|value| *value > 0.0).unwrap_or(0.0)
    }

    fn weigh(&self, report: &LoadReport<'_>) -> Option<f64> {
        let (utilization, requests) = (self.utilization(report), report.requests_per_second);
        if utilization <= 0.0 || requests <= 0.0 {
            return None;
        }
        let weight = requests / (utilization + report.errors_per_second / requests * self.penalty);
        // What is reported is finite, what becomes of it need not be.
        Some(weight).filter(|weight| weight.is_finite() && *weight > 0.0)
    }
}

impl Observer for Weigher {
    fn wants_reports(&self) -> bool {
        true
    }

    fn on_report(&self, report: &LoadReport<'_>, now: Instant) {
        if let Some(weight) = self.weigh(report) {
            self.weight.set(weight, now);
        }
    }
}
