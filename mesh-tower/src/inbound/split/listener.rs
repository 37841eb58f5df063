//! The listener half: a stream of connections that have their filter chain and their TLS behind them.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::{Half, MeshIo};
use crate::inbound::accept::{Acceptor, Deliver, Place, run};
use crate::inbound::identify::PeerInfo;
use crate::inbound::serve::ending;
use crate::inbound::slot::InboundSlot;
use crate::io::BoxStream;

/// Connections that are ready and wait for the application's server.
const WAITING: usize = 64;

/// Accepts connections under a Listener's filter chains and mTLS, for a server of the application's choice.
///
/// It begins when it is first asked for a connection, on the runtime that asks.
pub struct MeshListener {
    slot: Arc<InboundSlot>,
    half: Option<Arc<Half>>,
    state: State,
}

enum State {
    Idle(Option<TcpListener>),
    Running { ready: mpsc::Receiver<MeshIo>, task: AbortHandle },
}

impl MeshListener {
    pub(super) fn new(slot: Arc<InboundSlot>, listener: TcpListener, half: Option<Arc<Half>>) -> Self {
        Self { slot, half, state: State::Idle(Some(listener)) }
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.slot.address()
    }

    /// The next connection; None once the server is shut down.
    pub async fn accept(&mut self) -> Option<MeshIo> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<MeshIo>> {
        loop {
            match &mut self.state {
                State::Running { ready, .. } => return ready.poll_recv(cx),
                State::Idle(listener) => {
                    let Some(listener) = listener.take() else { return Poll::Ready(None) };
                    let (sender, ready) = mpsc::channel(WAITING);
                    let acceptor = Acceptor::new(self.slot.clone());
                    let deliver = ToServer { ready: sender, half: self.half.clone() };
                    let task = tokio::spawn(run(listener, acceptor, deliver)).abort_handle();
                    self.state = State::Running { ready, task };
                }
            }
        }
    }
}

impl Stream for MeshListener {
    type Item = std::io::Result<MeshIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(cx).map(|io| io.map(Ok))
    }
}

impl Drop for MeshListener {
    fn drop(&mut self) {
        if let State::Running { task, .. } = &self.state {
            task.abort();
        }
    }
}

impl fmt::Debug for MeshListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshListener").field("address", &self.local_addr()).finish_non_exhaustive()
    }
}

/// Hands connections to the application's server, and breaks those whose time is over.
#[derive(Clone)]
struct ToServer {
    ready: mpsc::Sender<MeshIo>,
    half: Option<Arc<Half>>,
}

impl Deliver for ToServer {
    async fn deliver(self, io: BoxStream, peer: PeerInfo, mut place: Place) {
        let Self { ready, half } = self;
        let (mut kill, killed) = oneshot::channel();
        let sent = place.kept(ready.send(MeshIo::split(io, peer.clone(), half, killed))).await;
        if sent.is_none_or(|sent| sent.is_err()) {
            return;
        }
        drop((ready, place));
        let grace = peer.connection().slot.options().drain_grace;
        let over = async { sleep_until(ending(&peer, grace).await).await };
        tokio::select! {
            () = kill.closed() => {}
            () = over => {
                // An error: the connection has ended at the same moment.
                let _ = kill.send(());
            }
        }
    }
}
