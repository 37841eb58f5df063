//! Where connections come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::error::{Code, Error};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs};
use tokio::sync::{Mutex, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::grpc;
use super::plane::Shared;

/// How long the loop rests when accepting fails, for instance because there are too many open files.
const REST: Duration = Duration::from_millis(100);

/// An address that can be closed and opened again.
pub(super) struct Door {
    address: SocketAddr,
    state: Mutex<DoorState>,
}

enum DoorState {
    /// Dropping the sender ends the task.
    Open { stop: oneshot::Sender<()>, task: JoinHandle<()> },
    /// The socket is bound and does not listen: connections are refused, and nobody else gets the port.
    Closed { _reserved: Option<TcpSocket> },
}

impl Door {
    pub(super) async fn open(
        address: impl ToSocketAddrs + std::fmt::Display,
        shared: &Arc<Shared>,
    ) -> Result<Self, Error> {
        let name = address.to_string();
        let failed = |error| cannot_listen(&name, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(target: "mesh", "the control plane on {address} is for development: anyone who reaches it reads \
                the configuration");
        }
        Ok(Self { address, state: Mutex::new(start(listener, shared.clone())) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection too, and waits until that is done.
    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        if matches!(*state, DoorState::Closed { .. }) {
            return;
        }
        if let DoorState::Open { stop, task } = std::mem::replace(&mut *state, DoorState::Closed { _reserved: None }) {
            drop(stop);
            // It neither panics nor is aborted; were it so, it would be over all the same.
            let _ = task.await;
        }
        *state = DoorState::Closed { _reserved: reserve(self.address).ok() };
    }

    pub(super) async fn reopen(&self, shared: &Arc<Shared>) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if matches!(*state, DoorState::Closed { .. }) {
            let listener = TcpListener::bind(self.address).await;
            let listener = listener.map_err(|error| cannot_listen(&self.address.to_string(), error))?;
            *state = start(listener, shared.clone());
        }
        Ok(())
    }
}

fn cannot_listen(address: &str, error: std::io::Error) -> Error {
    Error::new(Code::BIND, format!("the control plane cannot listen on {address}: {error}")).with_source(error)
}

/// Two sockets may be bound to one address as long as neither listens and both allow it.
fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn start(listener: TcpListener, shared: Arc<Shared>) -> DoorState {
    let (stop, stopped) = oneshot::channel();
    DoorState::Open { stop, task: tokio::spawn(accept(listener, stopped, shared)) }
}

async fn accept(listener: TcpListener, mut stopped: oneshot::Receiver<()>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((io, peer)) => {
                    connections.spawn(serve(io, peer, shared.clone()));
                }
                Err(error) => {
                    tracing::warn!(target: "mesh", "the control plane cannot accept a connection: {error}");
                    sleep(REST).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(io: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    // A push is small and must not wait for the one before it; where it cannot be set, it is only slower.
    let _ = io.set_nodelay(true);
    let service = service_fn(|request| {
        let response = grpc::respond(request, peer, &shared);
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    if let Err(error) = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await {
        tracing::debug!(target: "mesh", "the connection of {peer} broke: {error}");
    }
}
