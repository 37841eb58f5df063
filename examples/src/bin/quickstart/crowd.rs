//! Clients under steady load: each sends its next request when the last is answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_examples::load::{Call, Tally};
use tokio::task::JoinSet;

/// After a failure, so that a mesh that is down is not asked a million times.
const PAUSE: Duration = Duration::from_millis(20);

/// The clients.
pub(crate) struct Crowd {
    seen: Arc<Seen>,
    clients: JoinSet<()>,
}

/// What they saw.
#[derive(Default)]
struct Seen {
    /// One after the other; each request counts where it ended.
    tallies: Mutex<Vec<Tally>>,
    is_over: AtomicBool,
}

impl Seen {
    fn tallies(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    /// So many of each call.
    pub(crate) fn gather(calls: &[Call], each: usize) -> Self {
        let seen = Arc::new(Seen::default());
        seen.tallies().push(Tally::default());
        let mut clients = JoinSet::new();
        for call in calls.iter().flat_map(|call| std::iter::repeat_n(call, each)) {
            clients.spawn(ask(call.clone(), seen.clone()));
        }
        Self { seen, clients }
    }

    /// Counts anew. Gives the number of what is counted from now on.
    pub(crate) fn count(&self) -> usize {
        let mut tallies = self.seen.tallies();
        tallies.push(Tally::default());
        tallies.len() - 1
    }

    /// What was counted, under these numbers.
    pub(crate) fn counted(&self, numbers: std::ops::RangeInclusive<usize>) -> Tally {
        let mut sum = Tally::default();
        self.seen.tallies().get(numbers).unwrap_or_default().iter().for_each(|tally| sum.merge(tally));
        sum.sort();
        sum
    }

    /// What was counted in all.
    pub(crate) fn total(&self) -> Tally {
        let last = self.seen.tallies().len() - 1;
        self.counted(0..=last)
    }

    /// Lets every request under way end.
    pub(crate) async fn go_home(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
    }
}

async fn ask(call: Call, seen: Arc<Seen>) {
    while !seen.is_over.load(Ordering::Relaxed) {
        let outcome = call.once(Instant::now()).await;
        let failed = outcome.error.is_some();
        if let Some(tally) = seen.tallies().last_mut() {
            tally.add(outcome);
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
