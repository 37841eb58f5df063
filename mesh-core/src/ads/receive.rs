//! What a response means (`spec` sections 2.2, 2.4, 2.9 and 2.12; gRFCs A46, A53, A88).

use std::collections::btree_map;
use std::time::Instant;

use super::cache::{Cause, Entry, Held, Trouble};
use super::engine::{Due, Engine, ServerId};
use super::response::{Body, Contents, Envelope, Item};
use super::stream::Phase;
use crate::error::{Code, Error};
use crate::event::Event;
use crate::line::Version;
use crate::model::Name;
use crate::planted::{Mistake, planted};
use crate::resource::{ResourceEvent, ResourceKey};
use crate::status::State;

/// `google.rpc.Code.NOT_FOUND`: the server means that there is no such thing.
const NOT_FOUND: i32 = 5;
/// `google.rpc.Code.PERMISSION_DENIED`: the server means that there is nothing for us, which is as good as nothing (gRFC A88).
const PERMISSION_DENIED: i32 = 7;

/// The response at hand.
pub(super) struct Response<'a> {
    pub(super) server: usize,
    pub(super) kind: usize,
    pub(super) type_url: &'a Name,
    pub(super) version: &'a str,
    pub(super) now: Instant,
    /// Nobody sent it: what the server said before comes true.
    pub(super) is_due: bool,
}

impl Response<'_> {
    pub(super) fn key(&self, name: &Name) -> ResourceKey {
        ResourceKey::new(self.type_url.clone(), name.clone())
    }
}

impl Engine {
    /// A message came from `server`. What cannot be read, or is of a type that was not asked for on this stream, is ignored
    /// with an event; everything else is acknowledged by the type's next request. Good resources are applied even if others
    /// of the same response are refused (gRFC A46).
    pub fn handle_message(&mut self, server: ServerId, bytes: &[u8], now: Instant) {
        let Some(stream) = self.streams.get(server.0).filter(|stream| stream.phase == Phase::Open) else { return };
        let uri = stream.server.uri.clone();
        let envelope = match Envelope::read(stream.variant(), bytes) {
            Ok(envelope) => envelope,
            Err(error) => return self.events.push_back(Event::Garbage { server: uri, reason: error.to_string() }),
        };
        let kind = self.types.index(&envelope.type_url).filter(|kind| stream.types[*kind].is_asked());
        let Some(kind) = kind else {
            let reason = format!("it is of type `{}`, which was not asked for", envelope.type_url);
            return self.events.push_back(Event::Garbage { server: uri, reason });
        };
        let is_complete = (self.types.rows()[kind].full_state || planted(Mistake::AbsentEndpointsDeleted))
            && !stream.is_incremental();
        self.server_answers(server.0);
        let row = self.types.rows()[kind].clone();
        let (version, nonce) = (envelope.version.clone(), envelope.nonce.clone());
        let control_plane = envelope.control_plane.clone();
        let wanted = &self.cache[kind];
        let in_use = |name: &str| Some(wanted.get(name)?.held.as_ref().map(|held| held.version.as_str()));
        let mut contents = envelope.open(&row, in_use);
        self.discover(server.0, kind, &mut contents, now);
        let nack = contents.nack();
        let total = contents.total;
        // What cannot even be named could be anything that was asked for.
        let whole = !contents.has_nameless;
        let response =
            Response { server: server.0, kind, type_url: &row.type_url, version: &version, now, is_due: false };
        if is_complete {
            self.apply_absence(&response, &contents);
        }
        self.apply(&response, &contents);
        self.wildcard_is_answered(server.0, kind, now);
        self.events.push_back({
            let (server, type_url, version) = (uri, row.type_url.clone(), version.clone());
            match nack.clone() {
                None => Event::Accepted { server, control_plane, type_url, version, resources: total },
                Some(reason) => Event::Rejected { server, control_plane, type_url, version, reason },
            }
        });
        let state = &mut self.streams[server.0].types[kind];
        state.owe(&version, nonce, nack);
        if whole {
            state.answered = Some(now);
        }
    }

    fn apply(&mut self, response: &Response<'_>, contents: &Contents) {
        for name in contents.removed.iter().filter(|_| !planted(Mistake::RemovalIgnored)) {
            self.apply_removal(response, name);
        }
        let spoils = |_: &&Item| planted(Mistake::WholeNack) && !contents.invalid.is_empty();
        for item in contents.valid.values().filter(|item| !spoils(item)) {
            // What is told under its own name is not told under another's besides.
            for alias in item.aliases.iter().filter(|alias| !contents.mentions(alias)) {
                self.apply_item(response, alias, item);
            }
            self.apply_item(response, &item.name, item);
        }
        for (name, refusal) in &contents.invalid {
            let trouble = self.trouble(response, Cause::Refused, Code::RESOURCE_REFUSED, refusal.text.clone());
            let drop = self.streams[response.server].server.features.fail_on_data_errors;
            self.with_entry(response, name, false, |entry, key| {
                // What was being deleted is not any more: a broken one is there.
                entry.enter(State::Nacked, response.now);
                entry.refused = refusal.bytes.clone();
                entry.trouble(key, trouble, !drop)
            });
        }
        for (name, status) in &contents.errors {
            let reason = format!("the server reports code {}: {}", status.code, status.message);
            let code = match status.code {
                NOT_FOUND => Some(Code::RESOURCE_NOT_FOUND),
                PERMISSION_DENIED => Some(Code::RESOURCE_REPORTED),
                _ => None,
            };
            if let Some(code) = code {
                self.lose(response, name, State::ReceivedError, code, &reason);
                continue;
            }
            let reason = format!("{}: {reason}", response.key(name));
            let trouble = self.trouble(response, Cause::Reported, Code::RESOURCE_REPORTED, reason);
            self.with_entry(response, name, false, |entry, key| {
                entry.enter(State::ReceivedError, response.now);
                entry.trouble(key, trouble, true)
            });
        }
    }

    /// Takes `item` under one of its names.
    fn apply_item(&mut self, response: &Response<'_>, name: &Name, item: &Item) {
        let origin = &self.streams[response.server].server;
        let held = match &item.body {
            Body::Heartbeat => None,
            Body::Value(value, bytes) => Some(Held {
                value: value.clone(),
                bytes: bytes.clone(),
                version: item.version.as_deref().unwrap_or(response.version).to_owned(),
                server: response.server,
                origin: origin.clone(),
                alias_of: (*name != item.name).then(|| item.name.clone()),
            }),
        };
        let expiry = item.ttl.and_then(|ttl| response.now.checked_add(ttl));
        let is_value = held.is_some();
        match held {
            Some(held) => self.apply_value(response, name, held),
            None => self.with_entry(response, name, false, |entry, key| entry.is_there(key, response.now)),
        }
        let mut lives = false;
        self.with_entry(response, name, is_value, |entry, _| {
            lives = entry.held.is_some();
            entry.expiry = expiry.filter(|_| lives);
            None
        });
        self.due.extend(expiry.filter(|_| lives).map(|at| (at, Due::Expiry(response.key(name)))));
    }

    /// An incremental response says that there is no such resource (any more). It is gone under its other names too.
    fn apply_removal(&mut self, response: &Response<'_>, name: &Name) {
        let is_alias = |entry: &Entry| entry.held.as_ref().is_some_and(|held| held.alias_of.as_ref() == Some(name));
        let aliases = self.cache[response.kind].iter().filter(|(_, entry)| is_alias(entry));
        let mut gone: Vec<Name> = aliases.map(|(alias, _)| alias.clone()).collect();
        gone.push(name.clone());
        for name in gone {
            self.lose(
                response,
                &name,
                State::DoesNotExist,
                Code::RESOURCE_NOT_FOUND,
                "the server says that it does not exist",
            );
        }
    }

    /// A resource was not refreshed within its time to live. That is a deletion that the server ordered beforehand.
    pub(super) fn expire(&mut self, key: &ResourceKey, at: Instant, now: Instant) {
        if self.entry(key).is_some_and(|entry| entry.expiry == Some(at)) {
            self.lose_late(key, None, "it was not refreshed within its ttl", now);
        }
    }

    /// Time has shown that there is no such resource, by what this server said; None: by what was said with the value in use.
    pub(super) fn lose_late(&mut self, key: &ResourceKey, by: Option<usize>, reason: &str, now: Instant) {
        let Some(kind) = self.types.index(&key.type_url) else { return };
        let Some(held) = self.entry(key).and_then(|entry| entry.held.as_ref()) else { return };
        let (server, version) = (by.unwrap_or(held.server), held.version.clone());
        let is_due = by.is_none();
        let response = Response { server, kind, type_url: &key.type_url, version: &version, now, is_due };
        let code = if is_due { Code::RESOURCE_TIMEOUT } else { Code::RESOURCE_NOT_FOUND };
        self.lose(&response, &key.name, State::DoesNotExist, code, reason);
    }

    /// The server answers, and said nothing in time about a resource that an earlier process left.
    pub(super) fn lose_overdue(&mut self, server: usize, key: &ResourceKey, state: State, now: Instant) -> bool {
        let Some(kind) = self.types.index(&key.type_url) else { return false };
        let response = Response { server, kind, type_url: &key.type_url, version: "", now, is_due: true };
        let code = if state == State::Timeout { Code::RESOURCE_TIMEOUT } else { Code::RESOURCE_NOT_FOUND };
        self.lose(&response, &key.name, state, code, "the server answers, but says nothing about it");
        true
    }

    /// A complete response deletes what was there before and is not in it. Nothing is deleted by a response with a resource
    /// that is broken beyond its name: that could be the one.
    fn apply_absence(&mut self, response: &Response<'_>, contents: &Contents) {
        if contents.has_nameless {
            return;
        }
        for (_, left) in self.left[response.kind].iter_mut().filter(|(name, _)| !contents.mentions(name)) {
            left.absent.insert(response.server);
        }
        let absent = self.cache[response.kind].iter();
        // What an earlier process left was never received: its timer decides. What a wildcard brought was, even if it was bad.
        let was_there = |entry: &Entry| !entry.is_named || (entry.held.is_some() && !entry.is_remembered());
        let absent = absent.filter(|(name, entry)| was_there(entry) && !contents.mentions(name));
        let believed = response.now + self.settings.resource_timeout;
        let stream = &mut self.streams[response.server];
        let mut gone = Vec::new();
        for (name, entry) in absent {
            if !stream.types[response.kind].may_precede(name, entry, response.server) {
                gone.push(name.clone());
            } else if let btree_map::Entry::Vacant(absent) = stream.absent.entry(response.key(name)) {
                self.due.insert((believed, Due::Absent(response.server, absent.key().clone())));
                absent.insert(believed);
            }
        }
        for name in gone {
            self.lose(response, &name, State::DoesNotExist, Code::RESOURCE_NOT_FOUND, "it was deleted");
        }
    }

    /// Changes the entry of `name`, if it is wanted and this server may: what came from a preferred server stays until that
    /// one says otherwise, but for targets that fell back to this one, whose values count. Whatever was said about it, its
    /// timer stops.
    pub(super) fn with_entry<T: IntoIterator<Item = ResourceEvent>>(
        &mut self,
        response: &Response<'_>,
        name: &Name,
        is_value: bool,
        change: impl FnOnce(&mut Entry, &ResourceKey) -> T,
    ) {
        let key = response.key(name);
        let Some(entry) = self.cache[response.kind].get_mut(name) else {
            let Some(left) = self.left[response.kind].get_mut(name) else { return };
            left.absent.remove(&response.server);
            if self.lists.listens(response.server, &key, &left.entry, is_value) {
                // Nobody is told.
                let _ = change(&mut left.entry, &key);
            }
            return;
        };
        self.streams[response.server].timers.remove(&key);
        self.streams[response.server].absent.remove(&key);
        if response.is_due || self.lists.listens(response.server, &key, entry, is_value) {
            self.told.extend(change(entry, &key));
            self.memory.forget(&key);
        }
    }

    pub(super) fn trouble(&self, response: &Response<'_>, cause: Cause, code: Code, reason: String) -> Trouble {
        let (uri, version) = (&self.streams[response.server].server.uri, response.version);
        let shown = Version(version);
        let text = format!("{reason} (version `{shown}` from xDS server {uri}) [xDS node id: {}]", self.node_id);
        Trouble { cause, reason, error: Error::new(code, text), version: version.to_owned() }
    }
}
