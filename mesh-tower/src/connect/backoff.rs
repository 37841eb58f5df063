//! How long to wait before connecting again.

use std::time::Duration;

/// How the waits between connection attempts grow: gRPC's connection backoff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectBackoff {
    /// The first wait. 1 s: a restart of a server usually takes longer, and its clients are many.
    pub initial: Duration,
    /// What each wait is multiplied by for the next one: 1.6.
    pub multiplier: f64,
    /// The share by which a wait is drawn shorter or longer, so that clients which lost a server together do not come back
    /// together: 0.2.
    pub jitter: f64,
    /// The longest wait, before jitter: 120 s.
    pub max: Duration,
}

impl Default for ConnectBackoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), multiplier: 1.6, jitter: 0.2, max: Duration::from_secs(120) }
    }
}

/// The waits of one endpoint.
#[derive(Debug)]
pub(super) struct Backoff {
    settings: ConnectBackoff,
    random: fastrand::Rng,
    next: Duration,
    /// Connections in a row that did not last.
    short: u32,
}

impl Backoff {
    pub(super) fn new(settings: ConnectBackoff, random: fastrand::Rng) -> Self {
        Self { settings, random, next: settings.initial, short: 0 }
    }

    /// How long to wait after an attempt that failed.
    pub(super) fn after_failure(&mut self) -> Duration {
        let wait = self.next.min(self.settings.max);
        self.next = wait.mul_f64(self.settings.multiplier.max(1.0)).min(self.settings.max);
        let jitter = self.settings.jitter.clamp(0.0, 1.0);
        wait.mul_f64(1.0 + jitter * (self.random.f64() * 2.0 - 1.0))
    }

    /// How long to wait after a connection that was up for `up`: not at all, unless connections keep ending as soon as they
    /// are made. A server that takes connections only to drop them would be called in a tight loop otherwise.
    pub(super) fn after_loss(&mut self, up: Duration) -> Duration {
        if up >= self.settings.initial {
            self.short = 0;
            self.next = self.settings.initial;
            return Duration::ZERO;
        }
        self.short += 1;
        if self.short == 1 { Duration::ZERO } else { self.after_failure() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(jitter: f64) -> Backoff {
        Backoff::new(ConnectBackoff { jitter, ..ConnectBackoff::default() }, fastrand::Rng::with_seed(1))
    }

    #[test]
    fn waits_grow_to_two_minutes() {
        let mut backoff = backoff(0.0);
        let waits: Vec<_> = (0..13).map(|_| backoff.after_failure().as_secs_f64()).collect();
        assert_eq!(waits[..3], [1.0, 1.6, 2.56]);
        assert_eq!(waits[11..], [120.0, 120.0]);
    }

    #[test]
    fn a_fifth_is_drawn_to_either_side() {
        let mut backoff = backoff(0.2);
        let waits: Vec<_> = (0..200)
            .map(|_| {
                backoff.next = Duration::from_secs(10);
                backoff.after_failure().as_secs_f64()
            })
            .collect();
        assert!(waits.iter().all(|wait| (8.0..=12.0).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 8.5) && waits.iter().any(|wait| *wait > 11.5));
    }

    #[test]
    fn a_connection_that_lasted_is_made_again_at_once() {
        let mut backoff = backoff(0.0);
        backoff.after_failure();
        assert_eq!(backoff.after_loss(Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(backoff.after_failure(), Duration::from_secs(1), "and the waits start over");
    }

    #[test]
    fn connections_that_never_last_are_not_made_in_a_loop() {
        let mut backoff = backoff(0.0);
        let short = Duration::from_millis(3);
        let waits: Vec<_> = (0..4).map(|_| backoff.after_loss(short).as_secs_f64()).collect();
        assert_eq!(waits, [0.0, 1.0, 1.6, 2.56]);
    }
}
