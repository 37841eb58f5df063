//! The seam to TLS: a policy becomes an acceptor, and an acceptor makes a handshake.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::model::DownstreamTls;

use crate::io::BoxStream;

/// Makes TLS acceptors from the policies of filter chains.
pub(crate) trait InboundTls: Send + Sync + fmt::Debug {
    /// An acceptor that does what `policy` says. Certificates are asked for at each handshake, not here.
    ///
    /// # Errors
    ///
    /// The policy cannot be honoured: connections that need it are closed.
    fn acceptor(&self, policy: &Arc<DownstreamTls>) -> Result<Arc<dyn TlsAcceptor>, Error>;
}

/// Makes TLS handshakes, server side.
pub(crate) trait TlsAcceptor: Send + Sync {
    /// Takes a connection through the handshake.
    ///
    /// # Errors
    ///
    /// The handshake failed, or there is no certificate to show: the connection is closed.
    fn accept(&self, io: TlsIo) -> BoxedAccept;
}

/// What a handshake takes and gives: a byte stream.
pub(crate) struct TlsIo(pub(crate) BoxStream);

/// A handshake under way.
pub(crate) type BoxedAccept = Pin<Box<dyn Future<Output = Result<TlsIo, Error>> + Send>>;

impl fmt::Debug for TlsIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIo")
    }
}

/// No TLS at all: what demands it is closed.
#[derive(Debug)]
pub(crate) struct NoTls;

impl InboundTls for NoTls {
    fn acceptor(&self, policy: &Arc<DownstreamTls>) -> Result<Arc<dyn TlsAcceptor>, Error> {
        let instance = &policy.identity.instance;
        Err(Error::new(
            Code::NO_CERTIFICATE,
            format!("the filter chain demands TLS with certificate provider `{instance}`"),
        ))
    }
}
