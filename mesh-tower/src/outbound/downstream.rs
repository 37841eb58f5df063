//! The connection that a request was taken from, where the application passes on what a server of the mesh gave it.

use std::net::SocketAddr;

use http::Extensions;
use mesh_core::identity::PeerIdentity;
use mesh_core::route::TlsFacts;

#[cfg(feature = "server")]
use crate::inbound::PeerInfo;

/// The connection that a request was taken from; none if it was made here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Downstream(#[cfg(feature = "server")] Option<PeerInfo>);

#[cfg(feature = "server")]
impl Downstream {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<PeerInfo>().cloned())
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The client's address.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.0.as_ref().map(PeerInfo::remote_addr)
    }

    /// The address the client connected to.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.0.as_ref().map(PeerInfo::local_addr)
    }

    /// Who the client is, as its certificate proves.
    pub(crate) fn peer(&self) -> Option<&PeerIdentity> {
        self.0.as_ref().and_then(PeerInfo::identity)
    }

    /// What routes may ask of its TLS; None is plaintext.
    pub(crate) fn tls(&self) -> Option<TlsFacts> {
        let peer = self.0.as_ref().filter(|peer| peer.is_tls())?;
        // A certificate that is presented and not valid ends the handshake.
        let presented = peer.identity().is_some();
        Some(TlsFacts { presented, validated: presented })
    }
}

/// Without servers every request is made here.
#[cfg(not(feature = "server"))]
impl Downstream {
    pub(crate) fn of(_extensions: &Extensions) -> Self {
        Self()
    }

    pub(crate) fn is_there(&self) -> bool {
        false
    }

    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        None
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        None
    }

    pub(crate) fn peer(&self) -> Option<&PeerIdentity> {
        None
    }

    pub(crate) fn tls(&self) -> Option<TlsFacts> {
        None
    }
}
