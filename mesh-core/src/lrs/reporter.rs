//! The stream to one server: what was asked for on it, and what is to be reported when.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;

use super::message::{self, Asked};
use crate::ads::{Backoff, Settings, describe_node};
use crate::bootstrap::{Node, ServerConfig};
use crate::event::Event;
use crate::load::{ClusterCounts, LoadStore};

/// Nobody waits longer than this between reports, so that no sum of times overflows.
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The load reporting stream to one server, as a state machine without I/O.
///
/// **`handle_*`** say what happened; after each, ask [`poll_event`](Self::poll_event), [`poll_action`](Self::poll_action),
/// [`poll_request`](Self::poll_request) and last [`poll_timeout`](Self::poll_timeout). Time never goes backwards.
pub struct Reporter {
    server: Arc<ServerConfig>,
    node: core::Node,
    loads: Arc<LoadStore>,
    connect_timeout: Duration,
    backoff: Backoff,
    phase: Phase,
    /// Why the server cannot be reached, until it answers: said once.
    failing: bool,
    /// The next request, not yet on its way.
    outgoing: Option<Bytes>,
    /// Whether a request is on its way.
    writing: bool,
    /// The counts of the report that is not written yet, and when they were taken.
    unwritten: Option<(Instant, Vec<ClusterCounts>)>,
    asked: Option<Asked>,
    /// When the next report is due.
    due: Option<Instant>,
    /// Whether the report before had nothing to say: a second one like it is not sent.
    was_empty: bool,
    /// Nobody wants the stream any more: what was counted goes out, and then it is closed.
    leaving: bool,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Given up at this time.
    Connecting(Instant),
    Open,
    /// Tried again at this time.
    Waiting(Instant),
}

/// What is to be done about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open it, and say [`handle_connected`](Reporter::handle_connected) or [`handle_lost`](Reporter::handle_lost).
    Open,
    /// Close it, or stop opening it. Nothing is to be said about it afterwards.
    Close,
}

impl Reporter {
    /// Reports what `loads` counts for `server`. The settings are those of ADS: its connect timeout and its backoff.
    pub fn new(server: Arc<ServerConfig>, node: &Node, loads: Arc<LoadStore>, settings: &Settings, seed: u64) -> Self {
        Self {
            server,
            node: describe_node(node),
            loads,
            connect_timeout: settings.connect_timeout,
            backoff: Backoff::new(settings.backoff.clone(), seed),
            phase: Phase::Idle,
            failing: false,
            outgoing: None,
            writing: false,
            unwritten: None,
            asked: None,
            due: None,
            was_empty: false,
            leaving: false,
            events: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The server.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// Whether there is no stream and none is wanted.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    // -- what happened --

    /// What is counted for the server has changed: perhaps the stream is wanted now, or no longer.
    pub fn handle_change(&mut self, now: Instant) {
        let wanted = self.loads.is_wanted(&self.server);
        match (wanted, self.phase) {
            (true, Phase::Idle) => self.connect(now),
            (true, _) => self.leaving = false,
            (false, Phase::Connecting(_) | Phase::Waiting(_)) => self.close(),
            (false, Phase::Open) if !self.leaving => {
                self.leaving = true;
                self.leave(now);
            }
            (false, _) => {}
        }
    }

    /// The stream is open.
    pub fn handle_connected(&mut self, _now: Instant) {
        if matches!(self.phase, Phase::Connecting(_)) {
            self.phase = Phase::Open;
            self.outgoing = Some(message::hello(self.node.clone()));
        }
    }

    /// The request that [`poll_request`](Self::poll_request) gave last is written.
    pub fn handle_written(&mut self, now: Instant) {
        self.writing = false;
        self.unwritten = None;
        if self.leaving {
            self.leave(now);
        } else if self.due.is_some_and(|due| due <= now) {
            self.report(now);
        }
    }

    /// A message came. What cannot be read is ignored with an event.
    pub fn handle_message(&mut self, bytes: &[u8], now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        let asked = match message::read(bytes) {
            Ok(asked) => asked,
            Err(reason) => {
                return self.events.push_back(Event::Garbage { server: self.server.uri.clone(), reason });
            }
        };
        self.backoff.reset();
        self.failing = false;
        if self.asked.as_ref() == Some(&asked) {
            return;
        }
        if self.asked.is_none() {
            self.events.push_back(Event::LoadReporting { server: self.server.uri.clone() });
        }
        if asked.by_endpoint {
            let (resource, field) = (self.server.uri.clone(), "report_endpoint_granularity".to_owned());
            self.events.push_back(Event::LeftOut { resource, field });
        }
        self.due = Some(now + asked.interval.min(LONGEST_INTERVAL));
        self.asked = Some(asked);
    }

    /// The stream could not be opened, or ended; `reason` says why. What was counted and is not in a report that was written is kept.
    pub fn handle_lost(&mut self, reason: &str, now: Instant) {
        if !matches!(self.phase, Phase::Connecting(_) | Phase::Open) {
            return;
        }
        if self.asked.is_none() && !self.failing {
            self.failing = true;
            let (server, reason) = (self.server.uri.clone(), reason.to_owned());
            self.events.push_back(Event::LoadReportsLost { server, reason });
        }
        self.forget_stream();
        self.phase = Phase::Waiting(self.backoff.next(now));
        self.handle_change(now);
    }

    /// Time passed: does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting(until) if until <= now => {
                self.actions.push_back(Action::Close);
                let reason = format!("no connection after {} s", self.connect_timeout.as_secs_f64());
                self.handle_lost(&reason, now);
            }
            Phase::Waiting(until) if until <= now => self.connect(now),
            Phase::Open if self.due.is_some_and(|due| due <= now) => self.report(now),
            _ => {}
        }
    }

    // -- what follows --

    /// The next fact worth observing.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next thing to do about the stream.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next request to write. There is none before [`handle_written`](Self::handle_written) was said of the one before.
    pub fn poll_request(&mut self) -> Option<Bytes> {
        if self.writing || self.phase != Phase::Open {
            return None;
        }
        let request = self.outgoing.take()?;
        self.writing = true;
        Some(request)
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting(until) | Phase::Waiting(until) => Some(until),
            // While a report cannot be written, the next one waits for that and not for the time.
            Phase::Open if self.can_write() => self.due,
            Phase::Open | Phase::Idle => None,
        }
    }

    // -- how --

    fn can_write(&self) -> bool {
        !self.writing && self.outgoing.is_none()
    }

    fn connect(&mut self, now: Instant) {
        self.phase = Phase::Connecting(now + self.connect_timeout);
        self.actions.push_back(Action::Open);
    }

    /// Reports what was counted, if the server is not still busy with the report before.
    fn report(&mut self, now: Instant) {
        let Some(asked) = self.asked.as_ref().filter(|_| self.can_write()) else { return };
        self.due = Some(now + asked.interval.min(LONGEST_INTERVAL));
        let counts = self.loads.take(&self.server, &asked.selection, now);
        let is_empty = counts.is_empty();
        if !(is_empty && self.was_empty) {
            self.send(counts, now);
        }
        self.was_empty = is_empty;
    }

    fn send(&mut self, counts: Vec<ClusterCounts>, now: Instant) {
        self.outgoing = Some(message::report(counts.clone()));
        self.unwritten = Some((now, counts));
    }

    /// Sends what is left to say, and closes once that is written.
    fn leave(&mut self, now: Instant) {
        if !self.can_write() {
            return;
        }
        let asked = self.asked.as_ref();
        let counts = asked.map(|asked| self.loads.take(&self.server, &asked.selection, now)).unwrap_or_default();
        // Requests that are still under way do not keep the stream: their end would be the only news.
        if counts.iter().all(|cluster| cluster.dropped == 0 && cluster.localities.iter().all(|(_, of)| of.is_quiet())) {
            self.close();
        } else {
            self.send(counts, now);
        }
    }

    fn close(&mut self) {
        self.forget_stream();
        self.phase = Phase::Idle;
        self.failing = false;
        self.actions.push_back(Action::Close);
    }

    fn forget_stream(&mut self) {
        if let Some((taken, counts)) = self.unwritten.take() {
            self.loads.put_back(&self.server, &counts, taken);
        }
        self.outgoing = None;
        self.writing = false;
        self.asked = None;
        self.due = None;
        self.was_empty = false;
        self.leaving = false;
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("server", &self.server.uri)
            .field("phase", &self.phase)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}
