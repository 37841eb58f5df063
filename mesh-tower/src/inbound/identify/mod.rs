//! Who is at the other end: what every request carries of its connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_core::chain::{ConnectionFacts, FirstBytes};
use mesh_core::identity::PeerIdentity;
use tokio::sync::{oneshot, watch};

use super::accept::Addresses;
use super::backlog::Backlog;
use super::config::{ChainState, TlsClient};
use super::slot::{Current, InboundSlot};

/// A connection of a mesh server, in the extensions of each of its requests.
///
/// Only the mesh's listeners make it, so that its presence says that the connection was accepted under the mesh's
/// configuration.
#[derive(Clone)]
pub struct PeerInfo(Arc<Connection>);

/// A connection that may be gone.
pub(crate) struct WeakPeer(Weak<Connection>);

impl WeakPeer {
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn upgrade(&self) -> Option<PeerInfo> {
        self.0.upgrade().map(PeerInfo)
    }
}

/// What is shared by a connection's byte stream, its requests and whoever drains it.
pub(crate) struct Connection {
    pub(crate) addresses: Addresses,
    client: TlsClient,
    /// What was seen of its first bytes; None: nobody looked.
    first: Option<FirstBytes>,
    pub(crate) chain: Arc<ChainState>,
    pub(crate) slot: Arc<InboundSlot>,
    /// Turns true when the Listener that this connection was accepted under is no longer in force.
    pub(crate) drain: watch::Receiver<bool>,
    /// Whether the inbound layer has seen a request of it.
    seen: AtomicBool,
    /// What its answers hold that the client has not taken.
    pub(crate) backlog: Backlog,
    /// Breaks the connection; None: it is broken, or its client has shown no certificate.
    kill: Mutex<Option<oneshot::Sender<()>>>,
    /// What [`kill`](Self::kill) fires, until the stream has taken it.
    killed: Mutex<Option<oneshot::Receiver<()>>>,
}

impl PeerInfo {
    pub(crate) fn new(
        addresses: Addresses,
        client: TlsClient,
        first: Option<FirstBytes>,
        chain: Arc<ChainState>,
        slot: Arc<InboundSlot>,
        drain: watch::Receiver<bool>,
    ) -> Self {
        let (seen, backlog) = (AtomicBool::new(false), Backlog::new(slot.options().limits.max_send_buffer));
        let (kill, killed) = client.identity.is_some().then(oneshot::channel).unzip();
        let (kill, killed) = (Mutex::new(kill), Mutex::new(killed));
        let peer =
            Self(Arc::new(Connection { addresses, client, first, chain, slot, drain, seen, backlog, kill, killed }));
        peer.0.slot.list(&peer);
        peer
    }

    pub(crate) fn downgrade(&self) -> WeakPeer {
        WeakPeer(Arc::downgrade(&self.0))
    }

    /// The client's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.addresses.peer
    }

    /// The address the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.addresses.local
    }

    /// Whether the connection is under TLS.
    pub fn is_tls(&self) -> bool {
        self.0.chain.chain.tls.is_some()
    }

    /// Who the client is, as its certificate proves; None if it has shown none. The same is in the extensions of each
    /// request that passed the inbound layer.
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.0.client.identity.as_ref()
    }

    /// The server name that the client asked for in its TLS handshake.
    pub fn server_name(&self) -> Option<&str> {
        self.0.client.server_name.as_deref()
    }

    /// The server name that an inspection of the first bytes has found; empty without one, to authorization, too (gRFC A41).
    pub(crate) fn inspected_name(&self) -> Option<&str> {
        self.0.first.as_ref()?.server_name.as_deref()
    }

    pub(crate) fn client(&self) -> &TlsClient {
        &self.0.client
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }

    /// Whether the connection was accepted under a Listener that is no longer in force, or the server is shutting down.
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow() || self.0.slot.shutdown_deadline().is_some()
    }
}

impl Connection {
    pub(crate) fn mark_seen(&self) {
        if !self.seen.load(Ordering::Relaxed) {
            self.seen.store(true, Ordering::Release);
        }
    }

    pub(crate) fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }

    /// Closes the connection if its client is revoked, under the configuration that it was accepted under or under `current`.
    pub(crate) fn judge(&self, current: &Current) {
        let Some(client) = &self.client.identity else { return };
        let first = self.first.as_ref().unwrap_or(FirstBytes::unseen());
        let facts = ConnectionFacts { destination: self.addresses.local, source: self.addresses.peer, first };
        let now = match current {
            Current::Serving(generation) => generation.select(&facts).ok(),
            Current::NotServing(_) => None,
        };
        let chains = [Some(&self.chain), now.as_ref().map(|(chain, _)| chain)];
        let mut acceptors = chains.into_iter().flatten().filter_map(|chain| chain.tls.as_ref().ok()?.as_ref());
        if let Some(error) = acceptors.find_map(|tls| tls.revoked(client))
            && let Some(kill) = self.kill.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            tracing::warn!(target: "mesh", "closed a connection of {}: {error}", self.addresses.peer);
            // An error: it has ended on its own.
            let _ = kill.send(());
        }
    }

    /// What fires when the connection must break. For its stream.
    pub(crate) fn take_killed(&self) -> Option<oneshot::Receiver<()>> {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerInfo")
            .field("remote", &self.remote_addr())
            .field("local", &self.local_addr())
            .field("identity", &self.identity().and_then(PeerIdentity::spiffe_id))
            .field("chain", &self.0.chain.chain.name)
            .finish_non_exhaustive()
    }
}
