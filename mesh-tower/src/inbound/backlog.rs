//! How much of its answers a connection holds that its client has not taken.
//!
//! HTTP/2 bounds what each stream holds, and a client may have a thousand of them, open every window and take nothing. So the
//! bodies of a connection's answers share one budget: over it they are not asked for more until the transport takes some.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::identify::PeerInfo;

/// What the bodies of one connection have given and the transport has not taken.
pub(crate) struct Backlog {
    most: usize,
    held: AtomicUsize,
    /// Who waits for room. Nobody touches it while there is some.
    waiting: Mutex<Vec<Waker>>,
}

impl Backlog {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room(self.held.load(Ordering::Acquire)) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever makes room does so before it looks who waits.
        if self.has_room(self.held.load(Ordering::Acquire)) {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The transport took so many bytes, frames' headers and all.
    pub(crate) fn wrote(&self, bytes: usize) {
        let less = |held: usize| (held > 0).then(|| held.saturating_sub(bytes));
        if let Ok(before) = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            self.made_room(before, before.saturating_sub(bytes));
        }
    }

    /// The transport has everything that can be sent now. What a stream holds for want of a window is its own matter, and what
    /// was taken for one that is gone counts no more.
    pub(crate) fn flushed(&self) {
        if self.held.load(Ordering::Acquire) > 0 {
            let before = self.held.swap(0, Ordering::AcqRel);
            self.made_room(before, 0);
        }
    }

    fn made_room(&self, before: usize, now: usize) {
        if self.has_room(before) || !self.has_room(now) {
            return;
        }
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }

    fn has_room(&self, held: usize) -> bool {
        held < self.most
    }
}

/// What one body shares of its connection's budget.
pub(crate) struct Held(PeerInfo);

impl Held {
    pub(crate) fn new(peer: &PeerInfo) -> Self {
        Self(peer.clone())
    }

    /// Waits until the connection may hold more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.connection().backlog.poll_room(cx)
    }

    /// The body gave so many bytes.
    pub(crate) fn gave(&self, bytes: usize) {
        self.0.connection().backlog.held.fetch_add(bytes, Ordering::AcqRel);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn waits(backlog: &Backlog) -> (bool, Arc<Woken>) {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        (backlog.poll_room(&mut Context::from_waker(&waker)).is_pending(), woken)
    }

    #[test]
    fn bodies_wait_while_the_connection_holds_too_much_and_are_told_of_room() {
        let backlog = Backlog::new(100);
        backlog.held.fetch_add(99, Ordering::Relaxed);
        assert!(!waits(&backlog).0);
        backlog.held.fetch_add(60, Ordering::Relaxed);
        let (waiting, woken) = waits(&backlog);
        assert!(waiting);
        backlog.wrote(50);
        assert!(!woken.0.load(Ordering::Relaxed), "109 are held");
        backlog.wrote(10);
        assert!(woken.0.load(Ordering::Relaxed) && !waits(&backlog).0);
    }

    #[test]
    fn what_was_taken_for_a_stream_that_is_gone_counts_until_all_is_sent() {
        let backlog = Backlog::new(100);
        backlog.held.fetch_add(500, Ordering::Relaxed);
        let (waiting, woken) = waits(&backlog);
        assert!(waiting);
        backlog.flushed();
        assert!(woken.0.load(Ordering::Relaxed) && !waits(&backlog).0);
    }
}
