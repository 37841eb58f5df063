//! From an endpoint to a stream of bytes: TCP, or the application's connector.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use mesh_core::model::Endpoint;
use tower_service::Service;

use super::BoxFuture;
use super::first::first_of;
use super::hops::Hops;
use super::tcp::TcpKeepalive;
use crate::BoxError;
use crate::io::BoxStream;

/// Opens streams to endpoints. TLS and HTTP run above it.
pub(crate) trait Dial: Send + Sync + fmt::Debug {
    /// Opens a stream to `endpoint` through `hops`.
    fn dial<'a>(&'a self, endpoint: &'a Endpoint, hops: &'a Hops) -> BoxFuture<'a, io::Result<BoxStream>>;
}

// ===== TCP =====

/// TCP connections of our own.
#[derive(Debug)]
pub(crate) struct TcpDial {
    keepalive: Option<TcpKeepalive>,
}

impl TcpDial {
    pub(crate) const fn new(keepalive: Option<TcpKeepalive>) -> Self {
        Self { keepalive }
    }
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint, hops: &'a Hops) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = first_of(hops.first(endpoint), self.keepalive).await?;
            hops.pass(Box::new(stream), endpoint.address).await
        })
    }
}

// ===== the application's connector =====

/// Streams from a service of the application, which takes `http://address:port` as tonic's `connect_with_connector` does.
pub(crate) struct ServiceDial<C>(Mutex<C>);

impl<C> ServiceDial<C> {
    pub(crate) const fn new(connector: C) -> Self {
        Self(Mutex::new(connector))
    }
}

impl<C> fmt::Debug for ServiceDial<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceDial")
    }
}

impl<C> Dial for ServiceDial<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Response: Read + Write + Unpin + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    fn dial<'a>(&'a self, endpoint: &'a Endpoint, hops: &'a Hops) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for address in hops.first(endpoint) {
                // A clone of its own, so that one dial's readiness is never another's.
                let connector = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                match call(connector, address).await {
                    Ok(io) => return hops.pass(Box::new(TokioIo::new(io)), endpoint.address).await,
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        })
    }
}

async fn call<C>(mut connector: C, address: SocketAddr) -> io::Result<C::Response>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
{
    let uri = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/")
        .build()
        .map_err(io::Error::other)?;
    std::future::poll_fn(|cx| connector.poll_ready(cx)).await.map_err(io_error)?;
    connector.call(uri).await.map_err(io_error)
}

fn io_error(error: impl Into<BoxError>) -> io::Error {
    match error.into().downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => io::Error::other(error),
    }
}
