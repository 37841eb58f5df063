//! The accept loop, and what happens to a connection before its first request.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_core::chain::{ConnectionFacts, FirstBytes};
use mesh_core::error::{Code, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::places::{Place, Places};
use super::{Addresses, InboundIo, InboundListener};
use crate::inbound::config::{Accepted, ChainState, Generation};
use crate::inbound::identify::PeerInfo;
use crate::inbound::slot::{Current, InboundSlot};
use crate::inbound::sniff::{first_record, sniff};
use crate::io::BoxStream;

/// How long the loop rests when accepting fails, for instance because there are too many open files.
const REST: Duration = Duration::from_millis(100);

/// Makes connections ready for their first request.
pub(crate) struct Acceptor {
    pub(crate) slot: Arc<InboundSlot>,
    places: Arc<Places>,
    connections: Option<Arc<Semaphore>>,
    refused_logged: AtomicBool,
}

/// What becomes of a connection that is ready.
pub(crate) trait Deliver: Clone + Send + 'static {
    /// Takes the connection to its end. `place` is dropped when the next connection may take it.
    fn deliver(self, io: BoxStream, peer: PeerInfo, place: Place) -> impl Future<Output = ()> + Send;
}

impl Acceptor {
    pub(crate) fn new(slot: Arc<InboundSlot>) -> Arc<Self> {
        let limits = &slot.options().limits;
        let places = Places::new(limits.max_handshakes, limits.handshake_timeout);
        let connections =
            limits.max_connections.map(|max| Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))));
        Arc::new(Self { slot, places, connections, refused_logged: AtomicBool::new(false) })
    }

    /// Chooses the chain and makes the handshake. None: the connection is closed, and the log says why.
    async fn establish(self: &Arc<Self>, io: impl InboundIo, place: &mut Place) -> Option<(BoxStream, PeerInfo)> {
        let addresses = io.addresses();
        let ready = place.kept(self.secure(io, addresses)).await;
        match ready.unwrap_or_else(|| Err(Error::new(Code::HANDSHAKE, "the client took long, and others wait"))) {
            Ok(ready) => Some(ready),
            Err(error) => {
                self.log_refusal(addresses, &error);
                None
            }
        }
    }

    async fn secure(
        self: &Arc<Self>,
        io: impl InboundIo,
        addresses: Addresses,
    ) -> Result<(BoxStream, PeerInfo), Error> {
        let generation = match &**self.slot.current() {
            Current::Serving(generation) => generation.clone(),
            Current::NotServing(why) => return Err(why.clone()),
        };
        let deadline = Instant::now() + self.slot.options().limits.handshake_timeout;
        let (io, first) = self.sniff(Box::new(io), &generation, deadline).await?;
        let seen = first.as_ref().unwrap_or(FirstBytes::unseen());
        let facts = ConnectionFacts { destination: addresses.local, source: addresses.peer, first: seen };
        let (chain, drain) = generation.select(&facts)?;
        let inspected = first.as_ref().is_some_and(|first| first.tls);
        let Accepted { io, client } = self.handshake(io, &chain, inspected, deadline).await?;
        let peer = PeerInfo::new(addresses, client, first, chain, self.slot.clone(), drain);
        // It may have been revoked during the handshake, before it was listed.
        peer.connection().judge(&self.slot.current());
        Ok((io, peer))
    }

    /// Looks at the first bytes, if the Listener asks for it.
    async fn sniff(
        &self,
        io: BoxStream,
        generation: &Generation,
        deadline: Instant,
    ) -> Result<(BoxStream, Option<FirstBytes>), Error> {
        let Some(inspection) = generation.inspection() else { return Ok((io, None)) };
        let limit = Some(inspection.timeout).filter(|limit| !limit.is_zero());
        let deadline = limit.map_or(deadline, |limit| deadline.min(Instant::now() + limit));
        match timeout_at(deadline, sniff(io, inspection, &self.slot.options().tls)).await {
            Ok(done) => done.map(|(io, first)| (io, Some(first))),
            Err(_) => Err(Error::new(Code::HANDSHAKE, "the client did not say in time what it speaks")),
        }
    }

    /// `inspected`: its first record was seen already.
    async fn handshake(
        &self,
        io: BoxStream,
        chain: &Arc<ChainState>,
        inspected: bool,
        deadline: Instant,
    ) -> Result<Accepted, Error> {
        let Some(tls) = chain.tls.clone()? else { return Ok(Accepted::anonymous(io)) };
        let handshake = async {
            let io = if inspected { Ok(io) } else { first_record(io).await };
            let gone = |error| Error::new(Code::HANDSHAKE, format!("the client is gone: {error}"));
            tls.accept(io.map_err(gone)?).await
        };
        match timeout_at(deadline, handshake).await {
            Ok(done) => done,
            Err(_) => {
                let limit = self.slot.options().limits.handshake_timeout;
                Err(Error::new(Code::HANDSHAKE, format!("the client did not finish its handshake within {limit:?}")))
            }
        }
    }

    /// A flood of refused connections must not become a flood of warnings: the first is one, the rest are for debugging.
    fn log_refusal(&self, addresses: Addresses, error: &Error) {
        let (address, peer) = (self.slot.address(), addresses.peer);
        if self.refused_logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(target: "mesh", "{address} closed a connection from {peer}: {error}");
        } else {
            tracing::warn!(target: "mesh", "{address} closed a connection from {peer} (further ones are logged at debug level): {error}");
        }
    }

    async fn permits(&self) -> (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>) {
        const NEVER_CLOSED: &str = "nobody closes the semaphore";
        let connection = match &self.connections {
            Some(connections) => Some(connections.clone().acquire_owned().await.expect(NEVER_CLOSED)),
            None => None,
        };
        (self.places.free().await, connection)
    }
}

/// Accepts until the slot is shut down, then lets the connections end until the deadline. Dropping the future closes them.
pub(crate) async fn run<L: InboundListener>(mut listener: L, acceptor: Arc<Acceptor>, deliver: impl Deliver) {
    let mut tasks = JoinSet::new();
    let slot = acceptor.slot.clone();
    let _running = slot.enter();
    let mut shutdown = pin!(slot.shutting_down());
    let mut revoking = pin!(revoke(slot.clone()));
    let deadline = loop {
        let next = async {
            let permits = acceptor.permits().await;
            (listener.accept().await, permits)
        };
        tokio::select! {
            biased;
            deadline = shutdown.as_mut() => break deadline,
            () = revoking.as_mut() => {}
            Some(_) = tasks.join_next() => {}
            (accepted, permits) = next => match accepted {
                Ok(io) => {
                    let (place, connection) = permits;
                    let place = acceptor.places.give(place);
                    tasks.spawn(take(acceptor.clone(), io, place, connection, deliver.clone()));
                }
                Err(error) => rest(&acceptor, &error).await,
            },
        }
    };
    drop((listener, deliver));
    drain(tasks, deadline).await;
}

/// Closes connections as their clients are revoked. It never ends.
async fn revoke(slot: Arc<InboundSlot>) {
    let mut changes = slot.options().tls.revocations();
    while changes.changed().await.is_ok() {
        let slot = slot.clone();
        // Judging thousands of certificates must not hold up requests. An error: the runtime is going.
        let _ = tokio::task::spawn_blocking(move || slot.sweep()).await;
    }
    std::future::pending::<()>().await;
}

async fn take(
    acceptor: Arc<Acceptor>,
    io: impl InboundIo,
    mut place: Place,
    connection: Option<OwnedSemaphorePermit>,
    deliver: impl Deliver,
) {
    if let Some((io, peer)) = acceptor.establish(io, &mut place).await {
        deliver.deliver(io, peer, place).await;
    }
    drop(connection);
}

/// What concerns one connection is passed over at once; what concerns the process is given time.
async fn rest(acceptor: &Acceptor, error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    // The last two: the client was gone before its addresses or options were asked for.
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected) {
        return;
    }
    tracing::warn!(target: "mesh", "{} cannot accept: {error}", acceptor.slot.address());
    sleep(REST).await;
}

async fn drain(mut tasks: JoinSet<()>, deadline: Instant) {
    let everything = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        () = everything => {}
        () = sleep_until(deadline) => {}
    }
    // What is left is aborted by the drop.
}
