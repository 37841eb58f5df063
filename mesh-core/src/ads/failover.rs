//! Which servers are in use, and what is said when none can be reached (`spec` sections 2.6 and 2.7; gRFCs A57, A71).

use std::collections::BTreeSet;
use std::time::Instant;

use super::authority::User;
use super::cache::{Cause, Entry, Trouble};
use super::engine::{Action, Due, Engine, ServerId};
use super::settings::FallbackScope;
use super::stream::{Asked, Phase};
use crate::error::{Code, Error};
use crate::event::Event;
use crate::model::Name;
use crate::planted::{Mistake, planted};
use crate::resource::{ResourceEvent, ResourceKey, WILDCARD};

/// What is added to the reason why no server is reached where an earlier process left something.
const REMEMBERED: &str = "; the last good configuration of an earlier process is used";

impl Engine {
    /// `target` uses a resource that is wanted. Targets fall back to another server one by one, with all that they use (gRFC
    /// A71); a resource of which no target is known does so alone, and so does a wildcard.
    pub fn claim(&mut self, key: &ResourceKey, target: &Name, now: Instant) {
        if &*key.name == WILDCARD {
            return;
        }
        let Some((authority, before)) = self.users_of(key).filter(|(authority, _)| self.lists.has_fallback(*authority))
        else {
            return;
        };
        if !self.entry(key).is_some_and(|entry| entry.users.insert(target.clone())) {
            return;
        }
        self.lists.claim(authority, User::Target(target.clone()));
        before.iter().filter(|user| matches!(user, User::Resource(_))).for_each(|alone| {
            self.lists.release(authority, alone);
        });
        self.fall_back_with(key, authority);
        self.users_changed(authority);
        self.connect_needed(now);
    }

    /// `target` uses it no more.
    pub fn release(&mut self, key: &ResourceKey, target: &Name) {
        let Some(entry) = self.entry(key) else { return };
        if !entry.users.remove(target) {
            return;
        }
        let (authority, is_alone) = (entry.authority, entry.users.is_empty());
        self.lists.release(authority, &User::Target(target.clone()));
        if is_alone {
            self.lists.claim(authority, User::Resource(key.clone()));
        }
        self.users_changed(authority);
        self.close_unneeded();
    }

    fn users_changed(&mut self, authority: usize) {
        if self.settings.fallback_scope == FallbackScope::Target {
            self.ask_again(authority);
        }
    }

    fn users_of(&self, key: &ResourceKey) -> Option<(usize, BTreeSet<User>)> {
        let kind = self.types.index(&key.type_url)?;
        let entry = self.cache.get(kind)?.get(&key.name)?;
        Some((entry.authority, self.lists.users(&key.type_url, &key.name, entry)))
    }

    /// A resource is wanted that was not.
    pub(super) fn want(&mut self, kind: usize, key: &ResourceKey, authority: usize, now: Instant) {
        let list = self.lists.get_mut(authority);
        list.wanted += 1;
        list.idle = None;
        self.lists.claim(authority, User::Resource(key.clone()));
        self.names_changed(authority, kind);
        self.fall_back_with(key, authority);
        self.connect_needed(now);
        let is_away = self.lists.get(authority).unreachable;
        if self.all_fail(authority) || (is_away && self.memory.has(key)) {
            self.tell_unreachable(key);
        }
    }

    /// It is wanted no more.
    pub(super) fn forget(&mut self, kind: usize, key: &ResourceKey, entry: &Entry, now: Instant) {
        self.names_changed(entry.authority, kind);
        for stream in &mut self.streams {
            stream.timers.remove(key);
            stream.absent.remove(key);
        }
        for user in self.lists.users(&key.type_url, &key.name, entry) {
            self.lists.release(entry.authority, &user);
        }
        let at = now + self.settings.idle_timeout;
        let list = self.lists.get_mut(entry.authority);
        list.wanted -= 1;
        if list.wanted == 0 {
            list.idle = Some(at);
            self.due.insert((at, Due::Idle(entry.authority)));
        }
    }

    fn names_changed(&mut self, authority: usize, kind: usize) {
        for server in self.lists.get(authority).used() {
            self.streams[*server].types[kind].changed = true;
        }
    }

    /// What is asked for from the servers of a list may have changed.
    fn ask_again(&mut self, authority: usize) {
        for server in &self.lists.get(authority).servers {
            // The preferred server is asked for everything at any time.
            if Some(server) != self.lists.get(authority).servers.first() {
                self.streams[*server].types.iter_mut().for_each(|state| state.changed = true);
            }
        }
    }

    /// Whether a request to the server names the resource.
    pub(super) fn asks(&self, server: usize, kind: usize, name: &Name, entry: &Entry) -> bool {
        self.lists.asks(server, &self.types.rows()[kind].type_url, name, entry)
    }

    /// What requests to the server name, by type.
    pub(super) fn asked(&self, server: usize) -> Vec<Asked> {
        let each = |(kind, entries): (usize, &std::collections::BTreeMap<Name, Entry>)| {
            let mut asked = Asked::default();
            for (_, entry) in entries.iter().filter(|(name, entry)| self.asks(server, kind, name, entry)) {
                asked.any = true;
                match &entry.held {
                    Some(held) if held.server == server => asked.has_own = true,
                    Some(_) => asked.has_foreign = true,
                    None => {}
                }
            }
            asked
        };
        self.cache.iter().enumerate().map(each).collect()
    }

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
        for authority in self.lists.indices().filter(|index| self.lists.get(*index).uses(server.0)).collect::<Vec<_>>()
        {
            self.fall_back(authority);
            self.connect_needed(now);
            if self.all_fail(authority) {
                self.tell_all_unreachable(authority);
            }
        }
    }

    /// Moves everyone of an authority who misses something past the servers that cannot be reached.
    fn fall_back(&mut self, authority: usize) {
        if !self.lists.has_fallback(authority) {
            return;
        }
        let mut users = BTreeSet::new();
        for (row, entries) in self.types.rows().iter().zip(&self.cache) {
            for (name, entry) in entries.iter().filter(|(_, entry)| entry.authority == authority) {
                if self.is_reason(entry) {
                    users.extend(self.lists.users(&row.type_url, name, entry));
                }
            }
        }
        self.descend(authority, &users);
    }

    /// The same for the users of one resource.
    fn fall_back_with(&mut self, key: &ResourceKey, authority: usize) {
        let misses = self.entry(key).is_some_and(|entry| entry.is_open());
        if !self.lists.has_fallback(authority) || !(misses || self.lists.get(authority).reachability_only) {
            return;
        }
        if let Some((_, users)) = self.users_of(key) {
            self.descend(authority, &users);
        }
    }

    /// Whether a dead server makes the resource's users try the next one: nothing is known of it (gRFC A71), or the bootstrap
    /// says that it always does (gRFC A95).
    fn is_reason(&self, entry: &Entry) -> bool {
        entry.is_open() || self.lists.get(entry.authority).reachability_only
    }

    fn descend(&mut self, authority: usize, users: &BTreeSet<User>) {
        let streams = &self.streams;
        if self.lists.descend(authority, users, |server| streams[server].failing.is_some()) {
            self.ask_again(authority);
        }
    }

    /// Whether there is no server of the list that could be reached.
    fn all_fail(&self, authority: usize) -> bool {
        self.lists.get(authority).servers.iter().all(|server| self.streams[*server].failing.is_some())
    }

    /// Connects what is needed and is not connected.
    pub(super) fn connect_needed(&mut self, now: Instant) {
        for index in 0..self.streams.len() {
            if self.streams[index].phase == Phase::Idle && self.lists.needs(index) {
                self.connect(index, now);
            }
        }
    }

    fn connect(&mut self, index: usize, now: Instant) {
        let give_up = now + self.settings.connect_timeout;
        self.streams[index].phase = Phase::Connecting(give_up);
        self.due.insert((give_up, Due::Connect(index)));
        self.actions.push_back(Action::Open(ServerId(index)));
    }

    pub(super) fn retry(&mut self, server: usize, at: Instant, now: Instant) {
        if self.streams[server].phase != Phase::Waiting(at) {
            return;
        }
        self.streams[server].phase = Phase::Idle;
        if self.lists.needs(server) {
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

    /// Nothing of an authority has been wanted for a while.
    pub(super) fn close_idle(&mut self, authority: usize, at: Instant) {
        let list = self.lists.get_mut(authority);
        if list.idle != Some(at) {
            return;
        }
        list.idle = None;
        list.forget();
        self.close_unneeded();
    }

    fn close_unneeded(&mut self) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if stream.phase != Phase::Idle && !self.lists.keeps(index) && !planted(Mistake::FallbackKept) {
                stream.close(Phase::Idle);
                stream.failing = None;
                self.actions.push_back(Action::Close(ServerId(index)));
            }
        }
    }

    /// The server answered: those below it in its lists are not needed, and what could not be reached is reached.
    pub(super) fn server_answers(&mut self, server: usize) {
        let stream = &mut self.streams[server];
        stream.answered = true;
        self.memory.server_answers();
        if !planted(Mistake::BackoffNotReset) {
            stream.backoff.reset();
        }
        stream.failing = None;
        for authority in self.lists.indices().filter(|index| self.lists.get(*index).uses(server)).collect::<Vec<_>>() {
            if self.lists.ascend(authority, server) {
                self.ask_again(authority);
            }
            if std::mem::take(&mut self.lists.get_mut(authority).unreachable) {
                let told = self.for_all(authority, |key, entry| entry.relieve(key, Cause::Connectivity));
                self.told.extend(told);
            }
        }
        self.close_unneeded();
    }

    /// Tells everyone that no server can be reached: those that have a value to use it on.
    fn tell_all_unreachable(&mut self, authority: usize) {
        self.recall_all(authority);
        let (trouble, remembered) = (self.no_server(authority, ""), self.no_server(authority, REMEMBERED));
        self.lists.get_mut(authority).unreachable = true;
        let told = self.for_all(authority, |key, entry| {
            let trouble = if entry.is_remembered() { &remembered } else { &trouble };
            entry.trouble(key, trouble.clone(), true)
        });
        self.told.extend(told);
    }

    pub(super) fn tell_unreachable(&mut self, key: &ResourceKey) {
        self.recall(key);
        let Some((authority, is_remembered)) = self.entry(key).map(|entry| (entry.authority, entry.is_remembered()))
        else {
            return;
        };
        let trouble = self.no_server(authority, if is_remembered { REMEMBERED } else { "" });
        self.lists.get_mut(authority).unreachable = true;
        let event = self.entry(key).and_then(|entry| entry.trouble(key, trouble, true));
        self.told.extend(event);
    }

    pub(super) fn patience_is_over(&mut self, key: &ResourceKey, at: Instant) {
        if self.entry(key).is_some_and(|entry| entry.patience == Some(at) && entry.is_open()) {
            self.tell_unreachable(key);
        }
    }

    fn no_server(&self, authority: usize, instead: &str) -> Trouble {
        let reason = |server: &usize| {
            let stream = &self.streams[*server];
            let waits = if stream.phase == Phase::Open { "says nothing" } else { "is not connected yet" };
            let reason = stream.failing.as_deref().unwrap_or(waits);
            format!("xDS server {}: {reason}", stream.server.uri)
        };
        let reasons: Vec<String> = self.lists.get(authority).servers.iter().map(reason).collect();
        let reason = if reasons.is_empty() { "there is no xDS server".to_owned() } else { reasons.join("; ") };
        let error = Error::new(Code::NO_CONTROL_PLANE, format!("{reason}{instead} [xDS node id: {}]", self.node_id));
        Trouble { cause: Cause::Connectivity, reason, error, version: String::new() }
    }

    fn for_all(
        &mut self,
        authority: usize,
        mut each: impl FnMut(&ResourceKey, &mut Entry) -> Option<ResourceEvent>,
    ) -> Vec<ResourceEvent> {
        let mut told = Vec::new();
        for (row, entries) in self.types.rows().iter().zip(&mut self.cache) {
            let key = |name: &Name| ResourceKey::new(row.type_url.clone(), name.clone());
            let of_it = entries.iter_mut().filter(|(_, entry)| entry.authority == authority);
            told.extend(of_it.filter_map(|(name, entry)| each(&key(name), entry)));
        }
        told
    }
}
