//! How much of a cluster's load is let through: circuit breaker and drops (gRFC A32, A42's `drop_overloads`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::balance::mix;
use crate::model::DropOverload;

/// Counts the requests that a cluster has in flight.
///
/// There is one per cluster and EDS service name in a process, shared by all targets and kept across configurations; the
/// limit comes with each request, so that it can change.
#[derive(Debug, Default)]
pub struct Breaker {
    active: AtomicU32,
}

impl Breaker {
    /// Counts a request, unless `max` are in flight already; `max` of 0 lets nothing through.
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<BreakerGuard> {
        let below = |active: u32| (active < max).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(BreakerGuard { breaker: self.clone() })
    }

    /// How many requests are in flight.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

/// A request in flight; it ends when this is dropped.
#[derive(Debug)]
pub struct BreakerGuard {
    breaker: Arc<Breaker>,
}

impl Drop for BreakerGuard {
    fn drop(&mut self) {
        self.breaker.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The category that drops a request, if one does: each is asked in order, with dice of its own.
pub fn drop_category(drops: &[DropOverload], random: u64) -> Option<&DropOverload> {
    let mut draw = random;
    drops.iter().find(|drop| {
        draw = mix(draw);
        drop.fraction.contains(draw)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fraction;

    #[test]
    fn a_breaker_opens_at_its_limit_and_closes_as_requests_end() {
        let breaker = Arc::new(Breaker::default());
        let first = breaker.enter(2).expect("none is in flight");
        let _second = breaker.enter(2).expect("one is");
        assert!(breaker.enter(2).is_none());
        assert!(breaker.enter(3).is_some(), "the limit may change");
        drop(first);
        assert_eq!(breaker.active(), 1);
        assert!(breaker.enter(2).is_some());
        assert!(Arc::new(Breaker::default()).enter(0).is_none(), "zero lets nothing through");
    }

    #[test]
    fn categories_drop_their_share_each_on_its_own() {
        let half = |category: &str| DropOverload {
            category: category.into(),
            fraction: Fraction { numerator: 500_000, denominator: 1_000_000 },
        };
        let drops = [half("lb"), half("throttle")];
        let count = |wanted: Option<&str>| {
            let draws = (0..4000).map(mix);
            draws.filter(|draw| drop_category(&drops, *draw).map(|drop| &*drop.category) == wanted).count()
        };
        for (wanted, expected) in [(Some("lb"), 2000), (Some("throttle"), 1000), (None, 1000)] {
            assert!(count(wanted).abs_diff(expected) < 150, "{wanted:?}: {}", count(wanted));
        }
        assert!(drop_category(&[], 1).is_none());
    }
}
