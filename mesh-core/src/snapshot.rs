//! One target's whole configuration: immutable, numbered, and sharing what did not change with the one before.
//!
//! A request sees one snapshot's decision from its first attempt to its last, so that a route can never name a cluster that
//! is not there (gRFC A74). Errors live inside, per cluster: a bad cluster fails only its own requests, with its own reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bootstrap::ServerConfig;
use crate::dns::Again;
use crate::error::Error;
use crate::model::{Cluster, Endpoints, HttpConnection, Listener, Name, RouteTable, ServerListener};

/// What a client target is configured to do.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its number: grows by one with every snapshot of the process.
    pub version: u64,
    /// The target: the Listener's name.
    pub target: Name,
    /// Its Listener.
    pub listener: Arc<Listener>,
    /// The Listener's HTTP settings.
    pub http: Arc<HttpConnection>,
    /// Its routes.
    pub routes: Arc<RouteTable>,
    /// Every cluster its routes name, each with its own verdict.
    pub clusters: BTreeMap<Name, Result<Arc<ClusterConfig>, Error>>,
    /// What is wrong with the Listener or the routes, which are used on all the same: part of gRFC A88's `resolution_note` of
    /// each cluster that has none of its own.
    pub note: Option<Error>,
}

/// A cluster with what its discovery found.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What requests to it may use.
    pub children: Children,
    /// The server that its load is reported to: the one it came from, if [`Cluster::load`] asks for it (gRFC A47).
    pub load_server: Option<Arc<ServerConfig>>,
    /// Has the names that its endpoints are known by looked up again, because connections to them fail (gRFC A37); empty for a
    /// cluster whose endpoints have no names.
    pub names: Vec<Again>,
    /// Held by every user of the cluster. While a request holds it, the cluster keeps being updated even when no route
    /// names it any more (gRFC A31).
    pub lease: Arc<Lease>,
}

/// What the discovery of a cluster found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Children {
    /// Its endpoints.
    Endpoints {
        /// The endpoints; empty when there is an error.
        endpoints: Arc<Endpoints>,
        /// Why there are none, or what is wrong with them or with the cluster, which are used on all the same (gRFC A88's
        /// `resolution_note`).
        note: Option<Error>,
        /// Whether the control plane has withdrawn them and they are used on for a grace period only. Other servers may
        /// have their addresses by now: only those that are still connected, or whose identity TLS proves, may be used.
        lapsing: bool,
    },
    /// An aggregate cluster's leaves, in order (gRFC A37).
    Leaves(Vec<Name>),
}

/// Says that a cluster is in use; see [`ClusterConfig::lease`].
#[derive(Debug)]
pub struct Lease {
    /// The cluster.
    pub cluster: Name,
    touched: AtomicBool,
}

impl Lease {
    /// That of this cluster.
    pub fn new(cluster: Name) -> Self {
        Self { cluster, touched: AtomicBool::new(false) }
    }

    /// A request that named the cluster itself takes it: such a cluster is let go of when none has for a while.
    pub fn touch(&self) {
        // Most requests find it done, and write to nothing that others read.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one did since this was last asked.
    pub fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }
}

/// What a listening address is configured to do (gRFC A36).
#[derive(Debug, Clone)]
pub struct ServerSnapshot {
    /// Its number, from the same sequence as [`Snapshot::version`].
    pub version: u64,
    /// The Listener resource's name.
    pub target: Name,
    /// Its Listener.
    pub listener: Arc<Listener>,
    /// The server half of the Listener.
    pub server: Arc<ServerListener>,
    /// The route tables that its filter chains fetch by name, each with its own verdict.
    pub routes: BTreeMap<Name, Result<Arc<RouteTable>, Error>>,
}

/// What the configuration thread hands to whoever puts configuration in force.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update {
    /// A client target has a new configuration.
    Client(Arc<Snapshot>),
    /// A listening address has a new configuration.
    Server(Arc<ServerSnapshot>),
    /// A client target has no configuration, or lost it.
    Failed {
        /// The target.
        target: Name,
        /// Why.
        error: Error,
        /// Whether the source says that there is no such Listener: the target is not in the mesh. Anything else (a control
        /// plane that is away, a Listener that was refused, routes that are missing) leaves that open.
        absent: bool,
    },
    /// A listening address has no configuration, or lost it. A client target of the same name is not concerned.
    ServerFailed {
        /// The Listener resource's name.
        target: Name,
        /// Why.
        error: Error,
    },
    /// A cluster that no route names any more, but that requests in flight still use, has changed.
    Cluster(Arc<ClusterConfig>),
}

/// Puts configuration in force. Called on the configuration thread, in order: connections, pickers, TLS and filters are
/// built here, off every request's way.
pub trait Apply: Send {
    /// Puts `update` in force.
    fn apply(&mut self, update: Update);

    /// Does work of its own that is due: called on the configuration thread after each round and whenever `cx`'s waker is
    /// woken. Endpoint states that change picks arrive here. It must not block.
    fn poll(&mut self, _cx: &mut std::task::Context<'_>) {}
}
