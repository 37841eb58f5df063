//! What is known of each resource that is wanted, and what of it the reader is told (`spec` sections 2.9 and 2.13).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::bootstrap::ServerConfig;
use crate::error::{Code, Error};
use crate::model::Name;
use crate::planted::{Mistake, planted};
use crate::resource::{ResourceEvent, ResourceKey, ResourceValue};
use crate::status::{ResourceStatus, State, UpdateFailure};

/// Why there is trouble with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// No server can be reached. It does not displace another trouble: that one says more.
    Connectivity,
    /// It was refused.
    Refused,
    /// It was deleted, emptied, or does not exist.
    Missing,
    /// The server reported an error.
    Reported,
}

/// What is wrong with a resource.
#[derive(Clone)]
pub(super) struct Trouble {
    pub(super) cause: Cause,
    /// What is wrong, without anything that changes while it stays wrong: the same reason is told once.
    pub(super) reason: String,
    pub(super) error: Error,
    /// The version of the response that made it.
    pub(super) version: String,
}

/// A value as it came.
pub(super) struct Held {
    pub(super) value: ResourceValue,
    pub(super) bytes: Bytes,
    pub(super) version: String,
    /// Which server it came from.
    pub(super) server: usize,
    /// The name it came under, if that is another: this one is an alias.
    pub(super) alias_of: Option<Name>,
    pub(super) origin: Arc<ServerConfig>,
}

impl Held {
    pub(super) fn tell(&self, key: &ResourceKey) -> ResourceEvent {
        ResourceEvent::Changed {
            key: key.clone(),
            value: self.value.clone(),
            version: self.version.clone(),
            server: Some(self.origin.clone()),
        }
    }
}

/// A resource that is wanted.
pub(super) struct Entry {
    /// The place of its authority in the client's list of them.
    pub(super) authority: usize,
    /// The targets that use it, as far as anyone said so.
    pub(super) users: BTreeSet<Name>,
    pub(super) state: State,
    pub(super) held: Option<Held>,
    /// When what is held came.
    updated: Option<Instant>,
    /// What was refused, as it came.
    pub(super) refused: Option<Bytes>,
    /// The trouble the reader knows of.
    pub(super) trouble: Option<Trouble>,
    /// When it was wanted, as a count of subscriptions: a request that was made before does not name it.
    pub(super) sequence: u64,
    /// When the state last changed.
    pub(super) since: Instant,
    /// The empty set that is in the place of the one that is used on in its grace, and when it came.
    pub(super) emptied: Option<(Held, Instant)>,
    /// When a value that was deleted or emptied stops being used.
    pub(super) grace: Option<Instant>,
    /// When it is overdue that any server is asked for it.
    pub(super) patience: Option<Instant>,
    /// When the value is to be used no more unless the server says a word about it.
    pub(super) expiry: Option<Instant>,
    /// Whether it is wanted by its name; otherwise a wildcard brought it.
    pub(super) is_named: bool,
    /// Whether it was wanted before on this stream, then not, and now again. If a complete response does not have it, that
    /// may be about the time between.
    pub(super) is_again: bool,
}

/// A resource that was wanted a short time ago. Until the server knows that it is not wanted any more it goes on sending it,
/// and it would not send it again if it were wanted again before that.
pub(super) struct Left {
    pub(super) entry: Entry,
    pub(super) until: Instant,
    /// The servers whose complete responses it was absent from, since they last said a word about it. Some may not have it to
    /// give.
    pub(super) absent: BTreeSet<usize>,
}

impl Entry {
    pub(super) fn new(authority: usize, sequence: u64, now: Instant, patience: Instant) -> Self {
        Self {
            authority,
            users: BTreeSet::new(),
            state: State::Requested,
            held: None,
            updated: None,
            refused: None,
            trouble: None,
            sequence,
            since: now,
            emptied: None,
            grace: None,
            patience: Some(patience),
            expiry: None,
            is_named: true,
            is_again: false,
        }
    }

    /// Wanted again soon after it was not: what was said of it holds still. That it does not exist is to be said again.
    pub(super) fn resume(self, left: Self) -> Self {
        let trouble = left.trouble.filter(|trouble| trouble.cause != Cause::Connectivity);
        // An emptied set is there: it is empty.
        let is_missing =
            |trouble: &Trouble| trouble.cause == Cause::Missing && trouble.error.code() != Code::NO_ENDPOINTS;
        let is_gone = trouble.as_ref().is_some_and(is_missing) || left.expiry.is_some();
        if is_gone || left.state == State::Requested {
            return Self { is_again: true, ..self };
        }
        let Self { authority, users, sequence, .. } = self;
        Self { authority, users, sequence, trouble, is_again: true, patience: None, ..left }
    }

    /// Whether what is held of it is what the server has, as far as anyone said.
    fn is_well(&self) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| trouble.cause == Cause::Connectivity)
    }

    /// Whether nothing at all is known of it.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Requested && self.held.is_none()
    }

    /// Takes a value. One that is byte for byte the one held tells nothing, unless a trouble ends with it, or it comes from
    /// another server, which is where a cluster's load is reported to from then on (gRFC A47).
    pub(super) fn accept(&mut self, key: &ResourceKey, held: Held, now: Instant) -> Option<ResourceEvent> {
        self.emptied = None;
        self.enter(State::Acked, now);
        self.updated = Some(now);
        let trouble = self.trouble.take();
        let same = self.held.as_ref().is_some_and(|old| old.bytes == held.bytes);
        if same && let Some(old) = &mut self.held {
            let is_moved = old.origin != held.origin;
            *old = Held { value: old.value.clone(), ..held };
            if !is_moved {
                return trouble.map(|_| ResourceEvent::Ambient { key: key.clone(), error: None, lapsing: false });
            }
            return Some(old.tell(key));
        }
        Some(self.held.insert(held).tell(key))
    }

    /// The server says that the value in use is there, without sending it.
    pub(super) fn is_there(&mut self, key: &ResourceKey, now: Instant) -> Option<ResourceEvent> {
        if self.emptied.is_some() {
            return None;
        }
        let told = self.held.as_ref().and(self.trouble.as_ref()).filter(|trouble| trouble.cause == Cause::Missing);
        told?;
        self.enter(State::Acked, now);
        self.relieve(key, Cause::Missing)
    }

    /// Takes an empty set in the place of one that held something, which is used on until `grace`. A set that stays empty
    /// is not told again, and does not live longer.
    pub(super) fn empty(
        &mut self,
        key: &ResourceKey,
        held: Held,
        trouble: Trouble,
        grace: Option<Instant>,
        now: Instant,
    ) -> Option<ResourceEvent> {
        let until = if self.is_withdrawn() && !planted(Mistake::GraceRenewed) { self.grace } else { grace };
        self.emptied = Some((held, now));
        self.enter(State::Acked, now);
        self.grace = until;
        self.trouble(key, trouble, true)
    }

    /// The grace of an emptied set is over: the empty one is the value.
    pub(super) fn end_grace(&mut self, key: &ResourceKey) -> Vec<ResourceEvent> {
        let Some((held, came)) = self.emptied.take() else { return Vec::new() };
        self.held = Some(held);
        self.updated = Some(came);
        self.grace = None;
        // Why it is empty stays told beside it.
        self.retell(key)
    }

    /// Whether it was deleted or emptied, and is used on.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.held.is_some() && (self.emptied.is_some() || self.is_deleted())
    }

    fn is_deleted(&self) -> bool {
        matches!(self.state, State::DoesNotExist | State::ReceivedError)
            && self.trouble.as_ref().is_some_and(|trouble| trouble.cause == Cause::Missing)
    }

    /// Takes note of a trouble. `keep`: a value that is held is used on. The same trouble is not told twice.
    pub(super) fn trouble(&mut self, key: &ResourceKey, trouble: Trouble, keep: bool) -> Option<ResourceEvent> {
        let dropped = if keep { None } else { self.drop_value() };
        let known = self.trouble.as_ref();
        if trouble.cause == Cause::Connectivity && known.is_some_and(|known| known.cause != trouble.cause) {
            return None;
        }
        // While a value is in use, it is of no interest in how many ways the servers cannot be reached.
        let bears_it = trouble.cause == Cause::Connectivity && self.held.is_some();
        let same =
            known.is_some_and(|known| known.cause == trouble.cause && (bears_it || known.reason == trouble.reason));
        let error = trouble.error.clone();
        self.trouble = Some(trouble);
        if same && dropped.is_none() {
            return None;
        }
        Some(self.tell(key, error))
    }

    /// The version that a server may be told is in use: then it need not send this value again. What there is trouble with
    /// is not claimed, so that the server says how it stands.
    pub(super) fn claims(&self, server: usize) -> Option<&str> {
        let well = self.is_well() || planted(Mistake::ClaimedInTrouble);
        let held = self.held.as_ref().filter(|held| well && held.server == server && held.alias_of.is_none());
        held.map(|held| held.version.as_str())
    }

    /// The trouble is over if this was its cause.
    pub(super) fn relieve(&mut self, key: &ResourceKey, cause: Cause) -> Option<ResourceEvent> {
        self.trouble.take_if(|known| known.cause == cause)?;
        // Without a value there is nothing to go back to; the next one will be told.
        self.held.as_ref().map(|_| ResourceEvent::Ambient { key: key.clone(), error: None, lapsing: false })
    }

    fn drop_value(&mut self) -> Option<Held> {
        self.emptied = None;
        self.grace = None;
        self.held.take()
    }

    fn tell(&self, key: &ResourceKey, error: Error) -> ResourceEvent {
        match self.held {
            Some(_) => ResourceEvent::Ambient { key: key.clone(), error: Some(error), lapsing: self.is_withdrawn() },
            None => ResourceEvent::Unusable { key: key.clone(), error },
        }
    }

    /// Everything that is known, for someone who asks again: the value first, then its trouble.
    pub(super) fn retell(&self, key: &ResourceKey) -> Vec<ResourceEvent> {
        let value = self.held.as_ref().map(|held| held.tell(key));
        let trouble = self.trouble.as_ref().map(|trouble| self.tell(key, trouble.error.clone()));
        value.into_iter().chain(trouble).collect()
    }

    pub(super) fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.refused = None;
        self.patience = None;
        // What is empty stays so, whatever else is said about it.
        if self.emptied.is_none() {
            self.grace = None;
        }
    }

    /// All of it, for someone who looks on.
    pub(super) fn status(&self, key: ResourceKey) -> ResourceStatus {
        let failure =
            |trouble: &Trouble| UpdateFailure::new(trouble.error.clone(), &*trouble.version, self.refused.clone());
        ResourceStatus {
            key,
            state: self.state,
            version: self.held.as_ref().map(|held| held.version.clone()),
            bytes: self.held.as_ref().map(|held| held.bytes.clone()),
            updated: self.held.as_ref().and(self.updated),
            since: self.since,
            withdrawn: self.is_withdrawn(),
            failure: self.trouble.as_ref().map(failure),
        }
    }
}
