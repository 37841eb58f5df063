//! The last good configuration on disk, so that a process can start while the control plane is away.
//!
//! A [`LastGoodDirectory`] holds one file for each node. [`KeepingFeed`] goes around the feed of an xDS client: it reads the
//! file once, before anything is wanted, and writes it again when what servers gave has changed. What is used of it, and when,
//! is the engine's matter (see [`Engine::remember`](crate::ads::Engine::remember)).
//!
//! What is in the file is as trusted as a control plane and no more: it is bounded, its resources are decoded and checked as
//! any others, and it must be this node's own, of a server that the bootstrap has, and at most a day old. Nobody but its owner
//! can read it, and resources that hold a private key or a secret are not in it.

mod file;
mod secrets;

#[cfg(test)]
#[cfg(unix)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep};

pub(super) use file::LastGoodDirectory;

use super::Feed;
use crate::ads::{Driver, Engine};
use crate::event::{Event, EventSink};
use crate::model::Name;
use crate::resource::{ResourceEvent, ResourceKey};
use crate::status::ClientStatus;

/// A change is written after so long, with those that follow it: the resources of one push come in several responses.
const DELAY: Duration = Duration::from_secs(1);
/// No two writes are closer than this, however fast the control plane pushes.
const INTERVAL: Duration = Duration::from_secs(10);
/// While a server answers, the file is written at least so often, as its age counts from the last time.
const REFRESH: Duration = Duration::from_secs(3600);

/// Remembers what an earlier process left; afterwards `engine` is to be driven by a [`KeepingFeed`].
pub(super) fn recall(directory: &LastGoodDirectory, engine: &mut Engine, events: &dyn EventSink) {
    match directory.load(SystemTime::now()) {
        Ok(loaded) => engine.remember(loaded.resources, loaded.age),
        Err(reason) => events.event(&Event::LastGoodRefused { reason }),
    }
}

/// An xDS client that keeps what it was given for a later process.
pub(super) struct KeepingFeed {
    driver: Driver,
    directory: LastGoodDirectory,
    events: Arc<dyn EventSink>,
    /// The engine's count of changes at the last write.
    written: u64,
    /// When it was written last.
    last: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl KeepingFeed {
    pub(super) fn new(driver: Driver, directory: LastGoodDirectory, events: Arc<dyn EventSink>) -> Self {
        Self { driver, directory, events, written: 0, last: None, timer: None }
    }

    /// When it is to be written next.
    fn due(&self, now: Instant) -> Option<Instant> {
        if self.driver.engine().changes() == self.written {
            return self.last.map(|last| last + REFRESH);
        }
        let soon = now + DELAY;
        Some(self.last.map_or(soon, |last| soon.max(last + INTERVAL)))
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        let Some(due) = self.due(now) else { return };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // What is due sooner than was thought: a change came before the hour was over.
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        if timer.as_mut().poll(cx).is_ready() {
            self.timer = None;
            self.write(now);
            // Wakes for the next one.
            cx.waker().wake_by_ref();
        }
    }

    fn write(&mut self, now: Instant) {
        let engine = self.driver.engine();
        self.last = Some(now);
        if !engine.is_answered() && engine.changes() == self.written {
            return;
        }
        self.written = engine.changes();
        if let Err(reason) = self.directory.save(engine, SystemTime::now()) {
            self.events.event(&Event::LastGoodNotKept { reason });
        }
    }
}

impl Feed for KeepingFeed {
    fn subscribe(&mut self, key: &ResourceKey) {
        self.driver.subscribe(key);
    }

    fn unsubscribe(&mut self, key: &ResourceKey) {
        self.driver.unsubscribe(key);
    }

    fn claim(&mut self, key: &ResourceKey, target: &Name) {
        self.driver.claim(key, target);
    }

    fn release(&mut self, key: &ResourceKey, target: &Name) {
        self.driver.release(key, target);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ResourceEvent> {
        self.driver.poll_event(cx)
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let settled = self.driver.poll_settled(cx);
        self.keep_time(cx);
        settled
    }

    fn status(&self) -> Vec<ClientStatus> {
        self.driver.status()
    }
}

impl Drop for KeepingFeed {
    fn drop(&mut self) {
        // What came in the last second is worth as much as the rest.
        if self.driver.engine().changes() != self.written {
            self.write(Instant::now());
        }
    }
}

impl fmt::Debug for KeepingFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepingFeed").field("driver", &self.driver).finish_non_exhaustive()
    }
}
