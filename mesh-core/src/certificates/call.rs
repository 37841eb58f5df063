//! A call with one request: its responses, one after the other.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;

use crate::ads::{ControlStream, ControlTransport, TransportError};
use crate::bootstrap::ServerConfig;

/// A call under way. Dropping it cancels it.
pub(super) struct Call(Box<dyn ControlStream>);

impl Call {
    /// Sends `request` to the method `path` of `server`. The connection may take `patience`.
    pub(super) async fn start(
        transport: &dyn ControlTransport,
        server: &ServerConfig,
        path: &str,
        request: Bytes,
        patience: Duration,
    ) -> Result<Self, TransportError> {
        let started = async {
            let mut stream = transport.open(server, path).await?;
            poll_fn(|cx| stream.poll_ready(cx)).await?;
            stream.send(request);
            stream.finish();
            Ok(Self(stream))
        };
        let slow = |_| TransportError::new(format!("no connection within {patience:?}"));
        tokio::time::timeout(patience, started).await.map_err(slow)?
    }

    /// The next response; None: the server ended the call with status OK.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        poll_fn(|cx| self.0.poll_receive(cx)).await.transpose()
    }
}
