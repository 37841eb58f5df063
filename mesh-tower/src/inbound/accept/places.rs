//! Places for connections that have not asked for anything yet.
//!
//! Whoever has a place has so much time for its handshake and its first request. A stranger could take all of them and say
//! nothing; so when they are taken the oldest must go, once it has had a quarter of its time. A client that means it needs a
//! few round trips.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};

/// All places of a listener.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    /// What a connection has of its place for certain.
    certain: Duration,
    held: Mutex<Held>,
}

/// Who has a place, by the order in which they came.
#[derive(Default)]
struct Held {
    came: u64,
    by: BTreeMap<u64, Holder>,
}

struct Holder {
    since: Instant,
    cut: oneshot::Sender<()>,
}

/// A connection's place, until it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    cut: oneshot::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many; `time` is what a connection has if nobody else needs its place.
    pub(crate) fn new(most: usize, time: Duration) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { free, certain: time / 4, held: Mutex::default() })
    }

    /// Waits for a free place, and makes one where it takes too long. It is cancel safe.
    pub(crate) async fn free(&self) -> OwnedSemaphorePermit {
        const NEVER_CLOSED: &str = "nobody closes the semaphore";
        let mut free = pin!(self.free.clone().acquire_owned());
        tokio::select! {
            biased;
            permit = free.as_mut() => return permit.expect(NEVER_CLOSED),
            () = self.cut_oldest() => {}
        }
        free.await.expect(NEVER_CLOSED)
    }

    /// Gives the place to a connection that has just come.
    pub(crate) fn give(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let (sender, cut) = oneshot::channel();
        let mut held = self.lock();
        held.came += 1;
        let number = held.came;
        held.by.insert(number, Holder { since: Instant::now(), cut: sender });
        Place { places: self.clone(), number, cut, _permit: permit }
    }

    /// Takes the oldest one's place once it has had its time.
    async fn cut_oldest(&self) {
        loop {
            let Some(due) = self.lock().by.values().next().map(|oldest| oldest.since + self.certain) else {
                // Those that have the places are about to go.
                return std::future::pending().await;
            };
            sleep_until(due).await;
            let mut held = self.lock();
            if held.by.values().next().is_some_and(|oldest| oldest.since + self.certain <= Instant::now())
                && let Some((_, oldest)) = held.by.pop_first()
            {
                // An error: it is done at the same moment.
                let _ = oldest.cut.send(());
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What `work` comes to while the place is kept; None: it was needed for another.
    pub(crate) async fn kept<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = &mut self.cut, if !self.cut.is_terminated() => None,
            done = work => Some(done),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().by.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const TIME: Duration = Duration::from_secs(8);

    async fn taken(places: &Arc<Places>) -> Place {
        places.give(places.free().await)
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_when_another_needs_its_place_and_it_had_a_quarter_of_its_time() {
        let places = Places::new(2, TIME);
        let (mut first, mut second) = (taken(&places).await, taken(&places).await);
        let began = Instant::now();
        let first = tokio::spawn(async move { first.kept(pending::<()>()).await });
        let second = tokio::spawn(async move { second.kept(tokio::time::sleep(TIME)).await });
        tokio::time::sleep(TIME / 8).await;
        let _third = taken(&places).await;
        assert_eq!(began.elapsed(), TIME / 4);
        assert!(first.await.unwrap().is_none());
        assert!(second.await.unwrap().is_some(), "nobody else was in need");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_goes_while_there_is_room() {
        let places = Places::new(3, TIME);
        let (mut first, _second) = (taken(&places).await, taken(&places).await);
        // The place of the next one, who does not come.
        let _free = places.free().await;
        assert!(first.kept(tokio::time::sleep(TIME)).await.is_some());
        drop(first);
        let room = tokio::time::timeout(Duration::ZERO, places.free()).await;
        assert!(room.is_ok(), "whoever is done makes room at once");
    }
}
