//! The resources on anyone's walk, and what is known of each.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Want;
use super::target::TargetId;
use crate::bootstrap::ServerConfig;
use crate::error::{Code, Error};
use crate::planted::{Mistake, planted};
use crate::resource::{ResourceEvent, ResourceKey, ResourceValue};

/// What is known of a resource.
#[derive(Default)]
pub(super) struct Node {
    state: State,
    /// Trouble that does not keep the value from being used.
    ambient: Option<Error>,
    /// Whether the value is used on for a grace period only.
    lapsing: bool,
    users: BTreeSet<TargetId>,
}

#[derive(Default)]
enum State {
    /// Nothing was said yet.
    #[default]
    Requested,
    Value(ResourceValue, Option<Arc<ServerConfig>>),
    Unusable(Error),
}

/// What a walk finds at a resource.
pub(super) enum Found<T> {
    /// It must be waited for.
    Pending,
    /// Its value, trouble that does not keep it from being used, and whether it is used on for a grace period only.
    Value(Arc<T>, Option<Error>, bool),
    /// There is none.
    Error(Error),
}

/// What a walk asks for, and what it takes for an answer.
///
/// That no server can be reached says nothing about a resource. It is an answer for who has nothing; whoever has a
/// configuration in force waits for a better one, so that an outage in the middle of an update leaves the old one whole.
pub(super) struct Inquiry<'a> {
    pub(super) nodes: &'a Nodes,
    /// What may be missing for want of a control plane; None: anything.
    excused: Option<&'a BTreeSet<ResourceKey>>,
    /// What was asked for.
    pub(super) needs: BTreeSet<ResourceKey>,
    /// What of it is missing for want of a control plane.
    pub(super) unreached: BTreeSet<ResourceKey>,
}

impl<'a> Inquiry<'a> {
    pub(super) fn new(nodes: &'a Nodes, excused: Option<&'a BTreeSet<ResourceKey>>) -> Self {
        Self { nodes, excused, needs: BTreeSet::new(), unreached: BTreeSet::new() }
    }

    /// Asks for `key`.
    pub(super) fn find<T: Any + Send + Sync>(&mut self, key: &ResourceKey) -> Found<T> {
        self.needs.insert(key.clone());
        match self.nodes.find(key) {
            Found::Error(error) if error.code() == Code::NO_CONTROL_PLANE => {
                let waits = self.excused.is_some_and(|excused| !excused.contains(key));
                if waits && !planted(Mistake::OutageIsAnswer) {
                    return Found::Pending;
                }
                self.unreached.insert(key.clone());
                Found::Error(error)
            }
            found => found,
        }
    }

    /// Asks for someone who has nothing.
    pub(super) fn taking_any_answer(&mut self, ask: impl FnOnce(&mut Self)) {
        let excused = self.excused.take();
        ask(self);
        self.excused = excused;
    }
}

/// All resources.
#[derive(Default)]
pub(super) struct Nodes {
    known: HashMap<ResourceKey, Node>,
    /// Claimed for the first time, to be subscribed to.
    new: BTreeSet<ResourceKey>,
    /// Released by their last user, to be unsubscribed from unless somebody claims them again.
    unused: BTreeSet<ResourceKey>,
    /// Who came and went since it was last asked, in order.
    uses: Vec<Want>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let states: BTreeMap<String, &str> = self
            .known
            .iter()
            .map(|(key, node)| {
                let state = match node.state {
                    State::Requested => "requested",
                    State::Value(..) => "value",
                    State::Unusable(_) => "unusable",
                };
                (key.to_string(), state)
            })
            .collect();
        f.debug_map().entries(states).finish()
    }
}

impl Nodes {
    /// Takes what a source says; false if nobody asked, or nothing changed.
    pub(super) fn take(&mut self, event: ResourceEvent) -> bool {
        let Some(node) = self.known.get_mut(event.key()) else { return false };
        match event {
            ResourceEvent::Changed { value, server, .. } => {
                node.state = State::Value(value, server);
                node.ambient = None;
                node.lapsing = false;
            }
            ResourceEvent::Ambient { error, lapsing, .. } => {
                node.ambient = error;
                node.lapsing = lapsing;
            }
            ResourceEvent::Unusable { error, .. } => {
                node.state = State::Unusable(error);
                node.ambient = None;
                node.lapsing = false;
            }
        }
        true
    }

    /// What is known of `key`. A value of another type than asked for is an error, not a panic: types come from a table.
    pub(super) fn find<T: Any + Send + Sync>(&self, key: &ResourceKey) -> Found<T> {
        match self.known.get(key) {
            None => Found::Pending,
            Some(Node { state: State::Requested, .. }) => Found::Pending,
            Some(Node { state: State::Unusable(error), .. }) => Found::Error(error.clone()),
            Some(Node { state: State::Value(value, _), ambient, lapsing, .. }) => match value.clone().downcast::<T>() {
                Ok(value) => Found::Value(value, ambient.clone(), *lapsing),
                Err(_) => Found::Error(Error::new(
                    Code::INTERNAL,
                    format!("{key} was decoded into another type than its own"),
                )),
            },
        }
    }

    /// The server that the value of `key` came from.
    pub(super) fn server_of(&self, key: &ResourceKey) -> Option<Arc<ServerConfig>> {
        match self.known.get(key) {
            Some(Node { state: State::Value(_, server), .. }) => server.clone(),
            _ => None,
        }
    }

    pub(super) fn users(&self, key: &ResourceKey) -> impl Iterator<Item = &TargetId> {
        self.known.get(key).into_iter().flat_map(|node| node.users.iter())
    }

    pub(super) fn claim(&mut self, key: &ResourceKey, user: &TargetId) {
        self.unused.remove(key);
        let node = self.known.entry(key.clone()).or_insert_with(|| {
            self.new.insert(key.clone());
            Node::default()
        });
        if node.users.insert(user.clone()) {
            self.uses.push(Want::Claim(key.clone(), user.user()));
        }
    }

    pub(super) fn release(&mut self, key: &ResourceKey, user: &TargetId) {
        if let Some(node) = self.known.get_mut(key) {
            if node.users.remove(user) {
                self.uses.push(Want::Release(key.clone(), user.user()));
            }
            if node.users.is_empty() {
                self.unused.insert(key.clone());
            }
        }
    }

    /// Who uses what, as it changed.
    pub(super) fn take_uses(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.uses)
    }

    /// What is to be subscribed to.
    pub(super) fn take_new(&mut self) -> Vec<ResourceKey> {
        // What was claimed and released again before anyone was told needs no subscription.
        std::mem::take(&mut self.new).into_iter().filter(|key| self.known.contains_key(key)).collect()
    }

    /// What is to be unsubscribed from: nobody uses it, and it is not `kept`.
    pub(super) fn take_unused(&mut self, kept: &BTreeSet<ResourceKey>) -> Vec<ResourceKey> {
        let gone: Vec<ResourceKey> = self.unused.iter().filter(|key| !kept.contains(*key)).cloned().collect();
        for key in &gone {
            self.unused.remove(key);
            self.known.remove(key);
        }
        // A key that was never subscribed to is not unsubscribed from either.
        gone.into_iter().filter(|key| !self.new.remove(key)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
