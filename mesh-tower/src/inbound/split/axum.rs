//! `axum::serve` on a mesh listener.

use std::io;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};

use super::{MeshIo, MeshListener};
use crate::inbound::identify::PeerInfo;

impl Listener for MeshListener {
    type Io = MeshIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (MeshIo, SocketAddr) {
        match Self::accept(self).await {
            Some(io) => {
                let peer = io.peer().remote_addr();
                (io, peer)
            }
            // Shut down: nothing more will come, and axum has no way to be told so.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }
}

impl Connected<IncomingStream<'_, MeshListener>> for PeerInfo {
    fn connect_info(stream: IncomingStream<'_, MeshListener>) -> Self {
        stream.io().peer().clone()
    }
}
