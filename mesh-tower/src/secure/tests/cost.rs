//! What a full handshake costs beside one of bare rustls with webpki's verifiers.
//!
//! `.ci/numbers` runs [`counted_handshakes`] under callgrind, which counts the instructions inside [`instructions_of`] only: those of one
//! side. Both kinds of ends have the same cryptography, certificates, ALPN, and stores of sessions.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use mesh_core::model::{DownstreamTls, SanKind, UpstreamTls};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor as BareServer, TlsConnector as BareClient};

use super::super::testing::{Ca, Leaf, crypto, downstream, exactly, source, upstream};
use super::{CLIENT, SERVER, client_of, server_of};
use crate::inbound::TlsAcceptor;
use crate::secure::ClientTls;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

enum Client {
    Mesh(ClientTls),
    Bare(BareClient),
}

enum Server {
    Mesh(Arc<dyn TlsAcceptor>),
    Bare(BareServer),
}

impl Client {
    /// A handshake with a server of this name, and one byte: tickets come before it.
    async fn connect(&self, io: DuplexStream, name: String) {
        match self {
            Self::Mesh(tls) => {
                let mut secured = tls.connect(Box::new(io), Some(&name), ADDRESS).await.unwrap();
                assert!(secured.peer.is_some());
                secured.io.read_u8().await.unwrap();
            }
            Self::Bare(tls) => {
                let mut stream = tls.connect(ServerName::try_from(name).unwrap(), io).await.unwrap();
                stream.read_u8().await.unwrap();
            }
        }
    }
}

impl Server {
    async fn accept(&self, io: DuplexStream) {
        match self {
            Self::Mesh(tls) => {
                let mut accepted = tls.accept(Box::new(io)).await.unwrap();
                assert!(accepted.client.identity.is_some());
                accepted.io.write_u8(1).await.unwrap();
                accepted.io.flush().await.unwrap();
            }
            Self::Bare(tls) => {
                let mut stream = tls.accept(io).await.unwrap();
                stream.write_u8(1).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    }
}

/// Ends of both kinds, with certificates of one authority.
struct Ends {
    ca: Ca,
    client_leaf: Leaf,
    server_leaf: Leaf,
}

impl Ends {
    fn new() -> Self {
        let server_leaf = Leaf { dns: vec!["*.mesh.test"], ..Leaf::workload(SERVER) };
        Self { ca: Ca::new(), client_leaf: Leaf::workload(CLIENT), server_leaf }
    }

    fn client(&self, kind: &str) -> Client {
        if kind == "mesh" {
            let sans = vec![exactly(SanKind::Uri, SERVER)];
            let policy = UpstreamTls { sans, auto_host_sni: true, alpn: vec!["h2".to_owned()], ..upstream() };
            return Client::Mesh(client_of(&source(&self.ca, &self.client_leaf), policy));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots(), crypto()).build().unwrap();
        let (chain, key) = self.issue(&self.client_leaf);
        let mut config = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Client::Bare(Arc::new(config).into())
    }

    fn server(&self, kind: &str) -> Server {
        if kind == "mesh" {
            let policy = DownstreamTls { sans: vec![exactly(SanKind::Uri, CLIENT)], ..downstream() };
            return Server::Mesh(server_of(&source(&self.ca, &self.server_leaf), policy));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), crypto()).build().unwrap();
        let (chain, key) = self.issue(&self.server_leaf);
        let mut config = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Server::Bare(Arc::new(config).into())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.root()).unwrap();
        Arc::new(roots)
    }

    fn issue(&self, leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (certificate, key) = self.ca.issue(leaf);
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// A future whose instructions count.
struct Counted<F>(F, bool);

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let counts = self.1;
        let future = Pin::new(&mut self.0);
        if counts { instructions_of(future, cx) } else { future.poll(cx) }
    }
}

/// What callgrind knows by its name.
#[inline(never)]
fn instructions_of<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

/// So many handshakes. Each is a full one: no two are with a server of the same name.
async fn shake(client: &Client, server: &Server, number: usize, side: &str) {
    for round in 0..number {
        let (near, far) = duplex(64 << 10);
        let connect = Counted(pin!(client.connect(near, format!("n{round:05}.mesh.test"))), side == "client");
        let accept = Counted(pin!(server.accept(far)), side == "server");
        tokio::join!(connect, accept);
    }
}

#[tokio::test]
async fn ends_of_the_mesh_and_of_bare_rustls_shake_hands() {
    let ends = Ends::new();
    for (client, server) in [("mesh", "mesh"), ("mesh", "bare"), ("bare", "mesh"), ("bare", "bare")] {
        shake(&ends.client(client), &ends.server(server), 2, "").await;
    }
}

/// `HANDSHAKES="client|server mesh|bare NUMBER"`: which side is counted, what it is, and how many there are. The other side is
/// bare.
#[tokio::test]
#[ignore = "a program for an instrument: .ci/numbers"]
async fn counted_handshakes() {
    let asked = std::env::var("HANDSHAKES").unwrap();
    let [side, kind, number] = asked.split(' ').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let other = |own| if side == own { kind } else { "bare" };
    let ends = Ends::new();
    shake(&ends.client(other("client")), &ends.server(other("server")), number.parse().unwrap(), side).await;
}
