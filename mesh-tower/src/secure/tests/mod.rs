//! Handshakes over real sockets, both ends ours, with certificates made here.

mod authorities;
mod checks;
#[cfg(feature = "tls-aws-lc")]
mod cost;
mod demands;
mod domains;
mod judging;
mod malformed;
mod names;
mod plaintext;
mod resuming;
mod revoking;
mod rotating;
mod signatures;
mod sni;
#[cfg(feature = "tls-aws-lc")]
pub(crate) mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::error::Error;
use mesh_core::identity::StaticSource;
use mesh_core::model::{DownstreamTls, UpstreamTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::testing::{Leaf, secure};
use super::{Alpn, ClientTls, Secured};
use crate::inbound::{Accepted, InboundTls, TlsAcceptor};

const CLIENT: &str = "spiffe://mesh.test/ns/a/sa/client";
const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";

fn client_leaf() -> Leaf {
    Leaf::workload(CLIENT)
}

fn server_leaf() -> Leaf {
    Leaf::workload(SERVER)
}

fn client_of(source: &Arc<StaticSource>, policy: UpstreamTls) -> ClientTls {
    secure(source).client(&Arc::new(policy), Alpn::Either)
}

fn server_of(source: &Arc<StaticSource>, policy: DownstreamTls) -> Arc<dyn TlsAcceptor> {
    secure(source).acceptor(&Arc::new(policy)).unwrap()
}

/// A connection over loopback: the client's end, its address for the client, and the server's end.
async fn sockets() -> (TcpStream, SocketAddr, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    (client, address, listener.accept().await.unwrap().0)
}

/// What one handshake comes to at either end.
struct Outcome {
    client: Result<Secured, Error>,
    server: Result<Accepted, Error>,
}

/// Makes a handshake with an endpoint of this host name.
async fn shake_with(client: &ClientTls, server: &Arc<dyn TlsAcceptor>, hostname: Option<&str>) -> Outcome {
    let (near, address, far) = sockets().await;
    let (client, server) =
        tokio::join!(client.connect(Box::new(near), hostname, address), server.accept(Box::new(far)));
    Outcome { client, server }
}

async fn shake(client: &ClientTls, server: &Arc<dyn TlsAcceptor>) -> Outcome {
    shake_with(client, server, None).await
}

impl Outcome {
    /// Both ends, which must both be content.
    fn both(self) -> (Secured, Accepted) {
        let server = self.server.unwrap_or_else(|error| panic!("the server refuses: {error}"));
        (self.client.unwrap(), server)
    }

    fn client_error(self) -> Error {
        self.client.err().unwrap()
    }

    /// Why the server refuses. The client must have got nothing that it could take for an answer.
    async fn server_error(self) -> Error {
        let error = self.server.err().unwrap();
        // In TLS 1.3 a client is done before the server has judged it, and learns the judgement when it reads.
        if let Ok(mut secured) = self.client {
            secured.io.read_u8().await.unwrap_err();
        }
        error
    }
}

/// Sends a byte each way.
async fn ping(client: &mut Secured, server: &mut Accepted) {
    client.io.write_u8(1).await.unwrap();
    client.io.flush().await.unwrap();
    assert_eq!(server.io.read_u8().await.unwrap(), 1);
    server.io.write_u8(2).await.unwrap();
    server.io.flush().await.unwrap();
    assert_eq!(client.io.read_u8().await.unwrap(), 2);
}

/// The SPIFFE ID of a peer.
fn id(peer: Option<&mesh_core::identity::PeerIdentity>) -> Option<&str> {
    peer?.spiffe_id().map(mesh_core::identity::SpiffeId::as_str)
}
