//! A token bucket in one atomic word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::model::TokenBucket;

/// What sums of seconds may be off by: without it a full bucket of one token might be a hair from full.
const ROUNDING: f64 = 1e-6;

/// A token bucket. Tokens flow in evenly; none is lost or found by who asks at the same time.
///
/// What is kept is a moment: when the bucket was last empty, as if nothing but the flow had filled it since. Taking a token
/// moves it on by what one token takes to flow in.
#[derive(Debug)]
pub struct Bucket {
    max: f64,
    /// Tokens per second.
    rate: f64,
    began: Instant,
    /// Seconds since `began`, as the bits of an f64; negative while the bucket is fuller than its age.
    empty_at: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(config: &TokenBucket, now: Instant) -> Self {
        let max = f64::from(config.max);
        let rate = f64::from(config.per_fill) / config.interval.as_secs_f64().max(f64::MIN_POSITIVE);
        Self { max, rate, began: now, empty_at: AtomicU64::new((-max / rate).to_bits()) }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        // A bucket that holds less than a token never has one.
        if self.max < 1.0 {
            return false;
        }
        let now = self.seconds(now);
        let spend = |bits: u64| {
            let after = self.since(bits, now) + 1.0 / self.rate;
            (after <= now + ROUNDING).then(|| after.to_bits())
        };
        self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    /// How many tokens there are.
    pub fn tokens(&self, now: Instant) -> f64 {
        let now = self.seconds(now);
        ((now - self.since(self.empty_at.load(Ordering::Relaxed), now)) * self.rate).clamp(0.0, self.max)
    }

    /// How many it holds.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// How long until the next token has flowed in; zero if there is one.
    pub fn next_token(&self, now: Instant) -> Duration {
        let missing = (1.0 - self.tokens(now)).max(0.0);
        Duration::try_from_secs_f64(missing / self.rate).unwrap_or(Duration::MAX)
    }

    /// What flows in per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.began).as_secs_f64()
    }

    /// The moment of emptiness, no longer ago than a full bucket takes to fill: what overflows is lost.
    fn since(&self, bits: u64, now: f64) -> f64 {
        f64::from_bits(bits).max(now - self.max / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(max: u32, per_fill: u32, interval: Duration, now: Instant) -> Bucket {
        Bucket::new(&TokenBucket { max, per_fill, interval }, now)
    }

    fn drain(bucket: &Bucket, now: Instant) -> usize {
        std::iter::from_fn(|| bucket.take(now).then_some(())).take(1000).count()
    }

    #[test]
    fn a_bucket_is_full_at_first_and_fills_evenly() {
        let now = Instant::now();
        let bucket = bucket(10, 5, SECOND, now);
        assert_eq!(drain(&bucket, now), 10);
        assert_eq!(drain(&bucket, now + SECOND / 10), 0, "half a token");
        assert_eq!(drain(&bucket, now + SECOND / 5), 1);
        assert_eq!(drain(&bucket, now + SECOND * 6 / 5), 5);
        assert_eq!(drain(&bucket, now + SECOND * 100), 10, "no more than it holds");
    }

    #[test]
    fn it_says_what_is_left_and_when_there_is_more() {
        let now = Instant::now();
        let bucket = bucket(2, 1, SECOND, now);
        assert_eq!((bucket.tokens(now), bucket.next_token(now)), (2.0, Duration::ZERO));
        drain(&bucket, now);
        assert_eq!(bucket.next_token(now), SECOND);
        assert_eq!(bucket.next_token(now + SECOND), Duration::ZERO);
    }

    #[test]
    fn a_full_bucket_has_its_token_whatever_the_time() {
        let now = Instant::now();
        for nanos in (0..2_000_000_000_u64).step_by(7_654_321) {
            let minute = bucket(1, 1, SECOND * 60, now);
            let then = now + Duration::from_nanos(nanos);
            assert_eq!(drain(&minute, then), 1, "{nanos}");
        }
    }

    #[test]
    fn an_empty_bucket_stays_empty() {
        let now = Instant::now();
        assert_eq!(drain(&bucket(0, 1, SECOND, now), now + SECOND * 1000), 0);
    }

    #[test]
    fn time_that_stands_still_or_goes_back_gives_nothing() {
        let now = Instant::now() + SECOND * 100;
        let bucket = bucket(3, 1, SECOND, now);
        assert_eq!(drain(&bucket, now), 3);
        assert_eq!(drain(&bucket, now - SECOND * 50), 0);
    }

    #[test]
    fn no_token_is_taken_twice() {
        let now = Instant::now();
        let bucket = Arc::new(bucket(500, 1, SECOND * 3600, now));
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let bucket = bucket.clone();
                std::thread::spawn(move || drain(&bucket, now))
            })
            .collect();
        assert_eq!(takers.into_iter().map(|taker| taker.join().unwrap()).sum::<usize>(), 500);
    }
}
