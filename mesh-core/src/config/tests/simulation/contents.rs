//! What the control plane has, and had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decode::{DecodeResource, Decoded, Fault};
use crate::graph::tests::{eds, endpoints, listener, routes};
use crate::model::{Endpoints, RouteSource};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey, ResourceValue};
use crate::source::responder::{EncodedResource, ResourceSet};

/// The authority of half of the Listeners and route tables (gRFC A47).
pub(super) const AUTHORITY: &str = "east";
pub(super) const TARGETS: [&str; 2] = ["t0", "xdstp://east/envoy.config.listener.v3.Listener/t1"];
const TABLES: [&str; 2] = ["r0", "xdstp://east/envoy.config.route.v3.RouteConfiguration/r1"];
const CLUSTERS: [&str; 3] = ["c0", "c1", "c2"];
pub(super) const BAD: &str = "bad";
/// What an endpoint set is without an endpoint.
pub(super) const EMPTY: &str = "empty";

/// Stands between name and content.
pub(super) const MARK: char = '|';

/// Resources are text, `name|content`. A Listener's content is its route table, a route table's its clusters, that of endpoints
/// a port, or [`EMPTY`].
pub(super) struct Decoder;

impl DecodeResource for Decoder {
    fn decode(&self, type_url: &str, bytes: &[u8]) -> Decoded {
        let text = String::from_utf8_lossy(bytes);
        let Some((name, content)) = text.split_once(MARK) else {
            return Decoded::Err { name: None, faults: vec![Fault::new("", "cannot be decoded")] };
        };
        if content == BAD {
            return Decoded::Err { name: Some(name.into()), faults: vec![Fault::new("", "must not be bad")] };
        }
        let value = match type_url {
            LISTENER => listener(name, RouteSource::Rds(content.into())),
            ROUTE_CONFIGURATION => routes(&content.split(',').collect::<Vec<_>>()),
            CLUSTER => eds(name),
            _ if content == EMPTY => Arc::new(Endpoints::default()),
            _ => endpoints(content.parse().unwrap()),
        };
        Decoded::Ok { name: name.into(), value }
    }

    fn is_emptied(&self, value: &ResourceValue) -> bool {
        value.downcast_ref::<Endpoints>().is_some_and(Endpoints::is_empty)
    }
}

pub(super) struct Contents {
    now: BTreeMap<ResourceKey, String>,
    /// The same, encoded.
    set: Arc<ResourceSet>,
    /// Everything that each resource ever was.
    ever: BTreeMap<ResourceKey, BTreeSet<String>>,
    /// What was missing at any time since [`forget`](Self::forget).
    missed: BTreeSet<ResourceKey>,
    ports: u16,
}

impl Contents {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        let mut contents = Self {
            now: BTreeMap::new(),
            set: Arc::default(),
            ever: BTreeMap::new(),
            missed: BTreeSet::new(),
            ports: 1000,
        };
        for key in universe() {
            contents.mend(&key, random);
        }
        contents
    }

    pub(super) fn set(&self) -> Arc<ResourceSet> {
        self.set.clone()
    }

    fn encode(&mut self) {
        let encode = |(key, text): (&ResourceKey, &String)| {
            EncodedResource::new(key.clone(), format!("{}{MARK}{text}", key.name))
        };
        self.set = Arc::new(ResourceSet::new(self.now.iter().map(encode)));
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&str> {
        self.now.get(key).map(String::as_str)
    }

    pub(super) fn was(&self, key: &ResourceKey, content: &str) -> bool {
        self.ever.get(key).is_some_and(|ever| ever.contains(content))
    }

    pub(super) fn missed(&self, key: &ResourceKey) -> bool {
        self.missed.contains(key)
    }

    /// Everything that was sent has arrived.
    pub(super) fn forget(&mut self) {
        self.missed = universe().into_iter().filter(|key| !self.now.contains_key(key)).collect();
    }

    /// Gives it another content, a good one.
    pub(super) fn mend(&mut self, key: &ResourceKey, random: &mut fastrand::Rng) {
        let content = match &*key.type_url {
            LISTENER => TABLES[random.usize(..2)].to_owned(),
            ROUTE_CONFIGURATION => {
                let mut names = CLUSTERS.to_vec();
                random.shuffle(&mut names);
                names.truncate(random.usize(1..=2));
                names.sort_unstable();
                names.join(",")
            }
            CLUSTER => "eds".to_owned(),
            _ => {
                self.ports += 1;
                self.ports.to_string()
            }
        };
        self.put(key, &content);
    }

    pub(super) fn spoil(&mut self, key: &ResourceKey) {
        self.put(key, BAD);
    }

    /// Takes every endpoint out of a set, if it is one or its cluster.
    pub(super) fn empty(&mut self, key: &ResourceKey) {
        if [CLUSTER, CLUSTER_LOAD_ASSIGNMENT].contains(&&*key.type_url) {
            self.put(&ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, key.name.clone()), EMPTY);
        }
    }

    fn put(&mut self, key: &ResourceKey, content: &str) {
        self.ever.entry(key.clone()).or_default().insert(content.to_owned());
        self.now.insert(key.clone(), content.to_owned());
        self.encode();
    }

    pub(super) fn delete(&mut self, key: &ResourceKey) {
        self.now.remove(key);
        self.encode();
        self.missed.insert(key.clone());
    }

    /// Something that is not as it should be, if there is.
    pub(super) fn broken(&self, random: &mut fastrand::Rng) -> Option<ResourceKey> {
        let mut broken = universe();
        broken.retain(|key| self.get(key).is_none_or(|content| [BAD, EMPTY].contains(&content)));
        (!broken.is_empty()).then(|| broken.swap_remove(random.usize(..broken.len())))
    }
}

/// Every resource that there can be.
pub(super) fn universe() -> Vec<ResourceKey> {
    let of = |type_url: &'static str, names: &'static [&str]| {
        names.iter().map(move |name| ResourceKey::new(type_url, *name))
    };
    of(LISTENER, &TARGETS)
        .chain(of(ROUTE_CONFIGURATION, &TABLES))
        .chain(of(CLUSTER, &CLUSTERS))
        .chain(of(CLUSTER_LOAD_ASSIGNMENT, &CLUSTERS))
        .collect()
}
