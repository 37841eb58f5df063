//! One stream to one server: what was said on it, and what is to be said next (`spec` sections 2.2 and 2.3).

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;

use super::backoff::Backoff;
use super::cache::Entry;
use super::message::Request;
use super::types::ResourceTypes;
use crate::bootstrap::ServerConfig;
use crate::model::Name;
use crate::resource::ResourceKey;

/// What is wanted, by the type's place in [`ResourceTypes`].
pub(super) type Cache = Vec<BTreeMap<Name, Entry>>;

/// A server and the stream to it.
pub(super) struct Stream {
    pub(super) server: ServerConfig,
    pub(super) phase: Phase,
    pub(super) types: Vec<TypeState>,
    /// Whether the server answered on this stream.
    pub(super) answered: bool,
    /// Why it cannot be reached, until it answers.
    pub(super) failing: Option<String>,
    pub(super) backoff: Backoff,
    /// The timers that run for resources that were asked for on this stream.
    pub(super) timers: BTreeMap<ResourceKey, Instant>,
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

struct Writing {
    kind: usize,
    sequence: u64,
}

/// What was said about one type.
#[derive(Default)]
pub(super) struct TypeState {
    /// The last version that was taken; survives the stream.
    pub(super) version: String,
    /// The last nonce on this stream.
    pub(super) nonce: String,
    /// Whether a response of this type came on this stream.
    pub(super) answered: bool,
    /// A response that is not acknowledged yet; inside, the NACK's text.
    pub(super) owed: Option<Option<String>>,
    /// Whether the names changed since the last request.
    pub(super) changed: bool,
    /// Whether a request was made on this stream.
    asked: bool,
}

impl Stream {
    pub(super) fn new(server: ServerConfig, types: usize, backoff: Backoff) -> Self {
        Self {
            server,
            phase: Phase::Idle,
            types: (0..types).map(|_| TypeState::default()).collect(),
            answered: false,
            failing: None,
            backoff,
            timers: BTreeMap::new(),
            node_sent: false,
            writing: None,
        }
    }

    /// A new stream is open: versions stay, all else starts over.
    pub(super) fn open(&mut self, cache: &Cache) {
        self.close(Phase::Open);
        for (state, wanted) in self.types.iter_mut().zip(cache) {
            // A version is the one in use. Where nothing is in use, naming an old one could keep the server from answering.
            let version = if wanted.values().any(|entry| entry.held.is_some()) {
                std::mem::take(&mut state.version)
            } else {
                String::new()
            };
            *state = TypeState { version, changed: !wanted.is_empty(), ..TypeState::default() };
        }
    }

    /// The stream is gone, with its timers.
    pub(super) fn close(&mut self, phase: Phase) {
        self.phase = phase;
        self.answered = false;
        self.node_sent = false;
        self.writing = None;
        self.timers.clear();
    }

    /// The next request to write. One at a time, so that what changes while one is written goes into a single next one.
    pub(super) fn next_request(
        &mut self,
        types: &ResourceTypes,
        cache: &Cache,
        node: &Node,
        sequence: u64,
    ) -> Option<Bytes> {
        if self.phase != Phase::Open || self.writing.is_some() {
            return None;
        }
        // Without any subscription the stream is about to be closed, and saying so type by type is of no use.
        let wanted = cache.iter().any(|names| !names.is_empty());
        let due = |(state, names): (&TypeState, &BTreeMap<Name, Entry>)| {
            state.owed.is_some() || (wanted && state.changed && (state.asked || !names.is_empty()))
        };
        let kind = self.types.iter().zip(cache).position(due)?;
        let state = self.types.get_mut(kind)?;
        state.changed = false;
        state.asked = true;
        let request = Request {
            type_url: &types.rows().get(kind)?.type_url,
            version: &state.version,
            nonce: &state.nonce,
            names: cache.get(kind)?.keys().map(ToString::to_string).collect(),
            error: state.owed.take().flatten(),
            node: (!self.node_sent).then(|| node.clone()),
        };
        let bytes = request.encode();
        self.node_sent = true;
        self.writing = Some(Writing { kind, sequence });
        Some(bytes)
    }

    /// The request is written. Gives its type, and the count of subscriptions it was made at.
    pub(super) fn written(&mut self) -> Option<(usize, u64)> {
        self.writing.take().map(|writing| (writing.kind, writing.sequence))
    }
}
