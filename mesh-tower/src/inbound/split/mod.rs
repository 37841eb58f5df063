//! The split form: a listener for `axum::serve`, tonic and hyper, and the layer that applies the Listener's rules.
//!
//! Either half without the other refuses requests. The layer refuses what did not come over its listener. The listener's
//! connections break while the layer is installed nowhere, and they hold back their first response until the layer has seen
//! a request of theirs: that is how routes are found out that were added outside the layer. This guards against mistakes,
//! not against the application's own code.

#[cfg(feature = "axum")]
mod axum;
mod gate;
mod half;
mod io;
mod listener;
#[cfg(feature = "tonic-server")]
mod tonic;
mod watch;

use std::io as stdio;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use tokio::net::TcpListener;

use super::layer::InboundLayer;
use super::slot::InboundSlot;
pub(crate) use half::Half;
pub use io::MeshIo;
pub use listener::MeshListener;

/// Listens on `address`; port 0 is any. The socket's address names the Listener resource, so it is bound first.
///
/// # Errors
///
/// [`Code::BIND`]: the address is in use, is not this machine's, or may not be used.
pub async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok::<_, stdio::Error>((listener, address))
    };
    bound.await.map_err(|error| Error::new(Code::BIND, format!("{address}: {error}")).with_source(error))
}

/// A bound address that nothing is served on yet.
#[derive(Debug)]
pub struct Bound {
    slot: Arc<InboundSlot>,
    listener: TcpListener,
}

impl Bound {
    /// A bound address with its configuration.
    pub fn new(slot: Arc<InboundSlot>, listener: TcpListener) -> Self {
        Self { slot, listener }
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.slot.address()
    }

    /// Its configuration.
    pub fn slot(&self) -> &Arc<InboundSlot> {
        &self.slot
    }

    /// Its parts, for [`serve`](crate::inbound::serve()).
    pub fn into_parts(self) -> (Arc<InboundSlot>, TcpListener) {
        (self.slot, self.listener)
    }

    /// The listener for a server of the application's choice, and the layer for its requests. They go together.
    pub fn split(self) -> (MeshListener, InboundLayer) {
        self.slot.set_split();
        let half = Arc::new(Half::default());
        let layer = InboundLayer::new(self.slot.clone(), Some(half.clone()));
        (MeshListener::new(self.slot, self.listener, Some(half)), layer)
    }

    /// A listener without a layer: filter chains and mTLS, and nothing about requests. A Listener that has HTTP filters, or
    /// routes that do not simply take every request, is not served.
    pub fn transport_only(self) -> MeshListener {
        self.slot.set_transport_only();
        MeshListener::new(self.slot, self.listener, None)
    }
}
