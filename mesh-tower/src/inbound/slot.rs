//! A listening address with the configuration that is in force on it, and whether it is serving (gRFC A36).

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::error::{Code, Error};
use mesh_core::model::Name;
use mesh_core::snapshot::ServerSnapshot;
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::{self, Generation};
use super::identify::{PeerInfo, WeakPeer};
use super::options::InboundOptions;
use crate::mesh::{Calls, number};

/// Whether an address serves.
#[derive(Debug, Clone)]
pub enum ServingState {
    /// It has no valid configuration: connections are closed without a byte, and the error says why.
    NotServing(Error),
    /// It serves under configuration number `version`.
    Serving {
        /// The number of the configuration that began to serve.
        version: u64,
    },
}

/// A change of [`ServingState`], as the callback of [`InboundOptions::on_change`] gets it.
#[derive(Debug, Clone)]
pub struct ServingChange {
    /// The address that the server is bound to.
    pub address: SocketAddr,
    /// What is true from now on.
    pub state: ServingState,
}

/// The configuration of one listening address.
///
/// The configuration thread calls [`apply`](Self::apply) and [`fail`](Self::fail); connections read what is in force
/// without a lock.
pub struct InboundSlot {
    target: Name,
    address: SocketAddr,
    options: InboundOptions,
    current: ArcSwap<Current>,
    state: watch::Sender<ServingState>,
    shutdown: watch::Sender<Option<Instant>>,
    /// How many accept loops run, those that only wait for their connections to end included.
    loops: watch::Sender<usize>,
    writer: Mutex<Writer>,
    number: u64,
    calls: Arc<Calls>,
    /// For whoever looks on; only accepting one writes to it.
    connections: Mutex<Vec<(u64, WeakPeer)>>,
    /// What must live as long as the server does: the mesh.
    _owner: Option<Owner>,
}

/// Something that is kept alive.
pub(crate) type Owner = Arc<dyn Any + Send + Sync>;

/// What is in force.
pub(crate) enum Current {
    NotServing(Error),
    Serving(Arc<Generation>),
}

impl Current {
    fn serving(&self) -> Option<&Generation> {
        match self {
            Self::Serving(generation) => Some(generation),
            Self::NotServing(_) => None,
        }
    }
}

/// What only the configuration's side touches.
#[derive(Default)]
struct Writer {
    latest: Option<Arc<ServerSnapshot>>,
    transport_only: bool,
    /// Whether bodies are those of another server, which filters cannot read.
    split: bool,
    /// Whether the latest could not be built, and an older one is in force in its place.
    behind: bool,
}

impl InboundSlot {
    /// A slot for a server that is bound to `address` and whose Listener resource is called `target`. It is not serving
    /// until a configuration is applied.
    pub fn new(target: Name, address: SocketAddr, options: InboundOptions) -> Arc<Self> {
        Self::owned(target, address, options, None)
    }

    /// The same; it keeps `owner` alive.
    pub(crate) fn owned(target: Name, address: SocketAddr, options: InboundOptions, owner: Option<Owner>) -> Arc<Self> {
        let waiting = Error::new(Code::NOT_SERVING, format!("{address} is waiting for its Listener, `{target}`"))
            .with_next_step("check that the control plane serves this Listener to this node");
        Arc::new(Self {
            target,
            address,
            options,
            state: watch::Sender::new(ServingState::NotServing(waiting.clone())),
            current: ArcSwap::from_pointee(Current::NotServing(waiting)),
            shutdown: watch::Sender::new(None),
            loops: watch::Sender::new(0),
            writer: Mutex::default(),
            number: number(),
            calls: Arc::default(),
            connections: Mutex::default(),
            _owner: owner,
        })
    }

    /// The name of its Listener resource.
    pub fn target(&self) -> &Name {
        &self.target
    }

    /// The address it is for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number, which nothing else in the process has.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Counts its requests.
    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Lists a connection as long as it lives.
    pub(crate) fn list(&self, peer: &PeerInfo) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        // Looking for those that are gone is paid for by those that came.
        if connections.len() == connections.capacity() {
            connections.retain(|(_, peer)| peer.is_alive());
        }
        connections.push((number(), peer.downgrade()));
    }

    /// The connections that it has, in the order in which they came, with their numbers.
    pub(crate) fn connections(&self) -> Vec<(u64, PeerInfo)> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().filter_map(|(number, peer)| Some((*number, peer.upgrade()?))).collect()
    }

    /// Closes the connections of clients that are revoked by now.
    pub(crate) fn sweep(&self) {
        let current = self.current.load();
        for (_, peer) in self.connections() {
            peer.connection().judge(&current);
        }
    }

    /// How it treats connections.
    pub fn options(&self) -> &InboundOptions {
        &self.options
    }

    /// Whether it serves now.
    pub fn state(&self) -> ServingState {
        self.state.borrow().clone()
    }

    /// Waits until it serves.
    pub async fn serving(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`: the wait ends in a value or not at all.
        let _ = state.wait_for(|state| matches!(state, ServingState::Serving { .. })).await;
    }

    /// Puts `snapshot` in force.
    ///
    /// When only route tables changed they are swapped under the connections that are there. When the Listener changed, new
    /// connections get the new one, and those of the old one are drained, but for those of filter chains that are the same, byte
    /// by byte, where connections are matched to chains as before. A configuration that cannot be built (a filter that
    /// this server does not have, an override that is not the filter's, a file of keys that is not there) changes nothing:
    /// what is in force stays, routes included, and a log line says why. As with a resource that is refused, the last good
    /// configuration beats half of a new one. Before the first good one the address is not serving, and neither is it under a
    /// Listener of another address, or one with policy that nobody would apply.
    pub fn apply(&self, snapshot: Arc<ServerSnapshot>) {
        let mut writer = self.lock();
        if let Err(error) = self.put_in_force(&snapshot, &mut writer) {
            self.keep_or_stop(error, &snapshot, &mut writer);
        }
        writer.latest = Some(snapshot);
    }

    /// Stops serving: there is no valid configuration any more. Connections are drained, new ones are closed.
    pub fn fail(&self, error: Error) {
        let mut writer = self.lock();
        (writer.latest, writer.behind) = (None, false);
        self.stop(error);
    }

    /// From now on connections are served without the inbound layer, so a Listener that says something about requests
    /// cannot be honoured.
    pub(crate) fn set_transport_only(&self) {
        let mut writer = self.lock();
        writer.transport_only = true;
        self.look_again(&mut writer);
    }

    /// From now on bodies are those of another server, so a Listener whose filters read them cannot be honoured.
    pub(crate) fn set_split(&self) {
        let mut writer = self.lock();
        writer.split = true;
        self.look_again(&mut writer);
    }

    /// Stops accepting and drains every connection; what is left at `deadline` is closed.
    pub fn shutdown(&self, deadline: Instant) {
        self.shutdown.send_replace(Some(deadline));
    }

    /// When the server must be gone; None while nobody asked for that.
    pub(crate) fn shutdown_deadline(&self) -> Option<Instant> {
        *self.shutdown.borrow()
    }

    /// Resolves when the server is asked to go, to the time when it must be gone.
    pub(crate) async fn shutting_down(&self) -> Instant {
        let mut asked = self.shutdown.subscribe();
        loop {
            if let Some(deadline) = *asked.borrow_and_update() {
                return deadline;
            }
            if asked.changed().await.is_err() {
                // Cannot be: the sender lives in `self`.
                return Instant::now();
            }
        }
    }

    /// Waits until nothing is served any more: after [`shutdown`](Self::shutdown), at its deadline at the latest.
    pub async fn ended(&self) {
        let mut loops = self.loops.subscribe();
        // The sender lives in `self`: the wait ends in a value.
        let _ = loops.wait_for(|loops| *loops == 0).await;
    }

    /// Counts an accept loop as long as the guard lives.
    pub(crate) fn enter(self: &Arc<Self>) -> LoopGuard {
        self.loops.send_modify(|loops| *loops += 1);
        LoopGuard(self.clone())
    }

    pub(crate) fn current(&self) -> arc_swap::Guard<Arc<Current>> {
        self.current.load()
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic of a callback must not keep configuration from being applied.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges the latest configuration by what the server has become. What was in force was built for another kind of server:
    /// it does not stay.
    fn look_again(&self, writer: &mut Writer) {
        let Some(snapshot) = writer.latest.clone() else { return };
        if let Err(error) = self.put_in_force(&snapshot, writer) {
            self.stop(error.with_config_version(snapshot.version));
        }
    }

    /// Stops at once under a configuration that is not for this server; the error is of one that cannot be built.
    fn put_in_force(&self, snapshot: &Arc<ServerSnapshot>, writer: &mut Writer) -> Result<(), Error> {
        if let Err(error) = config::check(snapshot, self.address, writer.transport_only, self.options.default_deny) {
            writer.behind = false;
            self.stop(error.with_config_version(snapshot.version));
            return Ok(());
        }
        self.build(snapshot, writer.split)?;
        if std::mem::take(&mut writer.behind) {
            tracing::info!(target: "mesh", "{}: updates of `{}` are put in force again", self.address, self.target);
        }
        Ok(())
    }

    fn build(&self, snapshot: &Arc<ServerSnapshot>, split: bool) -> Result<(), Error> {
        let filters = self.options.filters.with_bodies(!split);
        let current = self.current.load();
        let old = current.serving();
        if let Some(old) = old.filter(|old| old.is_of(snapshot)) {
            return old.update_routes(snapshot, &filters);
        }
        self.start(Generation::new(snapshot, self.address, &self.options, &filters, old)?);
        Ok(())
    }

    /// What is in force stays, if anything is. The control plane was told that the new one is good: our log must say that it
    /// is not.
    fn keep_or_stop(&self, error: Error, snapshot: &ServerSnapshot, writer: &mut Writer) {
        let current = self.current.load();
        let Some(old) = current.serving() else {
            return self.stop(error.with_config_version(snapshot.version));
        };
        writer.behind = true;
        let (address, target, version, kept) = (self.address, &self.target, snapshot.version, old.version());
        tracing::warn!(
            target: "mesh",
            "{address}: version {version} of `{target}` cannot be put in force, and version {kept} stays: {error}"
        );
    }

    fn start(&self, generation: Generation) {
        let version = generation.version();
        self.replace(Current::Serving(Arc::new(generation)));
        self.sweep();
        let was_serving = matches!(&*self.state.borrow(), ServingState::Serving { .. });
        self.announce(ServingState::Serving { version }, !was_serving);
    }

    fn stop(&self, error: Error) {
        let again = match &*self.state.borrow() {
            ServingState::NotServing(old) => old.to_string() == error.to_string(),
            ServingState::Serving { .. } => false,
        };
        self.replace(Current::NotServing(error.clone()));
        self.announce(ServingState::NotServing(error), !again);
    }

    fn replace(&self, current: Current) {
        let current = Arc::new(current);
        if let Some(old) = self.current.swap(current.clone()).serving() {
            old.drain(current.serving());
        }
    }

    fn announce(&self, state: ServingState, changed: bool) {
        self.state.send_replace(state.clone());
        if changed {
            (self.options.on_change)(&ServingChange { address: self.address, state });
        }
    }
}

/// An accept loop that runs.
pub(crate) struct LoopGuard(Arc<InboundSlot>);

impl Drop for LoopGuard {
    fn drop(&mut self) {
        self.0.loops.send_modify(|loops| *loops -= 1);
    }
}

impl fmt::Debug for InboundSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundSlot")
            .field("address", &self.address)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
