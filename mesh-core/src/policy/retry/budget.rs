//! How much load retries may add to a cluster: a retry policy without a budget is an outage policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::model::CircuitBreakers;

/// A request earns this much of a retry, in thousandths.
const EARNED: i64 = 200;
/// A retry costs this much.
const COST: i64 = 1000;
/// A new bucket holds three retries, as a loan: half of what is earned pays it back, so that after 30 requests the total
/// is 1.2 attempts per request at most, and a process that just started can still retry.
const LOAN: i64 = 3 * COST;
/// A bucket holds ten retries at most, so that a long quiet time does not pay for a storm.
const MOST: i64 = 10 * COST;

/// The retry budget of a cluster, kept across configurations. It is lock-free.
///
/// Where the cluster says `retry_budget`, retries may be that share of the active requests, as Envoy counts them: retries
/// are active requests too, so that 20 % is up to 1.25 attempts per request. Where it says `max_retries`, that many may be
/// under way. Where it says neither, a token bucket of our own keeps it under 1.2: each request earns a fifth of a retry.
/// (Envoy allows three at a time then, which is little for a busy client and a storm for a thousand idle ones.)
#[derive(Debug)]
pub struct Budget {
    tokens: AtomicI64,
    loan: AtomicI64,
    active: AtomicU32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: AtomicI64::new(LOAN), loan: AtomicI64::new(LOAN), active: AtomicU32::new(0) }
    }
}

impl Budget {
    /// Counts a call (not a retry) to a cluster that has a retry policy.
    pub fn earn(&self, limits: &CircuitBreakers) {
        if has_own_limit(limits) || self.tokens.load(Ordering::Relaxed) >= MOST {
            return;
        }
        let half = EARNED / 2;
        let pay = |loan: i64| (loan > 0).then_some(loan - half);
        let owes = self.loan.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok();
        self.tokens.fetch_add(if owes { half } else { EARNED }, Ordering::Relaxed);
    }

    /// Allows a retry, or not. `active` is how many requests the cluster has in flight, retries included. The permit is
    /// kept until the retry is over.
    pub fn allow(self: &Arc<Self>, limits: &CircuitBreakers, active: u32) -> Option<RetryPermit> {
        let most = match (limits.retry_budget, limits.max_retries) {
            (Some(budget), _) => {
                let share = u64::from(active) * u64::from(budget.millionths) / 1_000_000;
                u32::try_from(share).unwrap_or(u32::MAX).max(budget.min_concurrency)
            }
            (None, Some(max)) => max,
            (None, None) => {
                let spend = |tokens: i64| (tokens >= COST).then_some(tokens - COST);
                self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok()?;
                u32::MAX
            }
        };
        let below = |retries: u32| (retries < most).then(|| retries.saturating_add(1));
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(RetryPermit { budget: self.clone() })
    }

    /// How many retries are under way.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

fn has_own_limit(limits: &CircuitBreakers) -> bool {
    limits.retry_budget.is_some() || limits.max_retries.is_some()
}

/// A retry under way.
#[derive(Debug)]
pub struct RetryPermit {
    budget: Arc<Budget>,
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.budget.active.fetch_sub(1, Ordering::Relaxed);
    }
}
