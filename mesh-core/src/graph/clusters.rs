//! Clusters as snapshots hold them: the same object for as long as nothing about it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use super::nodes::{Found, Inquiry, Nodes};
use crate::bootstrap::ServerConfig;
use crate::dns::{self, Addresses, Again};
use crate::error::{Code, Error};
use crate::model::{Cluster, DiscoveryKind, DnsEndpoints, DnsHost, Endpoints, Name};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, ResourceKey};
use crate::snapshot::{Children, ClusterConfig, Lease};

/// How deep aggregate clusters may nest (gRFC A37).
const MAX_DEPTH: usize = 16;

/// What a walk found about one cluster.
pub(super) type Verdict = Result<Arc<ClusterConfig>, Error>;

/// The clusters in use.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    built: BTreeMap<Name, Arc<ClusterConfig>>,
    /// Clusters that no target uses any more, but perhaps requests in flight.
    left: BTreeMap<Name, Left>,
}

#[derive(Debug)]
struct Left {
    lease: Weak<Lease>,
    last: Weak<ClusterConfig>,
    needs: BTreeSet<ResourceKey>,
}

/// One walk over clusters: what it found.
#[derive(Default)]
pub(super) struct ClusterWalk {
    pub(super) found: BTreeMap<Name, Verdict>,
    pub(super) pending: bool,
    /// How many names were met below aggregates.
    #[cfg(test)]
    pub(super) met: usize,
}

/// What is known while the leaves of one aggregate are collected.
#[derive(Default)]
struct Expansion {
    leaves: Vec<Name>,
    /// The aggregates above.
    path: Vec<Name>,
    /// How deep each name was met at most: at no greater depth there is nothing new below it.
    deepest: HashMap<Name, usize>,
}

impl ClusterWalk {
    /// Walks to `name` and, for an aggregate, to everything below it.
    pub(super) fn visit(&mut self, name: &Name, inquiry: &mut Inquiry<'_>, clusters: &mut Clusters) {
        if self.found.contains_key(name) {
            return;
        }
        let key = ResourceKey::new(CLUSTER, name.clone());
        let (cluster, ambient) = match inquiry.find::<Cluster>(&key) {
            Found::Pending => return self.pending = true,
            Found::Error(error) => {
                self.found.insert(name.clone(), Err(error));
                return;
            }
            Found::Value(cluster, ambient, _) => (cluster, ambient),
        };
        match &cluster.discovery {
            DiscoveryKind::Aggregate(_) => self.aggregate(name, &cluster, inquiry, clusters),
            _ => {
                let Some(children) = self.endpoints(&cluster, inquiry) else { return };
                let is_unreached = !inquiry.unreached.is_empty()
                    && finders(&cluster.discovery).iter().any(|key| inquiry.unreached.contains(key));
                if let Some(config) = clusters.built.get(name).filter(|_| is_unreached) {
                    // Another target has it in force, and clusters are one for all.
                    self.found.insert(name.clone(), Ok(config.clone()));
                } else {
                    let children = noted(children, ambient);
                    let load_server = load_server(&cluster, &key, inquiry.nodes);
                    let names = names(&cluster, inquiry.nodes);
                    let config = clusters.build(name, Parts { cluster, children, load_server, names });
                    self.found.insert(name.clone(), Ok(config));
                }
            }
        }
    }

    /// Walks to `name`, which is in force as `now`. While what it is to be is on its way it stays what it is, with the endpoints
    /// that there are now.
    pub(super) fn keep(&mut self, name: &Name, now: &Verdict, inquiry: &mut Inquiry<'_>, clusters: &mut Clusters) {
        self.pending = false;
        self.visit(name, inquiry, clusters);
        if self.found.contains_key(name) {
            return;
        }
        let kept = now.as_ref().map(|config| self.kept(name, config, inquiry, clusters));
        self.found.insert(name.clone(), kept.map_err(Clone::clone));
    }

    fn kept(
        &mut self,
        name: &Name,
        config: &Arc<ClusterConfig>,
        inquiry: &mut Inquiry<'_>,
        clusters: &mut Clusters,
    ) -> Arc<ClusterConfig> {
        if matches!(config.children, Children::Leaves(_)) {
            return config.clone();
        }
        let Some(children) = self.endpoints(&config.cluster, inquiry) else { return config.clone() };
        let (cluster, load_server) = (config.cluster.clone(), config.load_server.clone());
        let names = names(&cluster, inquiry.nodes);
        let parts = Parts { cluster, children, load_server, names };
        if parts.are_of(config) { config.clone() } else { clusters.build(name, parts) }
    }

    /// The endpoints of a cluster that is no aggregate; None: they must be waited for.
    fn endpoints(&mut self, cluster: &Cluster, inquiry: &mut Inquiry<'_>) -> Option<Children> {
        match &cluster.discovery {
            DiscoveryKind::Static(endpoints) => {
                Some(Children::Endpoints { endpoints: endpoints.clone(), note: None, lapsing: false })
            }
            DiscoveryKind::Eds { service_name } => {
                let key = ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, service_name.clone());
                match inquiry.find::<Endpoints>(&key) {
                    Found::Pending => {
                        self.pending = true;
                        None
                    }
                    Found::Value(endpoints, note, lapsing) => Some(Children::Endpoints { endpoints, note, lapsing }),
                    Found::Error(error) => Some(no_endpoints(error)),
                }
            }
            DiscoveryKind::LogicalDns(endpoints) => self.by_name(endpoints, true, inquiry),
            DiscoveryKind::StrictDns(endpoints) => self.by_name(endpoints, false, inquiry),
            DiscoveryKind::Aggregate(_) => Some(Children::Leaves(Vec::new())),
        }
    }

    /// What DNS knows of `of`; None: a name must be waited for. One that cannot be found has no endpoints, and the others are
    /// used.
    fn by_name(&mut self, of: &DnsEndpoints, one: bool, inquiry: &mut Inquiry<'_>) -> Option<Children> {
        let mut note = None;
        let mut known = HashMap::new();
        let mut pending = false;
        for host in &of.hosts {
            let key = dns::key(host, of);
            match inquiry.find::<Addresses>(&key) {
                Found::Pending => pending = true,
                Found::Error(error) => note = note.or(Some(error)),
                Found::Value(addresses, trouble, _) => {
                    note = note.or(trouble);
                    known.insert((&*host.host, host.port), addresses);
                }
            }
        }
        self.pending |= pending;
        if pending {
            return None;
        }
        let lookup = |host: &DnsHost| {
            known.get(&(&*host.host, host.port)).map(|addresses| addresses.list.clone()).unwrap_or_default()
        };
        Some(Children::Endpoints { endpoints: Arc::new(of.with(one, lookup)), note, lapsing: false })
    }

    fn aggregate(&mut self, name: &Name, cluster: &Arc<Cluster>, inquiry: &mut Inquiry<'_>, clusters: &mut Clusters) {
        let mut expansion = Expansion::default();
        let result = self.leaves(name, inquiry, clusters, &mut expansion);
        if self.pending {
            return;
        }
        let leaves = expansion.leaves;
        let verdict = match result {
            Err(error) => Err(error),
            Ok(()) if leaves.is_empty() => {
                Err(Error::new(Code::RESOURCE_NOT_FOUND, format!("aggregate cluster `{name}` has no leaf that exists")))
            }
            // Requests are counted for the leaf they take.
            Ok(()) => {
                let (cluster, children) = (cluster.clone(), Children::Leaves(leaves));
                Ok(clusters.build(name, Parts { cluster, children, load_server: None, names: Vec::new() }))
            }
        };
        self.found.insert(name.clone(), verdict);
    }

    /// Collects the leaves below `name` in depth-first order, each at its first place (gRFC A37).
    fn leaves(
        &mut self,
        name: &Name,
        inquiry: &mut Inquiry<'_>,
        clusters: &mut Clusters,
        expansion: &mut Expansion,
    ) -> Result<(), Error> {
        #[cfg(test)]
        {
            self.met += 1;
        }
        let depth = expansion.path.len();
        if depth >= MAX_DEPTH {
            return Err(Error::new(
                Code::RESOURCE_REFUSED,
                format!("aggregate clusters nest more than {MAX_DEPTH} deep at `{name}`"),
            ));
        }
        // A cycle adds nothing; it is tolerated as long as some leaf exists.
        if expansion.path.contains(name) || expansion.deepest.get(name).is_some_and(|deepest| depth <= *deepest) {
            return Ok(());
        }
        let is_new = expansion.deepest.insert(name.clone(), depth).is_none();
        let cluster = match inquiry.find::<Cluster>(&ResourceKey::new(CLUSTER, name.clone())) {
            Found::Pending => {
                self.pending = true;
                return Ok(());
            }
            // A child that does not exist is skipped.
            Found::Error(_) => return Ok(()),
            Found::Value(cluster, ..) => cluster,
        };
        let DiscoveryKind::Aggregate(children) = &cluster.discovery else {
            if is_new {
                self.visit(name, inquiry, clusters);
                expansion.leaves.push(name.clone());
            }
            return Ok(());
        };
        expansion.path.push(name.clone());
        for child in children {
            self.leaves(child, inquiry, clusters, expansion)?;
        }
        expansion.path.pop();
        Ok(())
    }
}

/// With what is wrong with the cluster, unless its endpoints have something to say themselves.
fn noted(children: Children, of_cluster: Option<Error>) -> Children {
    match children {
        Children::Endpoints { endpoints, note: None, lapsing } => {
            Children::Endpoints { endpoints, note: of_cluster, lapsing }
        }
        other => other,
    }
}

fn no_endpoints(error: Error) -> Children {
    Children::Endpoints { endpoints: Arc::new(Endpoints::default()), note: Some(error), lapsing: false }
}

/// The endpoints of a cluster by DNS.
fn by_dns(discovery: &DiscoveryKind) -> Option<&Arc<DnsEndpoints>> {
    match discovery {
        DiscoveryKind::LogicalDns(endpoints) | DiscoveryKind::StrictDns(endpoints) => Some(endpoints),
        _ => None,
    }
}

/// What finds a cluster's endpoints, beside the cluster itself.
fn finders(discovery: &DiscoveryKind) -> Vec<ResourceKey> {
    if let DiscoveryKind::Eds { service_name } = discovery {
        return vec![ResourceKey::new(CLUSTER_LOAD_ASSIGNMENT, service_name.clone())];
    }
    by_dns(discovery).into_iter().flat_map(|of| of.hosts.iter().map(|host| dns::key(host, of))).collect()
}

/// How a cluster's names are looked up again.
fn names(cluster: &Cluster, nodes: &Nodes) -> Vec<Again> {
    let keys = by_dns(&cluster.discovery).map(|_| finders(&cluster.discovery)).unwrap_or_default();
    let found = keys.iter().filter_map(|key| match nodes.find::<Addresses>(key) {
        Found::Value(addresses, ..) => Some(addresses.again.clone()),
        _ => None,
    });
    found.collect()
}

impl Clusters {
    /// The configuration of `cluster` with `children`: the one there is, if nothing changed.
    fn build(&mut self, name: &Name, parts: Parts) -> Arc<ClusterConfig> {
        if let Some(built) = self.built.get(name) {
            if parts.are_of(built) {
                return built.clone();
            }
            let config = Arc::new(parts.leased(built.lease.clone()));
            self.built.insert(name.clone(), config.clone());
            return config;
        }
        // Requests may still use it from before: then it is the same cluster. Otherwise it comes back fresh.
        let before = self.left.remove(name).and_then(|left| left.lease.upgrade());
        let lease = before.unwrap_or_else(|| Arc::new(Lease::new(name.clone())));
        let config = Arc::new(parts.leased(lease));
        self.built.insert(name.clone(), config.clone());
        config
    }

    /// Whether a request that named the cluster itself took it since this was last asked.
    pub(super) fn was_taken(&self, name: &Name) -> bool {
        self.built.get(name).is_some_and(|config| config.lease.take_touched())
    }

    /// Lets go of every cluster that is not `used`.
    pub(super) fn retain_used(&mut self, used: &BTreeSet<Name>) {
        let gone: Vec<Name> = self.built.keys().filter(|name| !used.contains(*name)).cloned().collect();
        for name in gone {
            let Some(config) = self.built.remove(&name) else { continue };
            let mut needs = BTreeSet::from([ResourceKey::new(CLUSTER, name.clone())]);
            needs.extend(finders(&config.cluster.discovery));
            let left = Left { lease: Arc::downgrade(&config.lease), last: Arc::downgrade(&config), needs };
            self.left.insert(name, left);
        }
    }

    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Forgets clusters that nobody leases.
    pub(super) fn drop_unleased(&mut self) {
        self.left.retain(|_, left| left.lease.strong_count() > 0);
    }

    /// What clusters that left still need.
    pub(super) fn left_keys(&self) -> BTreeSet<ResourceKey> {
        self.left.values().flat_map(|left| left.needs.iter().cloned()).collect()
    }

    /// The new configurations of clusters that left and that `key` is part of.
    pub(super) fn refresh_left(&mut self, key: &ResourceKey, nodes: &Nodes) -> Vec<Arc<ClusterConfig>> {
        let mut changed = Vec::new();
        let nothing = BTreeSet::new();
        for (name, left) in &mut self.left {
            let (true, Some(lease)) = (left.needs.contains(key), left.lease.upgrade()) else { continue };
            let mut walk = ClusterWalk::default();
            let mut inquiry = Inquiry::new(nodes, Some(&nothing));
            let key = ResourceKey::new(CLUSTER, name.clone());
            let Found::Value(cluster, ..) = inquiry.find::<Cluster>(&key) else { continue };
            let Some(children) = walk.endpoints(&cluster, &mut inquiry) else { continue };
            let (load_server, names) = (load_server(&cluster, &key, nodes), names(&cluster, nodes));
            let parts = Parts { cluster, children, load_server, names };
            if left.last.upgrade().is_some_and(|last| parts.are_of(&last)) {
                continue;
            }
            let config = Arc::new(parts.leased(lease));
            left.last = Arc::downgrade(&config);
            changed.push(config);
        }
        changed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.built.is_empty() && self.left.is_empty()
    }
}

/// What a walk found of a cluster.
struct Parts {
    cluster: Arc<Cluster>,
    children: Children,
    load_server: Option<Arc<ServerConfig>>,
    names: Vec<Again>,
}

/// Where the cluster's load is reported to: `self` is the server that the cluster came from (gRFC A47).
fn load_server(cluster: &Cluster, key: &ResourceKey, nodes: &Nodes) -> Option<Arc<ServerConfig>> {
    cluster.load.as_ref().and_then(|_| nodes.server_of(key))
}

impl Parts {
    fn leased(self, lease: Arc<Lease>) -> ClusterConfig {
        let Self { cluster, children, load_server, names } = self;
        ClusterConfig { cluster, children, load_server, names, lease }
    }

    /// Whether nothing changed, by identity: decoded values are shared and never changed in place.
    fn are_of(&self, config: &ClusterConfig) -> bool {
        Arc::ptr_eq(&config.cluster, &self.cluster)
            && config.load_server == self.load_server
            && match (&config.children, &self.children) {
                (
                    Children::Endpoints { endpoints: old, note: old_note, lapsing: old_lapsing },
                    Children::Endpoints { endpoints: new, note: new_note, lapsing: new_lapsing },
                ) => {
                    old_lapsing == new_lapsing
                        && (Arc::ptr_eq(old, new)
                            || (old.is_empty() && new.is_empty() && old.drops == new.drops)
                            // What DNS knows is put together anew on each walk.
                            || (by_dns(&self.cluster.discovery).is_some() && old == new))
                        && same_error(old_note.as_ref(), new_note.as_ref())
                }
                (Children::Leaves(old), Children::Leaves(new)) => old == new,
                _ => false,
            }
    }
}

/// Whether two errors say the same.
pub(super) fn same_error(a: Option<&Error>, b: Option<&Error>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.code() == b.code() && a.message() == b.message(),
        _ => false,
    }
}
