//! The seam to TLS: a policy becomes an acceptor, and an acceptor makes a handshake.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use mesh_core::chain::FirstBytes;
use mesh_core::error::{Code, Error};
use mesh_core::identity::PeerIdentity;
use mesh_core::model::DownstreamTls;
use tokio::sync::watch;

use crate::io::BoxStream;

/// Makes TLS acceptors from the policies of filter chains.
pub(crate) trait InboundTls: Send + Sync + fmt::Debug {
    /// An acceptor that does what `policy` says. Certificates are asked for at each handshake, not here.
    ///
    /// # Errors
    ///
    /// The policy cannot be honoured: connections that need it are closed.
    fn acceptor(&self, policy: &Arc<DownstreamTls>) -> Result<Arc<dyn TlsAcceptor>, Error>;

    /// Reads what a client asks for as its first bytes come. By default it can't.
    fn hello_reader(&self) -> HelloReader {
        Box::new(|_| Err(Error::new(Code::NO_CERTIFICATE, "the client begins TLS, and there is none here")))
    }

    /// Changes when clients that were let in may be revoked by now.
    fn revocations(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
}

/// Makes TLS handshakes, server side.
pub(crate) trait TlsAcceptor: Send + Sync {
    /// Takes a connection through the handshake.
    ///
    /// # Errors
    ///
    /// The handshake failed, or there is no certificate to show: the connection is closed.
    fn accept(&self, io: BoxStream) -> BoxedAccept;

    /// Why a client that was let in may not stay: its certificate is revoked. None: it may.
    fn revoked(&self, _client: &PeerIdentity) -> Option<Error> {
        None
    }
}

/// What a handshake gives.
pub(crate) struct Accepted {
    /// The connection, TLS taken off.
    pub(crate) io: BoxStream,
    /// What the client has said of itself.
    pub(crate) client: TlsClient,
}

/// What a client says in a handshake; nothing without one.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsClient {
    /// Who it is; None: it has shown no certificate, and need not.
    pub(crate) identity: Option<PeerIdentity>,
    /// The server name that it asked for.
    pub(crate) server_name: Option<Box<str>>,
    /// The SHA-256 of its certificate, in hexadecimal.
    pub(crate) hash: Option<Box<str>>,
    /// The URIs of the certificate that it was shown.
    pub(crate) shown_uris: Arc<[String]>,
}

impl Accepted {
    /// A connection whose client has not said who it is.
    pub(crate) fn anonymous(io: BoxStream) -> Self {
        Self { io, client: TlsClient::default() }
    }
}

/// Takes the bytes of a ClientHello as they come; None: it is not whole yet.
pub(crate) type HelloReader = Box<dyn FnMut(&[u8]) -> Result<Option<FirstBytes>, Error> + Send>;

/// A handshake under way.
pub(crate) type BoxedAccept = Pin<Box<dyn Future<Output = Result<Accepted, Error>> + Send>>;

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
