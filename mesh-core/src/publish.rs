//! One publisher, many readers.
//!
//! A read is one atomic load and never waits. Whoever has to wait for a change can: as a future or by polling.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_swap::{ArcSwap, Guard};

/// The writing side. Dropping it closes: readers keep the last value and no longer wait.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

/// A reading side. Each reader remembers what it has seen; a clone has seen the same.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    seen: u64,
}

/// The publisher is gone, so nothing will change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the publisher is gone")
    }
}

impl std::error::Error for Closed {}

struct Shared<T> {
    value: ArcSwap<T>,
    /// How often a value was published.
    version: AtomicU64,
    next_reader: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// At most one waker for each reader, so that readers that come and go leave nothing behind.
#[derive(Default)]
struct Waiting {
    closed: bool,
    wakers: BTreeMap<u64, Waker>,
}

impl<T> Shared<T> {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing can panic while it is held, and a poisoned list of wakers is still a list of wakers.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self, close: bool) {
        let wakers = {
            let mut waiting = self.waiting();
            waiting.closed |= close;
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<T> Publisher<T> {
    /// A publisher whose first value is `value`.
    pub fn new(value: Arc<T>) -> Self {
        Self {
            shared: Arc::new(Shared {
                value: ArcSwap::new(value),
                version: AtomicU64::new(0),
                next_reader: AtomicU64::new(0),
                waiting: Mutex::default(),
            }),
        }
    }

    /// Puts `value` in the place of the last one and wakes those who wait. Gives the last one back, so that the caller
    /// decides on which thread it is freed.
    pub fn publish(&self, value: Arc<T>) -> Arc<T> {
        let last = self.shared.value.swap(value);
        self.shared.version.fetch_add(1, Ordering::Release);
        self.shared.wake_all(false);
        last
    }

    /// What readers see now.
    pub fn current(&self) -> Arc<T> {
        self.shared.value.load_full()
    }

    /// What readers see now, for a short look: no reference count is touched.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.shared.value.load()
    }

    /// A new reader, which has seen the present value.
    pub fn reader(&self) -> Reader<T> {
        Reader::new(self.shared.clone(), self.shared.version.load(Ordering::Acquire))
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.shared.wake_all(true);
    }
}

impl<T> Reader<T> {
    fn new(shared: Arc<Shared<T>>, seen: u64) -> Self {
        let id = shared.next_reader.fetch_add(1, Ordering::Relaxed);
        Self { shared, id, seen }
    }

    /// The present value, for a short look: no reference count is touched.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.shared.value.load()
    }

    /// The present value, to keep.
    pub fn current(&self) -> Arc<T> {
        self.shared.value.load_full()
    }

    /// Waits until there is a value that this reader has not seen, and counts it as seen.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the publisher is gone and everything was seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// As [`changed`](Self::changed), for hand-written futures.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.see() {
            return Poll::Ready(Ok(()));
        }
        let closed = {
            let mut waiting = self.shared.waiting();
            waiting.wakers.insert(self.id, cx.waker().clone());
            waiting.closed
        };
        // A value may have come between the look and the registration.
        if self.see() {
            Poll::Ready(Ok(()))
        } else if closed {
            Poll::Ready(Err(Closed))
        } else {
            Poll::Pending
        }
    }

    fn see(&mut self) -> bool {
        let version = self.shared.version.load(Ordering::Acquire);
        std::mem::replace(&mut self.seen, version) != version
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.seen)
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.shared.waiting().wakers.remove(&self.id);
    }
}

impl<T: fmt::Debug> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publisher").field(&self.shared.value.load()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.shared.value.load()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_woken_by_what_it_has_not_seen() {
        let publisher = Publisher::new(Arc::new(1));
        let mut reader = publisher.reader();
        let waiting = tokio::spawn(async move {
            reader.changed().await.unwrap();
            *reader.current()
        });
        tokio::task::yield_now().await;
        assert_eq!(*publisher.publish(Arc::new(2)), 1, "the old value comes back");
        assert_eq!(waiting.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn values_between_two_looks_count_once() {
        let publisher = Publisher::new(Arc::new(0));
        let mut reader = publisher.reader();
        publisher.publish(Arc::new(1));
        publisher.publish(Arc::new(2));
        reader.changed().await.unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(reader.poll_changed(&mut cx).is_pending());
        assert_eq!(**reader.load(), 2);
    }

    #[tokio::test]
    async fn closing_lets_the_last_value_be_seen_first() {
        let publisher = Publisher::new(Arc::new(0));
        let mut reader = publisher.reader();
        publisher.publish(Arc::new(1));
        drop(publisher);
        assert_eq!(reader.changed().await, Ok(()));
        assert_eq!(reader.changed().await, Err(Closed));
        assert_eq!(*reader.current(), 1);
    }

    #[test]
    fn a_reader_that_leaves_takes_its_waker_along() {
        let publisher = Publisher::new(Arc::new(0));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(publisher.reader().poll_changed(&mut cx).is_pending());
        }
        assert!(publisher.shared.waiting().wakers.is_empty());
    }
}
