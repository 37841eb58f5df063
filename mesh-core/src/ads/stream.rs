//! One stream to one server: what was said on it, and what is to be said next (`spec` sections 2.2, 2.3 and 2.12).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;

use super::backoff::Backoff;
use super::cache::Entry;
use super::message::{DeltaRequest, Request};
use super::types::{ResourceType, ResourceTypes, Variant};
use crate::bootstrap::ServerConfig;
use crate::model::Name;
use crate::planted::{Mistake, planted};
use crate::resource::{ResourceKey, WILDCARD};

/// So many responses may wait for their answer. Only a server that sends without reading makes more wait, and it does not
/// look at the answers.
const MOST_OWED: usize = 100;

/// So many names are remembered that a stream was asked for once: how many come and go is up to requests.
const MOST_DROPPED: usize = 10_000;

/// What is wanted, by the type's place in [`ResourceTypes`].
pub(super) type Cache = Vec<BTreeMap<Name, Entry>>;

/// What is wanted of one type from one server.
type Wanted<'a> = BTreeMap<&'a Name, &'a Entry>;

/// A server and the stream to it.
pub(super) struct Stream {
    pub(super) server: Arc<ServerConfig>,
    pub(super) phase: Phase,
    pub(super) types: Vec<TypeState>,
    /// Whether the server answered on this stream.
    pub(super) answered: bool,
    /// Why it cannot be reached, until it answers.
    pub(super) failing: Option<String>,
    pub(super) backoff: Backoff,
    /// The timers that run for resources that were asked for on this stream.
    pub(super) timers: BTreeMap<ResourceKey, Instant>,
    /// When it is believed of resources that they are gone because a complete response did not have them, where it might
    /// have been made before the request that names them was read.
    pub(super) absent: BTreeMap<ResourceKey, Instant>,
    /// When silence means that the server has nothing to say; None before the first request.
    pub(super) silence: Option<Instant>,
    /// Whether the server was asked for something, since silence was last looked at, that it owes an answer about.
    pub(super) owes_answer: bool,
    node_sent: bool,
    /// The request that is being written.
    writing: Option<Writing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not wanted.
    Idle,
    /// A connection is being made; given up at this time.
    Connecting(Instant),
    /// The stream is open.
    Open,
    /// It will be tried again at this time.
    Waiting(Instant),
}

/// What requests of a type name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// Whether they name anything.
    pub(super) any: bool,
    /// Whether something of it came from this server.
    pub(super) has_own: bool,
    /// Whether something of it came from another one.
    pub(super) has_foreign: bool,
}

struct Writing {
    kind: usize,
    /// Whether it asks for names that were not asked for before.
    asks: bool,
}

/// What was said about one type.
#[derive(Default)]
pub(super) struct TypeState {
    /// The last version that was taken; survives the stream. Of state of the world only: otherwise each resource has its
    /// own.
    version: String,
    /// Whether the last response was taken as a whole.
    is_whole: bool,
    /// The last nonce on this stream.
    nonce: String,
    /// When the last response of this type came on this stream, all of whose resources could be named.
    pub(super) answered: Option<Instant>,
    /// The responses that are not acknowledged yet.
    owed: VecDeque<Owed>,
    /// Whether the names may have changed since the last request.
    pub(super) changed: bool,
    /// The names of the last request on this stream, each with the count of its subscription; None before the first.
    asked: Option<BTreeMap<Name, u64>>,
    /// The count of subscriptions at the first request on this stream: no response precedes what that named.
    first: u64,
    /// The names that the next request leaves out, so that the one after asks for them anew: of a name that it takes for
    /// subscribed to, a server need not say anything more.
    pub(super) take_back: BTreeSet<Name>,
    /// The names that requests on this stream named once, and then did not. Of state of the world only.
    pub(super) dropped: Dropped,
    /// The names of the last request that one before did not have, though they were in use already. Of state of the world only.
    joined: BTreeSet<Name>,
}

/// Names that are asked for no more, as many as may be remembered.
#[derive(Default)]
pub(super) struct Dropped {
    names: BTreeSet<Name>,
    /// Whether there were more: then it may be any.
    is_full: bool,
}

impl Dropped {
    fn insert(&mut self, name: Name) {
        self.is_full |= self.names.len() >= MOST_DROPPED && !self.names.contains(&name);
        if !self.is_full {
            self.names.insert(name);
        }
    }

    /// Whether this name is certainly among them. From now on it is not.
    pub(super) fn take(&mut self, name: &str) -> bool {
        self.names.remove(name)
    }

    fn contains(&self, name: &str) -> bool {
        self.is_full || self.names.contains(name)
    }
}

/// A response that is to be acknowledged.
struct Owed {
    nonce: String,
    /// The NACK's text.
    error: Option<String>,
}

impl TypeState {
    /// What there is of it on a new stream: nothing.
    fn start_over(self) -> Self {
        Self {
            asked: self.asked.filter(|_| planted(Mistake::LostResubscription)),
            nonce: if planted(Mistake::OldNonce) { self.nonce } else { String::new() },
            ..Self::default()
        }
    }

    /// Whether a request for this type was made on this stream.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// A response came and is to be acknowledged, or refused with the text `error`; then the version in use stays.
    pub(super) fn owe(&mut self, version: &str, nonce: String, error: Option<String>) {
        self.is_whole = error.is_none();
        if self.is_whole || planted(Mistake::VersionAfterNack) {
            version.clone_into(&mut self.version);
        }
        self.nonce.clone_from(&nonce);
        if self.owed.len() == MOST_OWED {
            self.owed.pop_front();
        }
        self.owed.push_back(Owed { nonce, error });
    }

    /// Whether a complete response of `server`, whose stream this is, may have been made before the server knew that the
    /// resource is wanted: because it came from another server, was wanted before, or is in use but was not asked for here.
    pub(super) fn may_precede(&self, name: &Name, entry: &Entry, server: usize) -> bool {
        let is_foreign = entry.held.as_ref().is_some_and(|held| held.server != server);
        let is_joining = entry.is_named && !self.has_asked(name) && !self.has_asked(WILDCARD);
        entry.is_again || is_joining || self.joined.contains(name) || (is_foreign && entry.sequence > self.first)
    }

    /// Leaves the name out of the next request, if the last one has it.
    pub(super) fn take_back_if_asked(&mut self, name: &str) {
        if self.has_asked(name) {
            self.take_back.insert(name.into());
        }
    }

    /// Whether any request on this stream named it, for whatever subscription: a response to such a one may still come, however
    /// late.
    pub(super) fn ever_asked(&self, name: &str) -> bool {
        self.has_asked(name) || self.dropped.contains(name)
    }

    /// Whether the last request named it, for whatever subscription.
    pub(super) fn has_asked(&self, name: &str) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.contains_key(name))
    }

    /// Whether the last request named this subscription to `name`.
    pub(super) fn names(&self, name: &str, sequence: u64) -> bool {
        self.asked.as_ref().and_then(|asked| asked.get(name)) == Some(&sequence)
    }

    /// Whether the names that are wanted are not those of the last request.
    fn differs(&self, wanted: &Wanted<'_>) -> bool {
        match &self.asked {
            None => !wanted.is_empty(),
            Some(asked) => {
                asked.len() != wanted.len() || wanted.iter().any(|(name, entry)| !self.names(name, entry.sequence))
            }
        }
    }
}

impl Stream {
    pub(super) fn new(server: ServerConfig, types: usize, backoff: Backoff) -> Self {
        Self {
            server: Arc::new(server),
            phase: Phase::Idle,
            types: (0..types).map(|_| TypeState::default()).collect(),
            answered: false,
            failing: None,
            backoff,
            timers: BTreeMap::new(),
            absent: BTreeMap::new(),
            silence: None,
            owes_answer: false,
            node_sent: false,
            writing: None,
        }
    }

    /// A new stream is open: versions stay, all else starts over.
    pub(super) fn open(&mut self, asked: &[Asked]) {
        self.close(Phase::Open);
        for (state, asked) in self.types.iter_mut().zip(asked) {
            // A version is the one in use. Where what is in use is not this server's, or only a part of a response is, naming
            // one could keep the server from answering.
            let version = if state.is_whole && asked.has_own && !asked.has_foreign {
                std::mem::take(&mut state.version)
            } else {
                String::new()
            };
            let is_whole = !version.is_empty();
            let old = std::mem::take(state);
            *state = TypeState { version, changed: asked.any, is_whole, ..old.start_over() };
        }
    }

    /// The stream is gone, with its timers.
    pub(super) fn close(&mut self, phase: Phase) {
        self.phase = phase;
        self.answered = false;
        self.node_sent = false;
        self.silence = None;
        self.absent.clear();
        self.owes_answer = false;
        self.writing = None;
        if !planted(Mistake::TimerWithoutStream) {
            self.timers.clear();
        }
    }

    pub(super) fn is_incremental(&self) -> bool {
        self.variant() == Variant::Incremental
    }

    /// Which of the two protocols is spoken on it.
    pub(super) fn variant(&self) -> Variant {
        if self.server.features.delta_grpc { Variant::Incremental } else { Variant::StateOfTheWorld }
    }

    /// The next request to write. One at a time, so that what changes while one is written goes into a single next one.
    /// `server` is this stream's own place.
    pub(super) fn next_request(
        &mut self,
        server: usize,
        types: &ResourceTypes,
        cache: &Cache,
        asks: impl Fn(usize, &Name, &Entry) -> bool,
        node: &Node,
    ) -> Option<Bytes> {
        if self.phase != Phase::Open || self.writing.is_some() {
            return None;
        }
        // Without any subscription the stream is about to be closed, and saying so type by type is of no use.
        let wanted =
            |kind: usize| Wanted::from_iter(cache[kind].iter().filter(|(name, entry)| asks(kind, name, entry)));
        let any = (0..cache.len()).any(|kind| cache[kind].iter().any(|(name, entry)| asks(kind, name, entry)));
        let is_due = |(kind, state): (usize, &mut TypeState)| {
            state.changed = state.changed && (!any || state.differs(&wanted(kind)));
            (any && state.changed) || !state.owed.is_empty()
        };
        let kind = self.types.iter_mut().enumerate().position(is_due)?;
        let variant = self.variant();
        let (state, mut wanted) = (self.types.get_mut(kind)?, wanted(kind));
        let row = types.rows().get(kind)?;
        let node = (!std::mem::replace(&mut self.node_sent, true)).then(|| node.clone());
        self.writing = Some(Writing { kind, asks: state.changed });
        let is_taken_back = state.changed && !state.take_back.is_empty();
        wanted.retain(|name, _| !state.take_back.contains(*name));
        let request = match variant {
            Variant::StateOfTheWorld => state.ask_for_all(row, &wanted, node),
            Variant::Incremental => {
                let in_use = |(name, entry): (&Name, &Entry)| {
                    // What is not asked for by name is removed only from who says to have it, in whatever version.
                    let version = entry.claims(server).or((!entry.is_named).then_some(""))?;
                    Some((name.to_string(), version.to_owned()))
                };
                let has_all = wanted.contains_key(&Name::from(WILDCARD));
                let said = cache[kind].iter().filter(|(name, _)| has_all || wanted.contains_key(*name));
                state.ask_for_changes(row, &wanted, node, || said.filter_map(in_use).collect())
            }
        };
        if self.writing.as_ref().is_some_and(|writing| writing.asks) {
            state.take_back.clear();
            state.changed = is_taken_back;
            // Another server may be asked for it by now.
            if !planted(Mistake::TimerOfAnother) {
                self.timers.retain(|key, _| key.type_url != row.type_url || state.has_asked(&key.name));
            }
        }
        Some(request)
    }

    /// The request is written. Gives its type, if it asked for something new.
    pub(super) fn written(&mut self) -> Option<usize> {
        self.writing.take().filter(|writing| writing.asks).map(|writing| writing.kind)
    }
}

impl TypeState {
    /// A request with all names.
    fn ask_for_all(&mut self, row: &ResourceType, wanted: &Wanted<'_>, node: Option<Node>) -> Bytes {
        if std::mem::take(&mut self.changed) || self.asked.is_none() {
            if self.asked.is_none() {
                self.first = wanted.values().map(|entry| entry.sequence).max().unwrap_or(0);
            }
            self.joined = self.joining(wanted);
            let asked = wanted.iter().map(|(name, entry)| ((*name).clone(), entry.sequence)).collect();
            for (name, _) in self.asked.replace(asked).into_iter().flatten() {
                if !wanted.contains_key(&name) && !self.take_back.contains(&name) {
                    self.dropped.insert(name);
                }
            }
        }
        let owed = std::mem::take(&mut self.owed);
        let names = self.asked.iter().flat_map(BTreeMap::keys).filter(|name| row.subscription.is_said(name));
        let request = Request {
            type_url: &row.type_url,
            version: &self.version,
            nonce: &self.nonce,
            names: names.map(ToString::to_string).collect(),
            error: owed.into_iter().last().and_then(|last| last.error),
            node,
        };
        request.encode()
    }

    /// The names that this request has and one before had not, though the answer to that one may be taken to be about them:
    /// what a fallback is asked for comes and goes with those who fell back to it.
    fn joining(&self, wanted: &Wanted<'_>) -> BTreeSet<Name> {
        let Some(before) = self.asked.as_ref().filter(|before| !before.contains_key(WILDCARD)) else {
            return BTreeSet::new();
        };
        let joins = |name: &Name, entry: &Entry| {
            let may_be_held = entry.held.is_some() || self.dropped.contains(name);
            self.joined.contains(name) || (may_be_held && !before.contains_key(name))
        };
        wanted.iter().filter(|(name, entry)| joins(name, entry)).map(|(name, _)| (*name).clone()).collect()
    }

    /// A request with the names that are new, or wanted anew, and those that are wanted no more. The first of a stream says
    /// what is `in_use`.
    fn ask_for_changes(
        &mut self,
        row: &ResourceType,
        wanted: &Wanted<'_>,
        node: Option<Node>,
        in_use: impl FnOnce() -> HashMap<String, String>,
    ) -> Bytes {
        let mut request = DeltaRequest {
            type_url: &row.type_url,
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            initial_versions: HashMap::new(),
            answer: self.owed.pop_front().map(|owed| (owed.nonce, owed.error)),
            node,
        };
        if std::mem::take(&mut self.changed) {
            if self.asked.is_none() {
                request.initial_versions = in_use();
            }
            let asked = self.asked.get_or_insert_default();
            let gone: Vec<Name> = asked.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
            for name in gone {
                asked.remove(&name);
                if !planted(Mistake::UnsubscribeUnsaid) {
                    request.unsubscribe.push(name.to_string());
                }
            }
            for (name, entry) in wanted {
                let is_new = asked.insert((*name).clone(), entry.sequence) != Some(entry.sequence);
                if is_new && row.subscription.is_said(name) {
                    request.subscribe.push(name.to_string());
                }
            }
        }
        request.encode()
    }
}
