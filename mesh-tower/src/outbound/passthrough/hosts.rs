//! The hosts that requests were let pass to, bounded in number: authorities may be a stranger's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::host::Host;

/// One of so many is forgotten at once where there are too many, so that a flood does not copy the table for each host.
const SHARE: usize = 8;

/// Which host, and whether it is spoken to in TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// A name, or an address as it stands in a URI.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) https: bool,
}

/// The hosts in use.
pub(super) struct Hosts {
    limit: usize,
    idle: Duration,
    began: Instant,
    /// Copied to be changed: lookups are many, changes few.
    table: ArcSwap<HashMap<Place, Arc<Used>>>,
    changing: Mutex<()>,
}

struct Used {
    host: Arc<Host>,
    /// When a request last went there, in milliseconds since the table began.
    at: AtomicU64,
}

impl Hosts {
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        Self { limit: limit.max(1), idle, began: Instant::now(), table: ArcSwap::default(), changing: Mutex::default() }
    }

    /// The host at `place`. Where there are too many, those that were used longest ago are forgotten; requests on their
    /// way to one are not disturbed.
    pub(super) fn find(&self, place: &Place, now: Instant) -> Arc<Host> {
        if let Some(used) = self.table.load().get(place) {
            used.at.store(self.moment(now), Ordering::Relaxed);
            return used.host.clone();
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::clone(&self.table.load());
        if next.len() >= self.limit && !next.contains_key(place) {
            let mut times: Vec<u64> = next.values().map(|used| used.at.load(Ordering::Relaxed)).collect();
            times.sort_unstable();
            let mut excess = next.len() + 1 - self.limit + self.limit / SHARE;
            let oldest = times[excess.min(times.len()) - 1];
            next.retain(|_, used| {
                let goes = excess > 0 && used.at.load(Ordering::Relaxed) <= oldest;
                excess -= usize::from(goes);
                !goes
            });
        }
        let moment = self.moment(now);
        let used = next
            .entry(place.clone())
            .or_insert_with(|| Arc::new(Used { host: Arc::new(Host::new(place)), at: AtomicU64::new(moment) }));
        let host = used.host.clone();
        self.table.store(Arc::new(next));
        host
    }

    /// Forgets what was not used in a while.
    pub(super) fn sweep(&self, now: Instant) {
        let Some(since) = now.saturating_duration_since(self.began).checked_sub(self.idle) else { return };
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::clone(&self.table.load());
        next.retain(|_, used| used.at.load(Ordering::Relaxed) >= since);
        self.table.store(Arc::new(next));
    }

    fn moment(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn place(number: usize) -> Place {
        Place { host: format!("host{number}").into(), port: 80, https: false }
    }

    #[test]
    fn a_flood_of_hosts_is_bounded_and_spares_those_in_use() {
        let hosts = Hosts::new(16, IDLE);
        let at = |millis| hosts.began + Duration::from_millis(millis);
        let kept = hosts.find(&place(0), at(0));
        for number in 1..1000 {
            hosts.find(&place(number), at(number as u64));
            assert!(hosts.table.load().len() <= 16);
            assert!(Arc::ptr_eq(&kept, &hosts.find(&place(0), at(number as u64))), "it is in use: {number}");
        }
        let all_at_once = Hosts::new(16, IDLE);
        (0..1000).for_each(|number| drop(all_at_once.find(&place(number), all_at_once.began)));
        assert!(all_at_once.table.load().len() <= 16);
    }

    #[test]
    fn what_is_idle_is_forgotten() {
        let hosts = Hosts::new(16, IDLE);
        let (idle, used) = (hosts.find(&place(0), hosts.began), hosts.find(&place(1), hosts.began));
        hosts.find(&place(1), hosts.began + Duration::from_secs(2));
        hosts.sweep(hosts.began + IDLE + Duration::from_secs(1));
        assert!(Arc::ptr_eq(&used, &hosts.find(&place(1), hosts.began)));
        assert!(!Arc::ptr_eq(&idle, &hosts.find(&place(0), hosts.began)));
    }

    #[test]
    fn tls_and_plaintext_are_two_places() {
        let hosts = Hosts::new(16, IDLE);
        let plain = hosts.find(&place(0), hosts.began);
        let secure = hosts.find(&Place { https: true, ..place(0) }, hosts.began);
        assert!(!Arc::ptr_eq(&plain, &secure) && secure.is_https() && !plain.is_https());
    }
}
