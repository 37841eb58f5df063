//! Clusters as requests use them: what outlives every snapshot, and the picker of the moment.
//!
//! A [`ClusterState`] is kept by name for as long as anybody uses the cluster: its breaker, its retry budget, its
//! connections. What requests read of it is published, and read with one atomic load. It is written on the configuration
//! thread alone, by the [`Registry`].

mod lane;
mod leaving;
mod members;
mod registry;
mod reports;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_core::load::LoadLease;
use mesh_core::model::{Cluster, HttpProtocol, Name};
use mesh_core::policy::limit::Breaker;
use mesh_core::policy::retry::Budget;
use mesh_core::publish::{Publisher, Reader};
use mesh_core::snapshot::{Children, ClusterConfig, Lease};

use crate::connect::WireProtocol;
pub(crate) use lane::{Lane, LaneView};
pub(crate) use members::Limits;
pub(crate) use registry::Registry;

/// A cluster, across configurations.
pub(crate) struct ClusterState {
    name: Name,
    config: ArcSwap<ClusterConfig>,
    breaker: ArcSwap<Breaker>,
    budget: Arc<Budget>,
    /// Its load, if a control plane wants to know it.
    load: ArcSwapOption<LoadLease>,
    /// One for each [`WireProtocol`], in its order: gRPC and HTTP/1.1 to one cluster need connections of their own.
    lanes: [Lane; 3],
}

/// A cluster as a snapshot's requests hold it.
pub(crate) struct ClusterHandle {
    state: Arc<ClusterState>,
    /// While this is held the graph keeps the cluster up to date (gRFC A31).
    lease: Arc<Lease>,
    /// The leaves of an aggregate cluster, in order (gRFC A37); empty for any other.
    leaves: Vec<Arc<Self>>,
}

impl ClusterState {
    fn new(config: Arc<ClusterConfig>, signal: &Arc<Signal>) -> Self {
        let lane = |protocol| Lane::new(protocol, signal.clone());
        Self {
            name: config.cluster.name.clone(),
            config: ArcSwap::new(config),
            breaker: ArcSwap::default(),
            budget: Arc::default(),
            load: ArcSwapOption::empty(),
            lanes: [WireProtocol::Http1, WireProtocol::Http2, WireProtocol::Negotiated].map(lane),
        }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// The newest configuration.
    pub(crate) fn config(&self) -> arc_swap::Guard<Arc<ClusterConfig>> {
        self.config.load()
    }

    /// One for each protocol.
    pub(crate) fn lanes(&self) -> &[Lane; 3] {
        &self.lanes
    }

    pub(crate) fn breaker(&self) -> Arc<Breaker> {
        self.breaker.load_full()
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// A request was dropped: by a category, or by the breaker.
    pub(crate) fn dropped(&self, category: Option<&str>) {
        if let Some(lease) = &*self.load.load() {
            lease.load().dropped(category);
        }
    }

    /// The lane of a request: what the cluster says, or what the request needs.
    pub(crate) fn lane(&self, grpc: bool, http2: bool) -> &Lane {
        &self.lanes[protocol_of(&self.config.load().cluster, grpc, http2) as usize]
    }
}

/// Which HTTP a request is sent in (`HttpProtocolOptions`).
fn protocol_of(cluster: &Cluster, grpc: bool, http2: bool) -> WireProtocol {
    match cluster.protocol {
        HttpProtocol::Http1 => WireProtocol::Http1,
        HttpProtocol::Http2 => WireProtocol::Http2,
        HttpProtocol::Alpn => WireProtocol::Negotiated,
        HttpProtocol::SameAsRequest if http2 => WireProtocol::Http2,
        HttpProtocol::SameAsRequest => WireProtocol::Http1,
        HttpProtocol::Default if grpc && http2 => WireProtocol::Http2,
        // Nothing is said, and TLS can ask.
        HttpProtocol::Default if cluster.each_tls().any(|tls| tls.is_some()) => WireProtocol::Negotiated,
        HttpProtocol::Default => WireProtocol::Http1,
    }
}

impl ClusterHandle {
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) fn state(&self) -> &Arc<ClusterState> {
        &self.state
    }

    pub(crate) fn name(&self) -> &Name {
        &self.state.name
    }

    /// The cluster that a request takes: itself, or the first leaf that can take it. An aggregate without one that works
    /// answers with its last, whose error says why.
    pub(crate) fn leaf(self: &Arc<Self>, grpc: bool, http2: bool) -> &Arc<Self> {
        let usable = |leaf: &&Arc<Self>| leaf.state.lane(grpc, http2).may_work();
        self.leaves.iter().find(usable).or(self.leaves.last()).unwrap_or(self)
    }
}

impl std::fmt::Debug for ClusterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClusterHandle").field(&self.state.name).finish()
    }
}

/// Wakes the configuration thread.
pub(crate) struct Signal {
    raised: Publisher<()>,
}

impl Signal {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { raised: Publisher::new(Arc::new(())) })
    }

    pub(crate) fn raise(&self) {
        self.raised.publish(Arc::new(()));
    }

    pub(crate) fn reader(&self) -> Reader<()> {
        self.raised.reader()
    }
}

/// Why a cluster has no endpoints, if it says so.
pub(crate) fn note(config: &ClusterConfig) -> Option<&mesh_core::error::Error> {
    match &config.children {
        Children::Endpoints { note, .. } => note.as_ref(),
        _ => None,
    }
}
