//! What the server takes away while it is in use: deleted resources and emptied sets, and the grace of both (`spec` section
//! 2.9; gRFCs A53 and A88).

use std::time::{Duration, Instant};

use super::cache::{Cause, Entry, Held, Trouble};
use super::engine::{Due, Engine};
use super::receive::Response;
use crate::error::Code;
use crate::event::{Event, Withdrawal};
use crate::model::Name;
use crate::planted::{Mistake, planted};
use crate::resource::{ResourceEvent, ResourceKey};
use crate::status::State;

impl Engine {
    /// Takes a value. An empty set in the place of one that held something waits until that one's grace is over.
    pub(super) fn apply_value(&mut self, response: &Response<'_>, name: &Name, held: Held) {
        let decoder = self.types.rows()[response.kind].decoder.clone();
        let is_empty = decoder.is_emptied(&held.value);
        let grace = self.grace_of_emptied(response.server);
        if is_empty {
            let emptied = self.trouble(response, Cause::Missing, Code::NO_ENDPOINTS, {
                format!("{}: it was emptied", response.key(name))
            });
            let before = |entry: &Entry| entry.held.as_ref().is_some_and(|old| !decoder.is_emptied(&old.value));
            if self.cache[response.kind].get(name).is_some_and(before) {
                return self.apply_emptied(response, name, held, emptied, grace);
            }
        }
        let mut is_back = false;
        self.with_entry(response, name, true, |entry, key| {
            is_back = entry.is_withdrawn();
            // That a set is still empty does not end its being empty; that there is one ends its being missing.
            let was_emptied = |known: &mut Trouble| known.error.code() == Code::NO_ENDPOINTS;
            let reason = entry.trouble.take_if(|known| is_empty && entry.held.is_some() && was_emptied(known));
            let mut told: Vec<_> = entry.accept(key, held, response.now).into_iter().collect();
            if let Some(reason) = reason {
                told.retain(|event| matches!(event, ResourceEvent::Changed { .. }));
                let again = entry.trouble(key, reason, true);
                told.extend(again.filter(|_| !told.is_empty()));
            }
            told
        });
        if is_back {
            let ResourceKey { type_url, name } = response.key(name);
            self.events.push_back(Event::Restored { type_url, name });
        }
    }

    /// A set that held something holds nothing: as with a deletion, what was there has grace.
    fn apply_emptied(
        &mut self,
        response: &Response<'_>,
        name: &Name,
        held: Held,
        trouble: Trouble,
        grace: Option<Duration>,
    ) {
        let mut until = None;
        let mut news = false;
        self.with_entry(response, name, true, |entry, key| {
            news = !entry.is_withdrawn();
            let mut told: Vec<_> = entry
                .empty(key, held, trouble, grace.map(|grace| response.now + grace), response.now)
                .into_iter()
                .collect();
            until = entry.grace;
            if grace == Some(Duration::ZERO) {
                told = entry.end_grace(key);
            }
            told
        });
        let key = response.key(name);
        self.due.extend(until.map(|at| (at, Due::Grace(key.clone()))));
        if news {
            self.withdrawn(key, Withdrawal::Emptied, grace);
        }
    }

    /// Says that something in use was withdrawn; without grace it is just gone.
    fn withdrawn(&mut self, key: ResourceKey, how: Withdrawal, grace: Option<Duration>) {
        let ResourceKey { type_url, name } = key;
        self.events.push_back(Event::Withdrawn { type_url: type_url.clone(), name: name.clone(), how, grace });
        if grace == Some(Duration::ZERO) {
            self.events.push_back(Event::Lapsed { type_url, name });
        }
    }

    /// The server says that there is no such resource. One that is in use has grace.
    pub(super) fn lose(&mut self, response: &Response<'_>, name: &Name, state: State, code: Code, reason: &str) {
        let key = response.key(name);
        let grace = self.grace(response.server);
        let trouble = self.trouble(response, Cause::Missing, code, format!("{key}: {reason}"));
        let mut until = None;
        let (mut news, mut in_use) = (false, false);
        self.with_entry(response, name, false, |entry, key| {
            let running = entry.grace;
            entry.emptied = None;
            in_use = entry.held.is_some();
            news = entry.trouble.as_ref().is_none_or(|trouble| trouble.cause != Cause::Missing);
            entry.enter(state, response.now);
            let keep = grace != Some(Duration::ZERO);
            if keep && entry.held.is_some() {
                // Being told again does not make it live longer.
                until = running.or(grace.map(|grace| response.now + grace));
                entry.grace = until;
                entry.expiry = None;
            }
            entry.trouble(key, trouble, keep)
        });
        self.due.extend(until.map(|at| (at, Due::Grace(key.clone()))));
        self.forget_discovered(&key);
        match (news, in_use) {
            (true, true) => self.withdrawn(key, Withdrawal::Deleted, grace),
            (true, false) => self.events.push_back(Event::Missing { type_url: key.type_url, name: key.name }),
            (false, _) => {}
        }
    }

    fn grace(&self, server: usize) -> Option<Duration> {
        let features = &self.streams[server].server.features;
        if features.fail_on_data_errors {
            Some(Duration::ZERO)
        } else if features.ignore_resource_deletion {
            None
        } else {
            self.settings.deletion_grace
        }
    }

    /// An empty set is no deletion, so `ignore_resource_deletion` (gRFC A53) has no word in it.
    fn grace_of_emptied(&self, server: usize) -> Option<Duration> {
        let fails = self.streams[server].server.features.fail_on_data_errors;
        if fails { Some(Duration::ZERO) } else { self.settings.deletion_grace }
    }

    /// What was withdrawn did not come back.
    pub(super) fn grace_is_over(&mut self, key: &ResourceKey, at: Instant) {
        let Some(entry) = self.entry(key).filter(|entry| entry.grace == Some(at)) else { return };
        if planted(Mistake::GraceWithoutEnd) && entry.emptied.is_some() {
            return;
        }
        let Some(trouble) = entry.trouble.clone() else { return };
        let mut told = entry.end_grace(key);
        if told.is_empty() {
            entry.grace = None;
            told.extend(entry.trouble(key, trouble, false));
        }
        self.told.extend(told);
        self.forget_discovered(key);
        self.events.push_back(Event::Lapsed { type_url: key.type_url.clone(), name: key.name.clone() });
    }
}
