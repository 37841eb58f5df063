//! Everything there is of a type: what a subscription to [`WILDCARD`] brings, and its end (`spec` sections 2.3 and 2.12).
//!
//! `*` is wanted as a name is, and so are its fallback and its timer. What it brings is told as if it had been subscribed to,
//! and is *discovered*: it goes when the server says so, or with the wildcard.

use std::time::Instant;

use super::cache::Entry;
use super::engine::{Action, Due, Engine, ServerId};
use super::response::Contents;
use super::stream::Phase;
use super::types::Subscription;
use crate::decode::Fault;
use crate::model::Name;
use crate::resource::{ResourceKey, WILDCARD};
use crate::status::State;

/// So many resources of a type may a client have with a wildcard: how many there are is up to servers.
const MOST_DISCOVERED: usize = 1_000_000;

impl Engine {
    /// Makes room for what the response brings that was not asked for by name, if the server was asked for everything. What
    /// there is no room for is refused.
    pub(super) fn discover(&mut self, server: usize, kind: usize, contents: &mut Contents, now: Instant) {
        let row = &self.types.rows()[kind];
        let cache = &self.cache[kind];
        let Some(all) = cache.get(WILDCARD) else { return };
        let is_asked = self.streams[server].types[kind].names(WILDCARD, all.sequence);
        if !is_asked || !self.lists.asks(server, &row.type_url, &WILDCARD.into(), all) {
            return;
        }
        let (authority, sequence, is_again) = (all.authority, all.sequence, all.is_again);
        // An authority of its own is not among "everything" of the servers without one.
        let is_of_it = |name: &Name| {
            self.lists.find(&ResourceKey::new(row.type_url.clone(), name.clone())).is_ok_and(|found| found == authority)
        };
        let mut names: Vec<Name> = contents.names().filter(|name| !cache.contains_key(*name)).cloned().collect();
        names.retain(is_of_it);
        for name in names {
            if self.cache[kind].len() >= MOST_DISCOVERED {
                let rule = format!("is one too many: a client has {MOST_DISCOVERED} of a type");
                contents.refuse(row, name, &[Fault::new("", rule)], None);
                continue;
            }
            let mut entry = Entry::new(authority, sequence, now, now);
            (entry.is_again, entry.is_named, entry.patience) = (is_again, false, None);
            self.cache[kind].insert(name, entry);
        }
    }

    /// A response is an answer to who asked for everything, whatever it holds.
    pub(super) fn wildcard_is_answered(&mut self, server: usize, kind: usize, now: Instant) {
        let stream = &mut self.streams[server];
        let Some(all) = self.cache[kind].get_mut(WILDCARD) else { return };
        if stream.types[kind].names(WILDCARD, all.sequence) && all.state != State::Acked {
            stream.timers.remove(&ResourceKey::new(self.types.rows()[kind].type_url.clone(), WILDCARD));
            all.enter(State::Acked, now);
            all.trouble = None;
            self.time_remembered(server, kind, now);
        }
    }

    /// The server tells what there is. What an earlier process left has the time of an answer to be among it.
    fn time_remembered(&mut self, server: usize, kind: usize, now: Instant) {
        let at = now + self.settings.resource_timeout;
        for (name, _) in self.cache[kind].iter().filter(|(_, entry)| !entry.is_named && entry.is_remembered()) {
            let key = ResourceKey::new(self.types.rows()[kind].type_url.clone(), name.clone());
            self.streams[server].timers.insert(key.clone(), at);
            self.due.insert((at, Due::Answer(server, key)));
        }
    }

    /// Forgets what was discovered and has no value any more.
    pub(super) fn forget_discovered(&mut self, key: &ResourceKey) {
        let Some(kind) = self.types.index(&key.type_url) else { return };
        if self.cache[kind].get(&key.name).is_some_and(|entry| !entry.is_named && entry.held.is_none()) {
            self.cache[kind].remove(&key.name);
        }
    }

    /// Not everything is wanted any more, but what is wanted by name. The older form of a wildcard cannot be taken back: it
    /// ends with its stream.
    pub(super) fn end_wildcard(&mut self, kind: usize, now: Instant) {
        let row = &self.types.rows()[kind];
        let cache = &mut self.cache[kind];
        cache.retain(|_, entry| entry.is_named);
        let mut ended = Vec::new();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            stream.absent.retain(|key, _| key.type_url != row.type_url || cache.contains_key(&key.name));
            let is_legacy = row.subscription == Subscription::LegacyWildcard;
            if is_legacy && stream.phase == Phase::Open && stream.types[kind].has_asked(WILDCARD) {
                stream.close(Phase::Idle);
                ended.push(Action::Close(ServerId(index)));
            }
        }
        self.actions.extend(ended);
        self.connect_needed(now);
    }
}
