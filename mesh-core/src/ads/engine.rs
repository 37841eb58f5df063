//! The client itself: commands and time in, requests and facts out.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use prost::Message;

use super::authority::{Authorities, Lists};
use super::backoff::Backoff;
use super::cache::{Cause, Entry, Left, Trouble};
use super::last_good::Memory;
use super::message;
use super::settings::Settings;
use super::stream::{Cache, Phase, Stream};
use super::types::{ResourceTypes, Variant};
use crate::bootstrap::{Node, ServerConfig};
use crate::error::{Code, Error};
use crate::event::Event;
use crate::model::Name;
use crate::planted::{Mistake, planted};
use crate::resource::{CLUSTER_LOAD_ASSIGNMENT, ResourceEvent, ResourceKey, WILDCARD};
use crate::status::{ClientStatus, ResourceStatus, State};

/// So many resources of a type are remembered that were wanted a short time ago: how many come and go is up to servers.
const MOST_LEFT: usize = 10_000;

/// An xDS client for lists of servers, as a state machine without I/O. Each server has one stream, which all targets and
/// authorities share.
///
/// Its methods are of three kinds.
///
/// - **Commands** say what is wanted: [`subscribe`](Self::subscribe), [`unsubscribe`](Self::unsubscribe); and for whom:
///   [`claim`](Self::claim), [`release`](Self::release).
/// - **`handle_*`** say what happened: a stream is open or lost, a message arrived, a request was written, time passed.
/// - **`poll_*`** say what follows. After any of the above, ask in this order: [`poll_resource`](Self::poll_resource) until
///   there is nothing more, with the commands that follow from each; [`poll_event`](Self::poll_event);
///   [`poll_action`](Self::poll_action); [`poll_request`](Self::poll_request) for each open stream; and last
///   [`poll_timeout`](Self::poll_timeout), the time at which [`handle_timeout`](Self::handle_timeout) must be called.
///
/// Because requests are asked for last, a response's acknowledgement carries the subscriptions that the response caused.
/// Time never goes backwards; all randomness comes from the seed.
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) types: ResourceTypes,
    pub(super) node_id: String,
    node: core::Node,
    pub(super) streams: Vec<Stream>,
    /// Which of the servers are in use, by authority.
    pub(super) lists: Lists,
    pub(super) cache: Cache,
    /// What was wanted a short time ago, by the type's place.
    pub(super) left: Vec<BTreeMap<Name, Left>>,
    /// What an earlier process left.
    pub(super) memory: Memory,
    /// Counts subscriptions.
    sequence: u64,
    pub(super) due: BTreeSet<(Instant, Due)>,
    pub(super) told: VecDeque<ResourceEvent>,
    pub(super) events: VecDeque<Event>,
    pub(super) actions: VecDeque<Action>,
}

/// What is to be done at some time. An entry counts only if what it is about still says the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A connection is taking too long.
    Connect(usize),
    /// A stream is to be tried again.
    Retry(usize),
    /// A server said nothing about a resource.
    Answer(usize, ResourceKey),
    /// A server said nothing at all, on a stream on which it may have nothing to say.
    Silence(usize),
    /// No server was reached for a resource.
    Patience(ResourceKey),
    /// A deleted resource is no longer used.
    Grace(ResourceKey),
    /// A resource's time to live is over.
    Expiry(ResourceKey),
    /// A resource that was wanted once is forgotten.
    Left(ResourceKey),
    /// It is clear by now that a resource is not only absent from a server's response but gone.
    Absent(usize, ResourceKey),
    /// Streams of an authority without subscriptions are closed.
    Idle(usize),
}

/// Which server: its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

/// What is to be done about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open one, and say [`handle_connected`](Engine::handle_connected) or [`handle_lost`](Engine::handle_lost).
    Open(ServerId),
    /// Close it, or stop opening it. Nothing is to be said about it afterwards.
    Close(ServerId),
}

impl Engine {
    /// A client of these servers, that knows `types`.
    pub fn new(
        authorities: impl Into<Authorities>,
        node: &Node,
        types: ResourceTypes,
        settings: Settings,
        seed: u64,
    ) -> Self {
        let mut seeds = fastrand::Rng::with_seed(seed);
        let (servers, lists) = authorities.into().start(settings.fallback_scope);
        let count = types.rows().len();
        let stream = |server| Stream::new(server, count, Backoff::new(settings.backoff.clone(), seeds.u64(..)));
        Self {
            streams: servers.into_iter().map(stream).collect(),
            lists,
            memory: Memory::default(),
            cache: (0..count).map(|_| BTreeMap::new()).collect(),
            left: (0..count).map(|_| BTreeMap::new()).collect(),
            node_id: node.id.clone(),
            node: message::node(node),
            settings,
            types,
            sequence: 0,
            due: BTreeSet::new(),
            told: VecDeque::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    // -- commands --

    /// Wants a resource; of a type that has a wildcard (see [`Subscription`](super::Subscription)), `*` is every resource of it. If it is wanted
    /// already, what is known of it is told again and nothing is sent.
    pub fn subscribe(&mut self, key: &ResourceKey, now: Instant) {
        let Some(kind) = self.types.index(&key.type_url) else {
            return self.refuse(key, "this client does not know the type");
        };
        let row = &self.types.rows()[kind];
        if let Some(why) = row.subscription.refusal(&key.name) {
            return self.refuse(key, why);
        }
        let authority = match self.lists.find(key) {
            Ok(authority) => authority,
            Err(why) => return self.refuse(key, &why),
        };
        let mut servers = self.lists.get(authority).servers.iter().map(|server| &self.streams[*server]);
        if row.variant == Variant::Incremental && !servers.all(Stream::is_incremental) {
            return self.refuse(key, "it needs incremental xDS, for which its servers must all have `delta_grpc`");
        }
        if let Some(entry) = self.cache[kind].get_mut(&key.name) {
            self.told.extend(entry.retell(key));
            if !std::mem::replace(&mut entry.is_named, true) {
                self.sequence += 1;
                entry.sequence = self.sequence;
                self.want(kind, key, authority, now);
            }
            return;
        }
        self.sequence += 1;
        let patience = now + self.settings.patience;
        let mut entry = Entry::new(authority, self.sequence, now, patience);
        let is_known = |stream: &Stream| stream.phase == Phase::Open && stream.types[kind].ever_asked(&key.name);
        entry.is_again = self.streams.iter().any(is_known);
        if &*key.name == WILDCARD {
            // A server need not send everything again to who never took `*` back.
            self.streams.iter_mut().for_each(|stream| stream.types[kind].take_back_if_asked(WILDCARD));
        }
        if let Some(left) = self.left[kind].remove(&key.name) {
            entry = entry.resume(left.entry);
            let believed = now + self.settings.resource_timeout;
            for server in left.absent {
                let stream = &mut self.streams[server];
                if stream.phase == Phase::Open {
                    stream.absent.insert(key.clone(), believed);
                    self.due.insert((believed, Due::Absent(server, key.clone())));
                }
            }
            // It may have run out unheeded.
            entry.grace = entry.grace.map(|at| at.max(now));
            self.due.extend(entry.grace.map(|at| (at, Due::Grace(key.clone()))));
        }
        self.told.extend(entry.retell(key));
        self.cache[kind].insert(key.name.clone(), entry);
        self.due.insert((patience, Due::Patience(key.clone())));
        self.want(kind, key, authority, now);
    }

    /// Wants a resource no more. What is known of it is kept up to date for a short time, in which a server may believe that
    /// it is wanted still: if it is wanted again by then, it might not be sent again.
    pub fn unsubscribe(&mut self, key: &ResourceKey, now: Instant) {
        let Some(kind) = self.types.index(&key.type_url) else { return };
        if !self.cache[kind].get(&key.name).is_some_and(|entry| entry.is_named) {
            return;
        }
        if planted(Mistake::EntryKept) && *key.type_url == *CLUSTER_LOAD_ASSIGNMENT {
            return;
        }
        if let Some(mut entry) = self.cache[kind].remove(&key.name) {
            let absent = |server: &usize| self.streams[*server].absent.contains_key(key);
            let absent = (0..self.streams.len()).filter(absent).collect();
            self.forget(kind, key, &entry, now);
            entry.users.clear();
            if &*key.name == WILDCARD {
                self.end_wildcard(kind, now);
            } else if entry.held.is_some() && self.cache[kind].contains_key(WILDCARD) {
                entry.is_named = false;
                self.cache[kind].insert(key.name.clone(), entry);
            } else if self.left[kind].len() < MOST_LEFT && !planted(Mistake::ForgottenAtOnce) {
                let until = now + self.settings.resource_timeout;
                self.left[kind].insert(key.name.clone(), Left { entry, until, absent });
                self.due.insert((until, Due::Left(key.clone())));
            }
        }
    }

    fn forget_left(&mut self, key: &ResourceKey, at: Instant) {
        let Some(kind) = self.types.index(&key.type_url) else { return };
        let Some(left) = self.left[kind].get_mut(&key.name).filter(|left| left.until == at) else { return };
        // Without any subscription none is ended (see `next_request`), and a request may wait to be written.
        if self.streams.iter().any(|stream| stream.phase == Phase::Open && stream.types[kind].has_asked(&key.name)) {
            left.until = at + self.settings.resource_timeout;
            self.due.insert((left.until, Due::Left(key.clone())));
        } else {
            self.left[kind].remove(&key.name);
        }
    }

    fn refuse(&mut self, key: &ResourceKey, why: &str) {
        let text = format!("{key} cannot be subscribed to: {why} [xDS node id: {}]", self.node_id);
        let error = Error::new(Code::RESOURCE_REFUSED, text);
        self.told.push_back(ResourceEvent::Unusable { key: key.clone(), error });
    }

    // -- what happened --

    /// The stream to `server` is open.
    pub fn handle_connected(&mut self, server: ServerId, _now: Instant) {
        let asked = self.asked(server.0);
        let Some(stream) = self.streams.get_mut(server.0) else { return };
        if matches!(stream.phase, Phase::Connecting(_)) {
            stream.open(&asked);
            // All that is wanted is named in its first requests, which no response to it precedes.
            for (type_url, entries) in self.types.rows().iter().map(|row| &row.type_url).zip(&mut self.cache) {
                let asked = entries.iter_mut().filter(|(name, entry)| self.lists.asks(server.0, type_url, name, entry));
                asked.for_each(|(_, entry)| entry.is_again = false);
            }
            self.events.push_back(Event::Connected { server: stream.server.uri.clone() });
        }
    }

    /// The request that [`poll_request`](Self::poll_request) gave last is written: the timers of what it asks for start now
    /// (gRFC A57).
    pub fn handle_written(&mut self, server: ServerId, now: Instant) {
        let Some(stream) = self.streams.get_mut(server.0) else { return };
        let Some(kind) = stream.written() else { return };
        let transient = stream.server.features.resource_timer_is_transient_error;
        let timeout = if transient { self.settings.transient_resource_timeout } else { self.settings.resource_timeout };
        let at = now + timeout;
        if stream.silence.is_none() {
            stream.silence = Some(at);
            self.due.insert((at, Due::Silence(server.0)));
        }
        let type_url = &self.types.rows()[kind].type_url;
        for (name, entry) in &mut self.cache[kind] {
            let stands = stream.types[kind].names(name, entry.sequence);
            if !entry.is_unanswered() || !stands || !self.lists.asks(server.0, type_url, name, entry) {
                continue;
            }
            let key = ResourceKey::new(type_url.clone(), name.clone());
            if let btree_map::Entry::Vacant(timer) = stream.timers.entry(key) {
                entry.patience = None;
                self.due.insert((at, Due::Answer(server.0, timer.key().clone())));
                timer.insert(at);
                stream.owes_answer = true;
            }
        }
    }

    /// Time passed: does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, due)) = self.due.pop_first() else { break };
            match due {
                Due::Connect(server) => self.connection_is_slow(server, at, now),
                Due::Retry(server) => self.retry(server, at, now),
                Due::Answer(server, key) => self.answer_is_missing(server, &key, at, now),
                Due::Silence(server) => self.silence_is_consent(server, at),
                Due::Patience(key) => self.patience_is_over(&key, at),
                Due::Grace(key) => self.grace_is_over(&key, at),
                Due::Expiry(key) => self.expire(&key, at, now),
                Due::Left(key) => self.forget_left(&key, at),
                Due::Absent(server, key) => self.absence_is_believed(server, &key, at, now),
                Due::Idle(authority) => self.close_idle(authority, at),
            }
        }
    }

    /// A server that is told what is in use need not answer when that is what it has. It is reached all the same.
    fn silence_is_consent(&mut self, server: usize, at: Instant) {
        let stream = &mut self.streams[server];
        if stream.phase != Phase::Open || stream.answered || stream.silence != Some(at) {
            return;
        }
        let owes = std::mem::take(&mut stream.owes_answer);
        let next = at + self.settings.resource_timeout;
        stream.silence = Some(next);
        // What other servers give says nothing about this one.
        let must_say = |kind: usize, (name, entry): (&Name, &Entry)| {
            let is_its = self.asks(server, kind, name, entry) || planted(Mistake::SilenceUnheard);
            entry.held.is_some() && entry.claims(server).is_none() && is_its
        };
        let owes_more =
            self.cache.iter().enumerate().any(|(kind, entries)| entries.iter().any(|entry| must_say(kind, entry)));
        if owes || owes_more {
            self.due.insert((next, Due::Silence(server)));
        } else {
            self.server_answers(server);
        }
    }

    /// The server had time to answer the request that names the resource again, and did not.
    fn absence_is_believed(&mut self, server: usize, key: &ResourceKey, at: Instant, now: Instant) {
        let absent = &mut self.streams[server].absent;
        if absent.get(key) == Some(&at) {
            absent.remove(key);
            self.lose_late(key, Some(server), "it is absent, though it was wanted for long enough", now);
        }
    }

    fn answer_is_missing(&mut self, server: usize, key: &ResourceKey, at: Instant, now: Instant) {
        let stream = &mut self.streams[server];
        if stream.timers.get(key) != Some(&at) {
            return;
        }
        stream.timers.remove(key);
        let Some(kind) = self.types.index(&key.type_url) else { return };
        let transient = stream.server.features.resource_timer_is_transient_error;
        if self.is_overdue_memory(server, key, now) {
            return;
        }
        let Some(entry) = self.cache[kind].get(&key.name).filter(|entry| entry.is_open()) else { return };
        let is_asked = self.asks(server, kind, &key.name, entry) || planted(Mistake::TimerOfAnother);
        if !is_asked || self.asks_once_more(server, kind, &key.name) {
            return;
        }
        let Some(entry) = self.cache[kind].get_mut(&key.name) else { return };
        let stream = &self.streams[server];
        let waited = if transient { self.settings.transient_resource_timeout } else { self.settings.resource_timeout };
        // Only an answer that came after the question, and says all there is, says that this one is not there.
        let asked = at.checked_sub(waited);
        let answered =
            !stream.is_incremental() && asked.is_some_and(|asked| stream.types[kind].answered >= Some(asked));
        let uri = &stream.server.uri;
        let (code, what) = if answered && !transient {
            (Code::RESOURCE_NOT_FOUND, "sends others of its type but not this one")
        } else {
            (Code::RESOURCE_TIMEOUT, "said nothing about it in time")
        };
        let error = Error::new(code, format!("{key}: xDS server {uri} {what} [xDS node id: {}]", self.node_id));
        entry.enter(if transient { State::Timeout } else { State::DoesNotExist }, now);
        let trouble = Trouble { cause: Cause::Missing, reason: what.to_owned(), error, version: String::new() };
        self.told.extend(entry.trouble(key, trouble, false));
        self.events.push_back(Event::Missing { type_url: key.type_url.clone(), name: key.name.clone() });
    }

    /// A request that dropped a name is not heeded if a response crossed it. So a server may take the name, when it is asked for
    /// again, for one that it answered long ago: it is taken back and asked for anew, once. What is always told whole is in
    /// every response, if it is there.
    fn asks_once_more(&mut self, server: usize, kind: usize, name: &Name) -> bool {
        let state = &mut self.streams[server].types[kind];
        let is_kept = planted(Mistake::NeverAskedAnew);
        if self.types.rows()[kind].full_state || is_kept || !state.dropped.take(name) {
            return false;
        }
        state.take_back_if_asked(name);
        state.changed = true;
        self.sequence += 1;
        if let Some(entry) = self.cache[kind].get_mut(name) {
            entry.sequence = self.sequence;
        }
        true
    }

    pub(super) fn entry(&mut self, key: &ResourceKey) -> Option<&mut Entry> {
        let kind = self.types.index(&key.type_url)?;
        self.cache[kind].get_mut(&key.name)
    }

    // -- what follows --

    /// The next thing to say about a resource that is wanted.
    pub fn poll_resource(&mut self) -> Option<ResourceEvent> {
        self.told.pop_front()
    }

    /// The next fact worth observing.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next thing to do about a stream.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next request to write to `server`. There is none before [`handle_written`](Self::handle_written) was said of the
    /// one before.
    pub fn poll_request(&mut self, server: ServerId) -> Option<Bytes> {
        let (lists, types) = (&self.lists, &self.types);
        let asks = |kind: usize, name: &Name, entry: &Entry| {
            entry.is_named && lists.asks(server.0, &types.rows()[kind].type_url, name, entry)
        };
        self.streams.get_mut(server.0)?.next_request(server.0, types, &self.cache, asks, &self.node)
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    // -- questions --

    /// The gRPC method that the stream to `server` is opened with.
    pub fn method(&self, server: ServerId) -> &'static str {
        self.types.method(self.streams.get(server.0).map_or(Variant::StateOfTheWorld, Stream::variant))
    }

    /// The servers of all authorities, each once.
    pub fn servers(&self) -> impl Iterator<Item = (ServerId, &ServerConfig)> {
        self.streams.iter().enumerate().map(|(index, stream)| (ServerId(index), &*stream.server))
    }

    /// What is known of everything that is wanted, and of what a wildcard brought.
    pub fn resources(&self) -> impl Iterator<Item = ResourceStatus> + '_ {
        self.types.rows().iter().zip(&self.cache).flat_map(|(row, entries)| {
            let each = entries.iter().filter(|(name, _)| &***name != WILDCARD);
            each.map(|(name, entry)| entry.status(ResourceKey::new(row.type_url.clone(), name.clone())))
        })
    }

    /// The same, with who we are to the servers: the content of the client status service (gRFC A40).
    pub fn status(&self) -> ClientStatus {
        ClientStatus::new(self.node.encode_to_vec().into(), self.resources().collect())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("servers", &self.streams.iter().map(|stream| &stream.server.uri).collect::<Vec<_>>())
            .field("wanted", &self.cache.iter().map(BTreeMap::len).sum::<usize>())
            .finish_non_exhaustive()
    }
}
