//! Every cluster in use, by name: kept across snapshots, reconciled when its configuration changes, evicted when the last
//! user is gone. Lives on the configuration thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use mesh_core::error::{Code, Error};
use mesh_core::load::{ClusterKey, LoadLease, LoadStore};
use mesh_core::model::{Cluster, DiscoveryKind, Name};
use mesh_core::snapshot::ClusterConfig;

use super::leaving::Leaving;
use super::members::{Limits, Members};
use super::{ClusterHandle, ClusterState, Signal};
use crate::connect::EndpointFactory;
use crate::outbound::now;

/// The clusters of one mesh.
pub(crate) struct Registry {
    clusters: BTreeMap<Name, Entry>,
    factory: Arc<dyn EndpointFactory>,
    signal: Arc<Signal>,
    /// What is counted for control planes; None: there is none to tell.
    loads: Option<Arc<LoadStore>>,
    limits: Limits,
    leaving: Leaving,
}

struct Entry {
    config: Arc<ClusterConfig>,
    handle: Arc<ClusterHandle>,
    /// The endpoints of each lane.
    members: [Members; 3],
}

impl Registry {
    pub(crate) fn new(
        factory: Arc<dyn EndpointFactory>,
        signal: Arc<Signal>,
        loads: Option<Arc<LoadStore>>,
        limits: Limits,
    ) -> Self {
        Self { clusters: BTreeMap::new(), factory, signal, loads, limits, leaving: Leaving::default() }
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

    /// Builds again what has changed, and evicts what nobody uses. When it is to be asked again, though nothing changes.
    pub(crate) fn refresh(&mut self) -> Option<Instant> {
        self.clusters.retain(|_, entry| {
            let used = Arc::strong_count(&entry.handle) > 1;
            if !used {
                self.leaving.add(entry.members.iter_mut().flat_map(|members| std::mem::take(members).into_left()));
            }
            used
        });
        let (now, mut first) = (now(), None::<Instant>);
        for entry in self.clusters.values_mut() {
            let due = entry.refresh(&*self.factory, self.limits, now);
            first = first.into_iter().chain(due).min();
            self.leaving.add(entry.members.iter_mut().flat_map(Members::take_left));
        }
        first
    }

    /// Lets go of endpoints that left, a few at a time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        self.leaving.poll(cx);
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
        Self { config: config.clone(), handle: handle(state, config, leaves), members: Default::default() }
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

    fn refresh(&mut self, factory: &dyn EndpointFactory, limits: Limits, now: Instant) -> Option<Instant> {
        let state = self.handle.state.clone();
        let mut due = None;
        for (lane, members) in state.lanes.iter().zip(&mut self.members) {
            if lane.take_dirty() && lane.is_wanted() {
                let load = state.load.load_full();
                drop(lane.publish(members.view(lane, &self.config, load.as_deref(), factory, limits)));
            }
            due = [due, members.refresh(lane, now)].into_iter().flatten().min();
        }
        due
    }
}

fn handle(
    state: Arc<ClusterState>,
    config: &Arc<ClusterConfig>,
    leaves: Vec<Arc<ClusterHandle>>,
) -> Arc<ClusterHandle> {
    Arc::new(ClusterHandle { state, lease: config.lease.clone(), leaves })
}

/// Counts the cluster's load, if a control plane wants to know it and can be told.
fn lease(config: &ClusterConfig, loads: Option<&Arc<LoadStore>>) -> Option<Arc<LoadLease>> {
    let (server, policy, loads) = (config.load_server.as_ref()?, config.cluster.load.as_ref()?, loads?);
    let key = ClusterKey { cluster: config.cluster.name.clone(), service: policy.service_name.clone() };
    Some(Arc::new(loads.lease(server, key, tokio::time::Instant::now().into_std())))
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
    if cluster.each_tls().any(|tls| tls.is_some()) && !factory.proves_tls() {
        return Err(Error::new(
            Code::UNPROVABLE_TLS,
            format!("cluster `{}` demands TLS, and the connections are the application's", cluster.name),
        ));
    }
    crate::outbound::refuse_unsupported(&cluster.unsupported, || format!("cluster `{}`", cluster.name))
}
