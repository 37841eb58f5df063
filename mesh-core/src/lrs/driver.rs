//! Moves the reporters' bytes: opens streams, writes reports, reads what is asked for, keeps time. It decides nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::time::Sleep;

use super::STREAM_LOAD_STATS;
use super::reporter::{Action, Reporter};
use crate::ads::{ControlTransport, Link, Settings, StreamEngine};
use crate::bootstrap::Node;
use crate::event::EventSink;
use crate::load::LoadStore;
use crate::publish::Reader;

/// So many rounds are done at a stretch before others get their turn.
const ROUNDS: usize = 32;

/// Reports load for as long as it is polled, inside a Tokio runtime with time: it is the configuration thread's work in the
/// background. It never ends by itself.
pub struct Driver {
    loads: Arc<LoadStore>,
    changes: Reader<()>,
    transport: Arc<dyn ControlTransport>,
    node: Node,
    settings: Settings,
    events: Arc<dyn EventSink>,
    seeds: fastrand::Rng,
    streams: Vec<(Reporter, Link)>,
    timer: Option<Pin<Box<Sleep>>>,
    is_new: bool,
}

impl Driver {
    /// Reports what `loads` counts, over `transport`, as `node`. The settings are those of ADS.
    pub fn new(
        loads: Arc<LoadStore>,
        transport: Arc<dyn ControlTransport>,
        node: Node,
        settings: Settings,
        events: Arc<dyn EventSink>,
        seed: u64,
    ) -> Self {
        let changes = loads.changes();
        let seeds = fastrand::Rng::with_seed(seed);
        let streams = Vec::new();
        Self { loads, changes, transport, node, settings, events, seeds, streams, timer: None, is_new: true }
    }

    /// Takes note of servers that are wanted now, or no longer.
    fn follow(&mut self, now: Instant) {
        for server in self.loads.wanted() {
            if !self.streams.iter().any(|(reporter, _)| *reporter.server() == server) {
                let seed = self.seeds.u64(..);
                let reporter = Reporter::new(server, &self.node, self.loads.clone(), &self.settings, seed);
                self.streams.push((reporter, Link::Closed));
            }
        }
        self.streams.iter_mut().for_each(|(reporter, _)| reporter.handle_change(now));
    }

    /// Moves what can be moved. Whether anything happened.
    fn round(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = std::mem::take(&mut self.is_new);
        while let Poll::Ready(Ok(())) = self.changes.poll_changed(cx) {
            busy = true;
        }
        if busy {
            self.follow(now);
        }
        for (reporter, link) in &mut self.streams {
            while let Some(action) = reporter.poll_action() {
                *link = match action {
                    Action::Open => Link::Opening(self.transport.open(reporter.server(), STREAM_LOAD_STATS)),
                    Action::Close => Link::Closed,
                };
                busy = true;
            }
            busy |= link.exchange(reporter, cx, now);
            while let Some(event) = reporter.poll_event() {
                self.events.event(&event);
            }
        }
        self.streams.retain(|(reporter, link)| !(reporter.is_idle() && matches!(link, Link::Closed)));
        if self.streams.is_empty() {
            self.loads.all_said();
        }
        busy | self.keep_time(cx, now)
    }

    /// Sleeps until the next deadline. Whether one is due.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(at) = self.streams.iter().filter_map(|(reporter, _)| reporter.poll_timeout()).min() else {
            self.timer = None;
            return false;
        };
        if at <= now {
            self.streams.iter_mut().for_each(|(reporter, _)| reporter.handle_timeout(now));
            return true;
        }
        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl StreamEngine for Reporter {
    fn connected(&mut self, now: Instant) {
        self.handle_connected(now);
    }

    fn next_request(&mut self) -> Option<Bytes> {
        self.poll_request()
    }

    fn written(&mut self, now: Instant) {
        self.handle_written(now);
    }

    fn message(&mut self, bytes: &[u8], now: Instant) {
        self.handle_message(bytes, now);
    }

    fn lost(&mut self, reason: &str, now: Instant) {
        self.handle_lost(reason, now);
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let now = tokio::time::Instant::now().into_std();
            if !self.round(cx, now) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}
