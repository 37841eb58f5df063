//! Every cluster in use, by name: kept across snapshots, reconciled when its configuration changes, evicted when the last
//! user is gone. Lives on the configuration thread.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::balance::{Candidate, CandidateState, LoadObserver, Observer};
use mesh_core::error::{Code, Error};
use mesh_core::load::{ClusterKey, LoadLease, LoadStore};
use mesh_core::model::{Cluster, DiscoveryKind, Endpoint, LocalityEndpoints, Name, UpstreamTls};
use mesh_core::snapshot::{Children, ClusterConfig};

use super::lane::{Lane, LaneView};
use super::{ClusterHandle, ClusterState, Signal};
use crate::connect::{EndpointFactory, EndpointHandle, EndpointPlan};

/// The clusters of one mesh.
pub(crate) struct Registry {
    clusters: BTreeMap<Name, Entry>,
    factory: Arc<dyn EndpointFactory>,
    signal: Arc<Signal>,
    /// What is counted for control planes; None: there is none to tell.
    loads: Option<Arc<LoadStore>>,
    seed: u64,
}

struct Entry {
    config: Arc<ClusterConfig>,
    handle: Arc<ClusterHandle>,
    /// The ways of each lane, by the endpoint's first address.
    known: [HashMap<SocketAddr, Known>; 3],
}

/// An endpoint with what is kept of it while its address stays.
struct Known {
    endpoint: Arc<Endpoint>,
    tls: Option<Arc<UpstreamTls>>,
    state: Arc<CandidateState>,
    way: Arc<dyn EndpointHandle>,
}

impl Registry {
    pub(crate) fn new(
        factory: Arc<dyn EndpointFactory>,
        signal: Arc<Signal>,
        loads: Option<Arc<LoadStore>>,
        seed: u64,
    ) -> Self {
        Self { clusters: BTreeMap::new(), factory, signal, loads, seed }
    }

    /// Whether load can be reported.
    pub(crate) fn reports_load(&self) -> bool {
        self.loads.is_some()
    }

    /// The handle of a cluster under this configuration.
    ///
    /// # Errors
    ///
    /// The cluster asks for what this client cannot do.
    pub(crate) fn reconcile(
        &mut self,
        config: &Arc<ClusterConfig>,
        leaves: Vec<Arc<ClusterHandle>>,
    ) -> Result<Arc<ClusterHandle>, Error> {
        check(&config.cluster, &*self.factory)?;
        let name = &config.cluster.name;
        if let Some(entry) = self.clusters.get_mut(name) {
            entry.update(config, leaves, self.loads.as_ref());
            return Ok(entry.handle.clone());
        }
        let entry = Entry::new(config, leaves, &self.signal, self.loads.as_ref());
        let handle = entry.handle.clone();
        self.clusters.insert(name.clone(), entry);
        Ok(handle)
    }

    /// Takes a change of a cluster that only requests in flight use.
    pub(crate) fn update(&mut self, config: &Arc<ClusterConfig>) {
        if let Some(entry) = self.clusters.get_mut(&config.cluster.name) {
            let leaves = entry.handle.leaves.clone();
            entry.update(config, leaves, self.loads.as_ref());
        }
    }

    /// Builds again what has changed, and evicts what nobody uses.
    pub(crate) fn refresh(&mut self) {
        self.clusters.retain(|_, entry| Arc::strong_count(&entry.handle) > 1);
        for entry in self.clusters.values_mut() {
            entry.refresh(&*self.factory, self.seed);
        }
    }
}

impl Entry {
    fn new(
        config: &Arc<ClusterConfig>,
        leaves: Vec<Arc<ClusterHandle>>,
        signal: &Arc<Signal>,
        loads: Option<&Arc<LoadStore>>,
    ) -> Self {
        let state = Arc::new(ClusterState::new(config.clone(), signal));
        state.load.store(lease(config, loads));
        Self { config: config.clone(), handle: handle(state, config, leaves), known: Default::default() }
    }

    fn update(&mut self, config: &Arc<ClusterConfig>, leaves: Vec<Arc<ClusterHandle>>, loads: Option<&Arc<LoadStore>>) {
        if Arc::ptr_eq(&self.config, config) && same(&leaves, &self.handle.leaves) {
            return;
        }
        let state = self.handle.state.clone();
        // gRFC A32: the counter belongs to the cluster and its EDS service name.
        if service_name(&self.config.cluster) != service_name(&config.cluster) {
            state.breaker.store(Arc::default());
        }
        // The next lease before the last one ends: what stays wanted is wanted without a gap.
        drop(state.load.swap(lease(config, loads)));
        state.config.store(config.clone());
        self.config = config.clone();
        self.handle = handle(state, config, leaves);
        for lane in &self.handle.state.lanes {
            // Requests wait for the lane that they want; the others have nothing to rebuild.
            if lane.is_wanted() {
                lane.changes().mark();
            }
        }
    }

    fn refresh(&mut self, factory: &dyn EndpointFactory, seed: u64) {
        let state = self.handle.state.clone();
        for (lane, known) in state.lanes.iter().zip(&mut self.known) {
            if lane.take_dirty() && lane.is_wanted() {
                let load = state.load.load_full();
                drop(lane.publish(build(lane, known, &self.config, load.as_deref(), factory, seed)));
            }
        }
    }
}

fn handle(
    state: Arc<ClusterState>,
    config: &Arc<ClusterConfig>,
    leaves: Vec<Arc<ClusterHandle>>,
) -> Arc<ClusterHandle> {
    Arc::new(ClusterHandle { state, _lease: config.lease.clone(), leaves })
}

/// Counts the cluster's load, if a control plane wants to know it and can be told.
fn lease(config: &ClusterConfig, loads: Option<&Arc<LoadStore>>) -> Option<Arc<LoadLease>> {
    let (server, policy, loads) = (config.load_server.as_ref()?, config.cluster.load.as_ref()?, loads?);
    let key = ClusterKey { cluster: config.cluster.name.clone(), service: policy.service_name.clone() };
    Some(Arc::new(loads.lease(server, key, tokio::time::Instant::now().into_std())))
}

/// Who counts the requests to a locality.
fn observer(lease: &LoadLease, locality: &LocalityEndpoints, config: &ClusterConfig) -> Arc<dyn Observer> {
    let metrics = config.cluster.load.as_ref().map_or(&[][..], |policy| &policy.metrics);
    Arc::new(LoadObserver::new(lease.load().locality(&locality.locality), metrics.into()))
}

fn same(a: &[Arc<ClusterHandle>], b: &[Arc<ClusterHandle>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn service_name(cluster: &Cluster) -> Option<&Name> {
    match &cluster.discovery {
        DiscoveryKind::Eds { service_name } => Some(service_name),
        _ => None,
    }
}

/// A cluster that demands what this client cannot prove or do is refused as a whole, so that its requests fail with the
/// reason.
fn check(cluster: &Cluster, factory: &dyn EndpointFactory) -> Result<(), Error> {
    if cluster.tls.is_some() && !factory.proves_tls() {
        return Err(Error::new(
            Code::UNPROVABLE_TLS,
            format!("cluster `{}` demands TLS, and the connections are the application's", cluster.name),
        ));
    }
    crate::outbound::refuse_unsupported(&cluster.unsupported, || format!("cluster `{}`", cluster.name))
}

/// Builds what requests see of a lane. Endpoints that are known keep their state and their connections.
fn build(
    lane: &Lane,
    known: &mut HashMap<SocketAddr, Known>,
    config: &ClusterConfig,
    load: Option<&LoadLease>,
    factory: &dyn EndpointFactory,
    seed: u64,
) -> LaneView {
    let Children::Endpoints { endpoints, lapsing, .. } = &config.children else {
        return LaneView::new(mesh_core::balance::build(&*config.cluster.policy, &[], None, seed), vec![], vec![]);
    };
    let mut next = HashMap::with_capacity(endpoints.len());
    let mut candidates = Vec::with_capacity(endpoints.len());
    let mut ways = Vec::with_capacity(endpoints.len());
    // What stands leads to the servers that were meant; what is made anew may lead to another, unless TLS says who it is.
    let withdrawn = *lapsing && !config.cluster.tls.as_ref().is_some_and(|tls| tls.proves_identity());
    for locality in &endpoints.localities {
        let observer = load.map(|load| observer(load, locality, config));
        for endpoint in &locality.endpoints {
            if withdrawn && !known.contains_key(&endpoint.address) && !next.contains_key(&endpoint.address) {
                continue;
            }
            let kept = next.entry(endpoint.address).or_insert_with(|| {
                let before = known.remove(&endpoint.address).filter(|known| known.serves(endpoint, &config.cluster));
                before.unwrap_or_else(|| make(lane, endpoint, &config.cluster, factory))
            });
            kept.withdraw(withdrawn, &config.cluster);
            if withdrawn && !kept.state.is_ready() {
                continue;
            }
            candidates.push(Arc::new(candidate(endpoint, locality, &kept.state, observer.clone())));
            ways.push(kept.way.clone());
        }
    }
    *known = next;
    let before = lane.load();
    let picker = mesh_core::balance::build(&*config.cluster.policy, &candidates, before.picker(), seed);
    LaneView::new(picker, candidates, ways)
}

impl Known {
    /// Keeps new connections from being made, or lets them be made again.
    fn withdraw(&self, withdrawn: bool, cluster: &Cluster) {
        if withdrawn == self.state.is_withdrawn() {
            return;
        }
        self.state.set_withdrawn(withdrawn);
        if !withdrawn && cluster.policy.connects_all() {
            self.way.connect();
        }
    }

    /// Whether the way leads to this endpoint as it is now.
    fn serves(&self, endpoint: &Endpoint, cluster: &Cluster) -> bool {
        let old = &*self.endpoint;
        old.additional == endpoint.additional && old.hostname == endpoint.hostname && self.tls == cluster.tls
    }
}

fn make(lane: &Lane, endpoint: &Arc<Endpoint>, cluster: &Cluster, factory: &dyn EndpointFactory) -> Known {
    let state = Arc::new(CandidateState::default());
    let way = factory.endpoint(EndpointPlan {
        cluster: cluster.name.clone(),
        endpoint: endpoint.clone(),
        protocol: lane.protocol(),
        tls: cluster.tls.clone(),
        connect_timeout: cluster.connect_timeout,
        max_connections: cluster.circuit_breakers.max_connections,
        eager: cluster.policy.connects_all(),
        state: state.clone(),
        changed: lane.changes().clone(),
    });
    Known { endpoint: endpoint.clone(), tls: cluster.tls.clone(), state, way }
}

fn candidate(
    endpoint: &Arc<Endpoint>,
    locality: &LocalityEndpoints,
    state: &Arc<CandidateState>,
    observer: Option<Arc<dyn Observer>>,
) -> Candidate {
    Candidate {
        endpoint: endpoint.clone(),
        locality: locality.locality.clone(),
        priority: locality.priority,
        locality_weight: locality.weight,
        state: state.clone(),
        observer,
    }
}
