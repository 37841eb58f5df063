//! The answering side of xDS, in both protocols, as a value: a request in, responses out.
//!
//! A [`ResourceSet`] is a complete, immutable set of encoded resources. A [`Responder`] is one stream over it. The memory
//! and file sources answer our own engine with it, and the local control plane answers anyone.

mod set;
mod state_of_the_world;
mod incremental;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::ads::{AGGREGATED_RESOURCES, DELTA_AGGREGATED_RESOURCES, DELTA_SECRETS, STREAM_SECRETS, Variant};
use crate::model::Name;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey, TYPE_URL_PREFIX};

pub use set::{EncodedResource, ResourceSet};

/// The order in which a change is pushed, so that a client that applies each response at once never sees a name before the
/// thing it names. Other types follow.
const PUSH_ORDER: [&str; 4] = [CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION];

/// The types whose removals come last: what is removed may be in use until a response after theirs is applied.
const REMOVED_LAST: [&str; 2] = [CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

/// A response that the client refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The type, without `type.googleapis.com/`.
    pub type_url: Name,
    /// What the client says about it.
    pub message: String,
}

/// One stream's answering side.
///
/// It keeps to the protocol. A name that is newly subscribed is always answered, even if it was sent before; `*`, and an
/// empty first request, subscribe to all Listeners or Clusters.
///
/// - In state of the world, a request with an old nonce is stale and not answered. Listener and Cluster responses are
///   complete, the others hold what is new. Subscribed names that do not exist are told through `resource_errors`, so that a
///   client that understands them need not wait for its timer.
/// - In incremental xDS, a response holds what is new to the client, which says at first what it has. Subscribed names that do
///   not exist are told through `removed_resources`.
#[derive(Debug)]
pub struct Responder {
    common: Common,
    side: Side,
}

/// What is the same in both protocols.
#[derive(Debug)]
struct Common {
    set: Arc<ResourceSet>,
    nonces: u64,
    rejections: Vec<Rejection>,
    tells_missing: bool,
}

#[derive(Debug)]
enum Side {
    StateOfTheWorld(state_of_the_world::Stream),
    Incremental(incremental::Stream),
}

impl Responder {
    /// A stream of state of the world over `set`.
    pub fn new(set: Arc<ResourceSet>) -> Self {
        Self::of(Variant::StateOfTheWorld, set)
    }

    /// A stream of this protocol over `set`.
    pub fn of(variant: Variant, set: Arc<ResourceSet>) -> Self {
        let side = match variant {
            Variant::StateOfTheWorld => Side::StateOfTheWorld(state_of_the_world::Stream::default()),
            Variant::Incremental => Side::Incremental(incremental::Stream::default()),
        };
        Self { common: Common { set, nonces: 0, rejections: Vec::new(), tells_missing: true }, side }
    }

    /// The protocol that is spoken over the gRPC method `path`; None if it is neither a method of ADS nor of SDS.
    pub fn variant(path: &str) -> Option<Variant> {
        match path {
            AGGREGATED_RESOURCES | STREAM_SECRETS => Some(Variant::StateOfTheWorld),
            DELTA_AGGREGATED_RESOURCES | DELTA_SECRETS => Some(Variant::Incremental),
            _ => None,
        }
    }

    /// Says nothing about names that do not exist, as servers did before `resource_errors` and many do still. What existed
    /// and is gone is told as ever.
    #[must_use]
    pub fn without_resource_errors(mut self) -> Self {
        self.common.tells_missing = false;
        self
    }

    /// Takes an encoded `DiscoveryRequest`, or `DeltaDiscoveryRequest`, and gives the encoded responses to send, in order.
    /// What cannot be decoded is ignored.
    pub fn handle_request(&mut self, request: &[u8]) -> Vec<Bytes> {
        let response = match &mut self.side {
            Side::StateOfTheWorld(stream) => stream.handle_request(&mut self.common, request),
            Side::Incremental(stream) => stream.handle_request(&mut self.common, request),
        };
        response.into_iter().collect()
    }

    /// Puts `set` in the place of the last one and gives the responses to send: those of types in which something changed
    /// that this stream is subscribed to.
    ///
    /// They are in the order in which a client that applies each at once loses nothing: clusters before the routes that name
    /// them, and clusters that are gone after the routes that named them.
    pub fn set_resources(&mut self, set: Arc<ResourceSet>) -> Vec<Bytes> {
        let old = std::mem::replace(&mut self.common.set, set);
        let mut changes: Vec<(Name, BTreeSet<Name>)> = match &self.side {
            Side::StateOfTheWorld(stream) => self.common.changes(stream.interests(), &old),
            Side::Incremental(stream) => self.common.changes(stream.interests(), &old),
        };
        changes.sort_by_key(|(t, _)| PUSH_ORDER.iter().position(|p| **p == **t).unwrap_or(PUSH_ORDER.len()));
        match &mut self.side {
            Side::StateOfTheWorld(stream) => stream.push(&mut self.common, changes, &old),
            Side::Incremental(stream) => stream.push(&mut self.common, changes),
        }
    }

    /// What the client refused since the last call.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.common.rejections)
    }

    /// The types and names that the client is subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = ResourceKey> {
        let interests: Vec<(&Name, &Interest)> = match &self.side {
            Side::StateOfTheWorld(stream) => stream.interests().collect(),
            Side::Incremental(stream) => stream.interests().collect(),
        };
        interests.into_iter().flat_map(|(type_url, interest)| {
            interest.names.iter().map(|name| ResourceKey::new(type_url.clone(), name.clone()))
        })
    }
}

impl Common {
    fn next_nonce(&mut self) -> String {
        self.nonces += 1;
        self.nonces.to_string()
    }

    fn reject(&mut self, type_url: &Name, message: String) {
        self.rejections.push(Rejection { type_url: type_url.clone(), message });
    }

    /// The names of each type whose resource differs from the one in `old` and that someone is subscribed to.
    fn changes<'a>(
        &self,
        interests: impl Iterator<Item = (&'a Name, &'a Interest)>,
        old: &ResourceSet,
    ) -> Vec<(Name, BTreeSet<Name>)> {
        let differs = |(type_url, _): &(&Name, &Interest)| old.version(type_url) != self.set.version(type_url);
        let changed = |(type_url, interest): (&Name, &Interest)| {
            let names = interest.changed(type_url, old, &self.set);
            (!names.is_empty()).then(|| (type_url.clone(), names))
        };
        interests.filter(differs).filter_map(changed).collect()
    }
}

/// What a client is subscribed to of one type.
#[derive(Debug, Default)]
struct Interest {
    names: BTreeSet<Name>,
    wildcard: bool,
}

impl Interest {
    /// Every name it stands for now.
    fn all(&self, type_url: &str, set: &ResourceSet) -> BTreeSet<Name> {
        let mut names = self.names.clone();
        if self.wildcard {
            names.extend(set.names(type_url).cloned());
        }
        names
    }

    /// The names it stands for whose resource differs between the sets.
    fn changed(&self, type_url: &str, old: &ResourceSet, new: &ResourceSet) -> BTreeSet<Name> {
        let mut names = self.all(type_url, old);
        names.append(&mut self.all(type_url, new));
        names.retain(|name| old.get(type_url, name) != new.get(type_url, name));
        names
    }
}

/// Whether a response of this type is the complete state, so that absence means deletion.
fn is_full_state(type_url: &str) -> bool {
    type_url == LISTENER || type_url == CLUSTER
}

/// A type URL as it is on the wire, without its prefix.
fn bare(type_url: &str) -> Name {
    type_url.strip_prefix(TYPE_URL_PREFIX).unwrap_or(type_url).into()
}
