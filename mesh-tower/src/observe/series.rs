//! The attribute sets of the metrics, each built once and bounded in number, so that recording allocates nothing.
//!
//! Methods and hosts come from strangers: beyond the bound everything is counted together as `_OTHER`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use opentelemetry::KeyValue;

use super::names::{self, LONGEST, OTHER, Outcome, Prefix, Side};

/// Operations, and attribute sets of operations, kept of one mesh. Half of what an SDK takes of an instrument by default, so
/// that what is too much is counted under our `_OTHER`, with its status, and not in the SDK's overflow, without.
const MOST: usize = 1000;

/// Attribute sets kept of one `_OTHER`; beyond them, ends are not told apart.
const MOST_OTHER: usize = 64;

/// What is done to whom: everything a series is told apart by before its end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub(super) side: Side,
    pub(super) grpc: bool,
    /// `rpc.method` or `http.request.method`.
    pub(super) method: &'a str,
    /// Who is called; for servers, the scheme.
    pub(super) target: &'a str,
}

/// An operation that is known, with an attribute set for each way it has ended.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) side: Side,
    pub(super) grpc: bool,
    method: Box<str>,
    target: Box<str>,
    span_name: Option<Cow<'static, str>>,
    ends: ArcSwap<Vec<(Outcome, Arc<[KeyValue]>)>>,
    /// Without an end.
    base: Arc<[KeyValue]>,
}

impl Operation {
    fn new(key: &Key<'_>) -> Self {
        Self {
            side: key.side,
            grpc: key.grpc,
            method: key.method.into(),
            target: key.target.into(),
            span_name: (key.grpc && key.method != OTHER).then(|| names::intern(span_name(key))),
            ends: ArcSwap::default(),
            base: base(key).into(),
        }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        let own = Key { side: self.side, grpc: self.grpc, method: &self.method, target: &self.target };
        own == *key
    }

    /// A gRPC span's name; None for HTTP, and for what is beyond the bound.
    pub(super) fn span_name(&self) -> Option<Cow<'static, str>> {
        self.span_name.clone()
    }

    /// Adds the attribute set of `end` if `room` allows; false if it is not there then.
    fn learn(&self, end: Outcome, room: &AtomicUsize) -> bool {
        let take = |left: usize| left.checked_sub(1);
        if room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return false;
        }
        let mut set = self.base.to_vec();
        set.extend(end.attributes(self.side, self.grpc));
        let set: Arc<[KeyValue]> = set.into();
        let before = self.ends.rcu(|ends| {
            let mut ends = Vec::clone(ends);
            if !ends.iter().any(|(known, _)| *known == end) {
                ends.push((end, Arc::clone(&set)));
            }
            ends
        });
        if before.iter().any(|(known, _)| *known == end) {
            room.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Calls `record` with the attribute set of `end`, if it is there or can be.
    fn with_end(&self, end: Outcome, room: &AtomicUsize, record: &mut dyn FnMut(&[KeyValue])) -> bool {
        for _ in 0..2 {
            if let Some((_, set)) = self.ends.load().iter().find(|(known, _)| *known == end) {
                record(set);
                return true;
            }
            if !self.learn(end, room) {
                return false;
            }
        }
        false
    }
}

fn span_name(key: &Key<'_>) -> String {
    names::rpc_span(if key.side == Side::Client { Prefix::Sent } else { Prefix::Recv }, key.method)
}

fn base(key: &Key<'_>) -> Vec<KeyValue> {
    let method = if key.grpc { "rpc.method" } else { "http.request.method" };
    let mut base = vec![KeyValue::new(method, key.method.to_owned())];
    if key.grpc {
        base.push(KeyValue::new("rpc.system.name", "grpc"));
    }
    match key.side {
        Side::Client => base.extend(names::server(key.target)),
        Side::Server if key.grpc => {}
        Side::Server => base.push(KeyValue::new("url.scheme", key.target.to_owned())),
    }
    base
}

/// Every operation of one mesh.
#[derive(Debug)]
pub(super) struct Operations {
    /// By the hash of their keys, so that looking one up needs no owned key.
    known: ArcSwap<HashMap<u64, Arc<Operation>>>,
    hasher: RandomState,
    room: AtomicUsize,
    /// What is beyond the bound: client and server, HTTP and gRPC.
    others: [Other; 4],
}

#[derive(Debug)]
struct Other {
    operation: Arc<Operation>,
    room: AtomicUsize,
}

impl Operations {
    pub(super) fn new() -> Self {
        let other = |side, grpc| Other {
            operation: Arc::new(Operation::new(&Key { side, grpc, method: OTHER, target: OTHER })),
            room: AtomicUsize::new(MOST_OTHER),
        };
        Self {
            known: ArcSwap::default(),
            hasher: RandomState::new(),
            room: AtomicUsize::new(MOST),
            others: [
                other(Side::Client, false),
                other(Side::Client, true),
                other(Side::Server, false),
                other(Side::Server, true),
            ],
        }
    }

    /// The operation of `key`, or the `_OTHER` of its kind.
    pub(super) fn find(&self, key: &Key<'_>) -> Arc<Operation> {
        let hash = self.hasher.hash_one(key);
        let known = self.known.load();
        match known.get(&hash) {
            Some(operation) if operation.is(key) => Arc::clone(operation),
            // Two keys of one hash are rarer than a memory error; the second goes without a name.
            Some(_) => Arc::clone(&self.other(key.side, key.grpc).operation),
            None if known.len() < MOST && key.target.len() <= LONGEST => self.add(hash, key),
            None => Arc::clone(&self.other(key.side, key.grpc).operation),
        }
    }

    fn add(&self, hash: u64, key: &Key<'_>) -> Arc<Operation> {
        let added = Arc::new(Operation::new(key));
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() < MOST {
                known.entry(hash).or_insert_with(|| Arc::clone(&added));
            }
            known
        });
        match self.known.load().get(&hash) {
            Some(operation) if operation.is(key) => Arc::clone(operation),
            _ => Arc::clone(&self.other(key.side, key.grpc).operation),
        }
    }

    fn other(&self, side: Side, grpc: bool) -> &Other {
        &self.others[usize::from(side == Side::Server) * 2 + usize::from(grpc)]
    }

    /// Calls `record` with the attribute set of `operation` that ended so.
    pub(super) fn record(&self, operation: &Operation, end: Outcome, mut record: impl FnMut(&[KeyValue])) {
        let other = self.other(operation.side, operation.grpc);
        let is_other = std::ptr::eq(operation, Arc::as_ptr(&other.operation));
        if !is_other && operation.with_end(end, &self.room, &mut record) {
            return;
        }
        if !other.operation.with_end(end, &other.room, &mut record) {
            record(&other.operation.base);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::StatusCode;
    use mesh_core::policy::grpc::GrpcStatus;

    use super::*;

    fn key(method: &str) -> Key<'_> {
        Key { side: Side::Client, grpc: true, method, target: "reviews:9080" }
    }

    fn sets(operations: &Operations, method: &str, ends: &[Outcome]) -> Vec<String> {
        let operation = operations.find(&key(method));
        let mut sets = Vec::new();
        for end in ends {
            operations.record(&operation, *end, |set| sets.push(format!("{set:?}")));
        }
        sets
    }

    #[test]
    fn an_operation_is_known_again() {
        let operations = Operations::new();
        assert!(Arc::ptr_eq(&operations.find(&key("a/b")), &operations.find(&key("a/b"))));
        assert!(!Arc::ptr_eq(&operations.find(&key("a/b")), &operations.find(&key("a/c"))));
    }

    /// What makes recording free: nothing is built anew for an operation and an end that were seen before.
    #[test]
    fn a_set_and_a_span_name_are_built_once() {
        let operations = Operations::new();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let operation = operations.find(&key("a/b"));
            operations.record(&operation, Outcome::CANCELLED, |set| {
                seen.insert(set.as_ptr());
            });
            assert!(matches!(operation.span_name(), Some(Cow::Borrowed("Sent.a.b"))));
        }
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn strangers_methods_make_no_more_series_than_the_bound() {
        let operations = Operations::new();
        let ends: Vec<_> = (0..=16).map(|code| Outcome::new(None, Some(GrpcStatus(code)), None)).collect();
        let mut seen = HashSet::new();
        let mut others = 0;
        for number in 0..3 * MOST {
            let set = sets(&operations, &format!("a/{number}"), &ends);
            assert_eq!(set.len(), ends.len(), "every call is counted");
            others += set.iter().filter(|set| set.contains(OTHER)).count();
            seen.extend(set);
        }
        assert_eq!(operations.known.load().len(), MOST);
        assert!(seen.len() <= MOST + ends.len(), "{}", seen.len());
        assert_eq!(others, 3 * MOST * ends.len() - MOST);
    }

    #[test]
    fn the_others_ends_are_bounded_too() {
        let operations = Operations::new();
        let ends: Vec<_> = (100..600)
            .flat_map(|status| (0..2).map(move |grpc| (status, grpc)))
            .map(|(status, grpc)| Outcome::new(StatusCode::from_u16(status).ok(), Some(GrpcStatus(grpc)), None))
            .collect();
        let long = "a/".to_owned() + &"b".repeat(LONGEST);
        let key = Key { target: &long, ..key("a/b") };
        let other = operations.find(&key);
        let mut seen = HashSet::new();
        for end in &ends {
            operations.record(&other, *end, |set| {
                seen.insert(set.as_ptr());
            });
        }
        assert_eq!(seen.len(), MOST_OTHER + 1);
    }
}
