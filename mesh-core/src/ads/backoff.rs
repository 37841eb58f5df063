//! How long to wait before the next stream.

use std::time::{Duration, Instant};

use super::settings::{BackoffSettings, Jitter};

/// The waits of one outage.
#[derive(Debug)]
pub(crate) struct Backoff {
    settings: BackoffSettings,
    random: fastrand::Rng,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(settings: BackoffSettings, seed: u64) -> Self {
        Self { settings, random: fastrand::Rng::with_seed(seed), outage: None }
    }

    /// The server answered: the outage is over.
    pub(crate) fn reset(&mut self) {
        self.outage = None;
    }

    /// When to try again after a failure at `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Instant {
        let settings = &self.settings;
        let outage = self.outage.get_or_insert(Outage { since: now, next: settings.initial });
        let young = now.saturating_duration_since(outage.since) < settings.early;
        let cap = if young { settings.early_cap } else { settings.cap };
        let wait = outage.next.min(cap);
        outage.next = outage.next.mul_f64(settings.multiplier).min(settings.cap.max(settings.early_cap));
        now + spread(wait, settings.jitter, &mut self.random)
    }
}

fn spread(wait: Duration, jitter: Jitter, random: &mut fastrand::Rng) -> Duration {
    match jitter {
        Jitter::Full => wait.mul_f64(random.f64()),
        Jitter::Share(share) => wait.mul_f64((1.0 + share * (random.f64() * 2.0 - 1.0)).max(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a57_waits_grow_to_a_cap_and_start_over_after_an_answer() {
        let settings = BackoffSettings { jitter: Jitter::Share(0.0), ..BackoffSettings::grpc() };
        let mut backoff = Backoff::new(settings, 1);
        let now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..14 {
            waits.push((backoff.next(now) - now).as_secs_f64());
        }
        assert_eq!(waits[..3], [1.0, 1.6, 2.56]);
        assert_eq!(waits[12..], [120.0, 120.0]);
        backoff.reset();
        assert_eq!(backoff.next(now) - now, Duration::from_secs(1));
    }

    #[test]
    fn waits_are_short_in_the_first_minute_of_an_outage() {
        let settings = BackoffSettings { jitter: Jitter::Share(0.0), ..BackoffSettings::default() };
        let mut backoff = Backoff::new(settings, 1);
        let start = Instant::now();
        let mut now = start;
        while now < start + Duration::from_secs(60) {
            let next = backoff.next(now);
            assert!(next - now <= Duration::from_secs(2));
            now = next;
        }
        assert_eq!(backoff.next(now) - now, Duration::from_secs(30));
    }

    #[test]
    fn full_jitter_spreads_clients_that_lost_a_server_together() {
        let now = Instant::now();
        let mut tenths = [0_u32; 10];
        for seed in 0..1000 {
            let wait = Backoff::new(BackoffSettings::default(), seed).next(now) - now;
            tenths[usize::try_from(wait.as_millis() / 100).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|share| *share <= 150), "{tenths:?}");
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        let now = Instant::now();
        let wait = |seed| Backoff::new(BackoffSettings::default(), seed).next(now);
        assert_eq!(wait(7), wait(7));
        assert_ne!(wait(7), wait(8));
    }
}
