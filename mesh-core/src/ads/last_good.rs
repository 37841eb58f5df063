//! The last good configuration of an earlier process: what is used of it, and when.
//!
//! It is used in one case only: no server of a resource's list can be reached, or the one that is connected says nothing at
//! all, and nothing is known of the resource. It counts for less than the word of any server: the first one about a resource
//! ends it, and a server that answers without a word about the resource makes it go as one that was deleted, with grace.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cache::{Entry, Held};
use super::engine::{Due, Engine};
use super::stream::Phase;
use crate::decode::{Decoded, Fault};
use crate::event::Event;
use crate::model::Name;
use crate::resource::{ResourceKey, ResourceValue, WILDCARD, name_fault};
use crate::status::State;

/// The place of a server that a value from an earlier process came from: in no list, so that every server goes before it.
const EARLIER_PROCESS: usize = usize::MAX;

/// A resource as a server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// Which resource.
    pub key: ResourceKey,
    /// The version it came with.
    pub version: String,
    /// Its bytes, as they came.
    pub bytes: Bytes,
    /// The `server_uri` of the server it came from. It is used only where this server may give it.
    pub server: Name,
    /// When it was known last to be what the server has: seconds of Unix time. The engine passes it on.
    pub confirmed: u64,
}

/// What is there of an earlier process.
#[derive(Default)]
pub(super) struct Memory {
    resources: BTreeMap<ResourceKey, LastGood>,
    age: Duration,
    /// Whether it was said that it is in use, since a server last answered.
    told: bool,
    /// Counts what servers said.
    changes: u64,
}

impl Memory {
    pub(super) fn has(&self, key: &ResourceKey) -> bool {
        self.resources.contains_key(key)
    }

    /// A server answered.
    pub(super) fn server_answers(&mut self) {
        self.told = false;
        self.changes += 1;
    }

    /// A server said something about the resource: what an earlier process knew of it means nothing any more.
    pub(super) fn forget(&mut self, key: &ResourceKey) {
        self.resources.remove(key);
    }
}

impl Engine {
    /// Uses these resources of an earlier process while no server can be reached; `age` is how old the newest is. They are
    /// told as values with an [`Ambient`](crate::resource::ResourceEvent::Ambient) trouble, until a server answers.
    pub fn remember(&mut self, resources: impl IntoIterator<Item = LastGood>, age: Duration) {
        let resources = resources.into_iter().map(|resource| (resource.key.clone(), resource)).collect();
        self.memory = Memory { resources, age, ..Memory::default() };
    }

    /// What a later process may start on: what servers gave, confirmed `now` (Unix time in seconds) if their stream lives and
    /// else at the time that `before` has for it; and what an earlier process left, of which no server has said anything.
    pub fn last_good(&self, now: u64, before: impl Fn(&ResourceKey) -> Option<u64>) -> Vec<LastGood> {
        let mut all: Vec<LastGood> = self.memory.resources.values().cloned().collect();
        for (row, entries) in self.types.rows().iter().zip(&self.cache) {
            for (name, entry) in entries {
                let Some((held, stream)) =
                    entry.held.as_ref().and_then(|held| Some((held, self.streams.get(held.server)?)))
                else {
                    continue;
                };
                let key = ResourceKey::new(row.type_url.clone(), name.clone());
                let is_live = stream.phase == Phase::Open && stream.answered;
                let confirmed = if is_live { now } else { before(&key).unwrap_or(now) };
                let (version, bytes) = (held.version.clone(), held.bytes.clone());
                all.push(LastGood { key, version, bytes, server: stream.server.uri.clone(), confirmed });
            }
        }
        all
    }

    /// Grows whenever [`last_good`](Self::last_good) may have changed.
    pub fn changes(&self) -> u64 {
        self.memory.changes
    }

    /// Whether any server answers at present.
    pub fn is_answered(&self) -> bool {
        self.streams.iter().any(|stream| stream.phase == Phase::Open && stream.answered)
    }

    /// Takes what an earlier process knew of the resource, or of everything, if nothing else is known. Whether there was
    /// something.
    pub(super) fn recall(&mut self, key: &ResourceKey) -> bool {
        if &*key.name != WILDCARD {
            return self.recall_one(key);
        }
        let discovered = self.types.index(&key.type_url).map(|kind| self.make_room(kind)).unwrap_or_default();
        // Each has its own trouble to be told, which recalls it first.
        discovered.iter().for_each(|key| self.tell_unreachable(key));
        !discovered.is_empty()
    }

    /// Makes room for what an earlier process knew and everything includes, as long as no server said what there is.
    fn make_room(&mut self, kind: usize) -> Vec<ResourceKey> {
        let Some(all) = self.cache[kind].get(WILDCARD).filter(|all| all.is_open()) else { return Vec::new() };
        let (authority, sequence, since) = (all.authority, all.sequence, all.since);
        let type_url = &self.types.rows()[kind].type_url;
        let is_covered = |key: &&ResourceKey| {
            key.type_url == *type_url
                && !self.cache[kind].contains_key(&key.name)
                && self.lists.find(key).is_ok_and(|found| found == authority)
        };
        let covered: Vec<ResourceKey> = self.memory.resources.keys().filter(is_covered).cloned().collect();
        for key in &covered {
            let mut entry = Entry::new(authority, sequence, since, since);
            (entry.is_named, entry.patience) = (false, None);
            self.cache[kind].insert(key.name.clone(), entry);
        }
        covered
    }

    fn recall_one(&mut self, key: &ResourceKey) -> bool {
        let Some(remembered) = self.memory.resources.get(key).cloned() else { return false };
        let Some(entry) = self.entry(key).filter(|entry| entry.is_open()) else { return false };
        let authority = entry.authority;
        let mut servers = self.lists.get(authority).servers.iter().map(|server| &self.streams[*server].server);
        let Some(origin) = servers.find(|server| server.uri == remembered.server).cloned() else {
            self.forget_discovered(key);
            return false;
        };
        let value = match self.read(&remembered) {
            Ok(value) => value,
            Err(why) => {
                self.memory.forget(key);
                self.forget_discovered(key);
                self.events.push_back(Event::LastGoodRefused { reason: format!("{key}: {why}") });
                return false;
            }
        };
        if !std::mem::replace(&mut self.memory.told, true) {
            self.events.push_back(Event::LastGoodUsed { age: self.memory.age });
        }
        let (version, bytes) = (remembered.version, remembered.bytes);
        let held = Held { value, bytes, version, server: EARLIER_PROCESS, alias_of: None, origin };
        let told = held.tell(key);
        if let Some(entry) = self.entry(key) {
            entry.held = Some(held);
            entry.patience = None;
        }
        self.told.push_back(told);
        true
    }

    /// A server said nothing about a resource in time. Whether that is all there is to say about it: one that says nothing
    /// at all is as good as away, and one that answers has no such resource.
    pub(super) fn is_overdue_memory(&mut self, server: usize, key: &ResourceKey, now: Instant) -> bool {
        let stream = &self.streams[server];
        let (is_silent, transient) = (!stream.answered, stream.server.features.resource_timer_is_transient_error);
        let is_remembered = self.entry(key).is_some_and(|entry| entry.is_remembered());
        if !is_silent {
            let state = if transient { State::Timeout } else { State::DoesNotExist };
            return is_remembered && self.lose_overdue(server, key, state, now);
        }
        if !is_remembered && !self.recall(key) {
            return false;
        }
        self.tell_unreachable(key);
        let at = now + self.settings.resource_timeout;
        self.due.insert((at, Due::Answer(server, key.clone())));
        self.streams[server].timers.insert(key.clone(), at);
        true
    }

    /// It is checked as if it came from a server.
    fn read(&self, remembered: &LastGood) -> Result<ResourceValue, String> {
        let LastGood { key, bytes, .. } = remembered;
        let row = self.types.index(&key.type_url).and_then(|kind| self.types.rows().get(kind));
        let row = row.ok_or("its type is not known")?;
        if let Some(why) = name_fault(&key.type_url, &key.name) {
            return Err(format!("its name {why}"));
        }
        match row.decoder.decode(&row.type_url, bytes) {
            // Its own name may be another: a server can give it one by a wrapper or an alias.
            Decoded::Ok { value, .. } => Ok(value),
            Decoded::Err { faults, .. } => Err(faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    /// The same for everything of an authority.
    pub(super) fn recall_all(&mut self, authority: usize) {
        for kind in 0..self.cache.len() {
            self.make_room(kind);
        }
        let mut wanted = Vec::new();
        for key in self.memory.resources.keys() {
            let Some(kind) = self.types.index(&key.type_url) else { continue };
            let entry = self.cache[kind].get(&key.name);
            if entry.is_some_and(|entry| entry.authority == authority && entry.is_open()) {
                wanted.push(key.clone());
            }
        }
        for key in wanted {
            self.recall(&key);
        }
    }
}

impl Entry {
    /// Whether no server has said anything about it, whatever an earlier process knew.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_open() || (self.state == State::Requested && self.is_remembered())
    }

    /// Whether its value is an earlier process's.
    pub(super) fn is_remembered(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.server == EARLIER_PROCESS)
    }
}
