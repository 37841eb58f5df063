//! Through what a connection goes before it reaches its endpoint, and which connections are alike.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::model::{Endpoint, Name, UpstreamTls};

use super::{BoxFuture, EndpointPlan, WireProtocol};
use crate::io::BoxStream;

/// Something between us and the endpoint that passes bytes on: a proxy that understands CONNECT, or an HBONE tunnel.
///
/// A hop turns a stream to itself into a stream to the next one, so hops nest by being listed one after the other.
pub(crate) trait Hop: Send + Sync + fmt::Debug {
    /// Where it is.
    fn address(&self) -> SocketAddr;

    /// What kind of hop it is and, with [`address`](Self::address), which one: hops with equal keys lead the same way under
    /// the same identity.
    fn key(&self) -> String;

    /// Asks the hop at the other end of `io` to pass bytes on to `next`.
    fn pass(&self, io: BoxStream, next: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>>;
}

/// The hops of a connection, the nearest first. None at all: the endpoint is called directly.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hops(Arc<[Arc<dyn Hop>]>);

impl Hops {
    /// No hop.
    pub(crate) fn direct() -> Self {
        Self::default()
    }

    /// Through `hops`, the nearest first.
    #[cfg(test)]
    pub(crate) fn through(hops: impl IntoIterator<Item = Arc<dyn Hop>>) -> Self {
        Self(hops.into_iter().collect())
    }

    /// Where to connect to: every one of these leads to `endpoint`.
    pub(crate) fn first(&self, endpoint: &Endpoint) -> Vec<SocketAddr> {
        match self.0.first() {
            Some(hop) => vec![hop.address()],
            None => addresses(endpoint).collect(),
        }
    }

    /// Passes every hop: `io` leads to the first address, what is returned to `endpoint`.
    pub(crate) async fn pass(&self, mut io: BoxStream, endpoint: SocketAddr) -> io::Result<BoxStream> {
        for (index, hop) in self.0.iter().enumerate() {
            let next = self.0.get(index + 1).map_or(endpoint, |next| next.address());
            io = hop.pass(io, next).await?;
        }
        Ok(io)
    }
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = SocketAddr> {
    std::iter::once(endpoint.address).chain(endpoint.additional.iter().copied())
}

/// What two connections must have in common before a request may take either: the endpoint, the way there, the protocol, and
/// whom we are and trust.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PoolKey {
    addresses: Vec<SocketAddr>,
    /// It may be the name that TLS asks for.
    hostname: Name,
    hops: Vec<(SocketAddr, String)>,
    protocol: WireProtocol,
    tls: Option<Arc<UpstreamTls>>,
}

impl PoolKey {
    /// The key of the connections of `plan` through `hops`.
    pub(crate) fn new(plan: &EndpointPlan, hops: &Hops) -> Self {
        Self {
            addresses: addresses(&plan.endpoint).collect(),
            hostname: plan.endpoint.hostname.clone(),
            hops: hops.0.iter().map(|hop| (hop.address(), hop.key())).collect(),
            protocol: plan.protocol,
            tls: plan.tls.clone(),
        }
    }
}
