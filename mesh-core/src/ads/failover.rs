//! Which servers are in use, and what is said when none can be reached (`spec` sections 2.6 and 2.7; gRFCs A57, A71).

use std::time::Instant;

use super::cache::{Cause, Entry, Trouble};
use super::engine::{Action, Due, Engine, ServerId};
use super::stream::Phase;
use crate::error::{Code, Error};
use crate::event::Event;
use crate::model::Name;
use crate::resource::{ResourceEvent, ResourceKey};

impl Engine {
    /// The stream to `server` could not be opened, or ended; `reason` says why.
    ///
    /// The end of a stream on which the server answered is nothing to speak of: a new one is opened. Otherwise the server
    /// cannot be reached; the next of the list is tried if something is missing, and when none is left everyone is told.
    pub fn handle_lost(&mut self, server: ServerId, reason: &str, now: Instant) {
        let Some(stream) = self.streams.get_mut(server.0) else { return };
        if !matches!(stream.phase, Phase::Connecting(_) | Phase::Open) {
            return;
        }
        let answered = stream.answered;
        let until = stream.backoff.next(now);
        stream.close(Phase::Waiting(until));
        self.due.insert((until, Due::Retry(server.0)));
        if !answered {
            stream.failing = Some(reason.to_owned());
            let event = Event::ConnectivityLost { server: stream.server.uri.clone(), reason: reason.to_owned() };
            self.events.push_back(event);
        }
        self.use_servers(now);
        if self.all_fail() {
            self.tell_all_unreachable();
        }
    }

    /// Connects what is needed.
    pub(super) fn use_servers(&mut self, now: Instant) {
        let last_fails = self.streams.get(self.used - 1).is_some_and(|last| last.failing.is_some());
        if last_fails && self.used < self.streams.len() && self.misses_something() {
            self.used += 1;
        }
        for index in 0..self.used.min(self.streams.len()) {
            if self.streams[index].phase == Phase::Idle && self.wants_something() {
                self.connect(index, now);
            }
        }
    }

    /// Whether there is no server that could be reached.
    pub(super) fn all_fail(&self) -> bool {
        self.streams.iter().all(|stream| stream.failing.is_some())
    }

    fn connect(&mut self, index: usize, now: Instant) {
        let give_up = now + self.settings.connect_timeout;
        self.streams[index].phase = Phase::Connecting(give_up);
        self.due.insert((give_up, Due::Connect(index)));
        self.actions.push_back(Action::Open(ServerId(index)));
    }

    fn wants_something(&self) -> bool {
        self.cache.iter().any(|names| !names.is_empty())
    }

    /// Whether something is wanted of which nothing is known.
    fn misses_something(&self) -> bool {
        self.cache.iter().flat_map(|names| names.values()).any(Entry::is_open)
    }

    pub(super) fn retry(&mut self, server: usize, at: Instant, now: Instant) {
        if self.streams[server].phase != Phase::Waiting(at) {
            return;
        }
        self.streams[server].phase = Phase::Idle;
        if self.wants_something() {
            self.connect(server, now);
        }
    }

    pub(super) fn connection_is_slow(&mut self, server: usize, at: Instant, now: Instant) {
        if self.streams[server].phase != Phase::Connecting(at) {
            return;
        }
        self.actions.push_back(Action::Close(ServerId(server)));
        let reason = format!("no connection after {} s", self.settings.connect_timeout.as_secs_f64());
        self.handle_lost(ServerId(server), &reason, now);
    }

    /// The server answered: those below it in the list are not needed, and what could not be reached is reached.
    pub(super) fn server_answers(&mut self, server: usize) {
        let stream = &mut self.streams[server];
        stream.answered = true;
        stream.backoff.reset();
        stream.failing = None;
        self.used = server + 1;
        for (index, lower) in self.streams.iter_mut().enumerate().skip(self.used) {
            if lower.phase != Phase::Idle {
                lower.close(Phase::Idle);
                lower.failing = None;
                self.actions.push_back(Action::Close(ServerId(index)));
            }
        }
        if std::mem::take(&mut self.unreachable) {
            let told = self.for_all(|key, entry| entry.relieve(key, Cause::Connectivity));
            self.told.extend(told);
        }
    }

    /// Tells everyone that no server can be reached: those that have a value to use it on.
    fn tell_all_unreachable(&mut self) {
        let trouble = self.no_server();
        self.unreachable = true;
        let told = self.for_all(|key, entry| entry.trouble(key, trouble.clone(), true));
        self.told.extend(told);
    }

    pub(super) fn tell_unreachable(&mut self, key: &ResourceKey) {
        let trouble = self.no_server();
        self.unreachable = true;
        let event = self.entry(key).and_then(|entry| entry.trouble(key, trouble, true));
        self.told.extend(event);
    }

    pub(super) fn patience_is_over(&mut self, key: &ResourceKey, at: Instant) {
        if self.entry(key).is_some_and(|entry| entry.patience == Some(at) && entry.is_open()) {
            self.tell_unreachable(key);
        }
    }

    fn no_server(&self) -> Trouble {
        let reasons: Vec<String> = self
            .streams
            .iter()
            .map(|stream| {
                let reason = stream.failing.as_deref().unwrap_or("is not connected yet");
                format!("xDS server {}: {reason}", stream.server.uri)
            })
            .collect();
        let reason = if reasons.is_empty() { "there is no xDS server".to_owned() } else { reasons.join("; ") };
        let error = Error::new(Code::NO_CONTROL_PLANE, format!("{reason} [xDS node id: {}]", self.node_id));
        Trouble { cause: Cause::Connectivity, reason, error, version: String::new() }
    }

    fn for_all(
        &mut self,
        mut each: impl FnMut(&ResourceKey, &mut Entry) -> Option<ResourceEvent>,
    ) -> Vec<ResourceEvent> {
        let mut told = Vec::new();
        for (row, entries) in self.types.rows().iter().zip(&mut self.cache) {
            let key = |name: &Name| ResourceKey::new(row.type_url.clone(), name.clone());
            told.extend(entries.iter_mut().filter_map(|(name, entry)| each(&key(name), entry)));
        }
        told
    }
}
