//! The seam between the stream engine and the bytes' way to a server.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::bootstrap::ServerConfig;

/// The method of state-of-the-world ADS.
pub const AGGREGATED_RESOURCES: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// The method of incremental ADS.
pub const DELTA_AGGREGATED_RESOURCES: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The method of state-of-the-world SDS.
pub const STREAM_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
/// The method of incremental SDS.
pub const DELTA_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";

/// A stream that is being opened.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn ControlStream>, TransportError>> + Send>>;

/// Opens streams to control planes. `mesh-tower` has one over HTTP/2 and TLS; the memory and file sources have one that
/// stays in the process.
pub trait ControlTransport: Send + Sync {
    /// Opens a bidirectional stream of the gRPC method `path` to `server`.
    ///
    /// It is open as soon as the connection stands and the call has started. The response's head must not be waited for:
    /// many servers send it only with their first message, and that one answers a request of ours. A server that refuses
    /// the call shows as an error of [`ControlStream::poll_receive`].
    ///
    /// The future may be dropped at any time; that cancels the call.
    fn open(&self, server: &ServerConfig, path: &str) -> Opening;
}

/// An open stream of gRPC messages, without their five-byte prefix. Dropping it cancels the call.
pub trait ControlStream: Send {
    /// Whether a message can be taken: whether the ones before it are on their way.
    ///
    /// # Errors
    ///
    /// When the stream is broken.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Takes a message; only after [`poll_ready`](Self::poll_ready) was ready. What happens to it then shows as an error of
    /// the other two methods.
    fn send(&mut self, message: Bytes);

    /// No more is sent, after what was. A call that has one request must say so: servers wait for it. Discovery never does.
    fn finish(&mut self);

    /// The next message; None: the server ended the stream with status OK. Nothing may be read ahead beyond what HTTP/2
    /// needs: a slow reader must slow the server. Messages of any size pass.
    ///
    /// # Errors
    ///
    /// When the stream is broken, or the server ended it with another status.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>>;
}

/// Why a stream cannot be opened, or broke. Its text ends up in front of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// What happened, without the server's address.
    pub reason: String,
}

impl TransportError {
    /// An error with this text.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for TransportError {}
