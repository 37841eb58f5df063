//! Sessions that are resumed are judged by today's clock: rustls looks at the certificate once, when the session is made.
//!
//! The other end is bare rustls, which says whether a session was resumed, on a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::error::Code;
use mesh_core::identity::{CertificateProviders, StaticSource};
use mesh_core::model::UpstreamTls;
use rcgen::date_time_ymd;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::testing::{Ca, INSTANCE, Leaf, crypto, downstream, trusting, upstream};
use super::{client_leaf, server_leaf, sockets};
use crate::inbound::InboundTls;
use crate::secure::{Alpn, Secure};

/// The first second of 2050, at which the certificates of these tests are over.
const END: u64 = 2_524_608_000;

#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    /// A minute before the end.
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(END - 60)))
    }

    /// It is a minute past the end: no session is too old for that.
    fn pass(&self) {
        self.0.store(END + 60, Ordering::SeqCst);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::SeqCst))))
    }
}

fn on(clock: &Arc<Clock>, source: &Arc<StaticSource>) -> Secure {
    Secure::with_clock(CertificateProviders::new().with(INSTANCE, source.clone()), clock.clone())
}

/// A certificate that is over at the end, and its key.
fn short(ca: &Ca, leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let (certificate, key) = ca.issue_with(leaf, |params| params.not_after = date_time_ymd(2050, 1, 1));
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

async fn a_byte_each_way(
    one: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    other: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
) {
    one.write_u8(1).await.unwrap();
    one.flush().await.unwrap();
    assert_eq!(other.read_u8().await.unwrap(), 1);
    other.write_u8(2).await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(one.read_u8().await.unwrap(), 2);
}

fn bare_client(ca: &Ca, clock: &Arc<Clock>, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto()).build().unwrap();
    let (chain, key) = short(ca, &client_leaf());
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.time_provider = clock.clone();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_clients_session_ends_with_its_certificate() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (ca, clock) = (Ca::new(), Clock::new());
        let shown = trusting(&ca);
        ca.show(&shown, &Leaf { dns: vec!["us.mesh.test"], ..server_leaf() });
        let server = on(&clock, &shown).acceptor(&Arc::new(downstream())).unwrap();
        let client = bare_client(&ca, &clock, version);
        let shake = async || {
            let (near, _, far) = sockets().await;
            let name = "us.mesh.test".try_into().unwrap();
            let (client, server) = tokio::join!(client.connect(name, near), server.accept(Box::new(far)));
            (client.unwrap(), server)
        };
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (mut near, far) = shake().await;
            assert_eq!(near.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
            let mut far = far.unwrap();
            assert!(far.client.identity.is_some());
            a_byte_each_way(&mut near, &mut far.io).await;
        }
        clock.pass();
        // A client is done before it is judged.
        let (near, far) = shake().await;
        assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        let error = far.err().expect("it is let in with a certificate of the past");
        assert!(error.code() == Code::HANDSHAKE && error.to_string().contains("expired"), "{version:?}: {error}");
    }
}

#[tokio::test]
async fn a_servers_session_ends_with_its_certificate() {
    let (ca, clock) = (Ca::new(), Clock::new());
    let (chain, key) = short(&ca, &server_leaf());
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.time_provider = clock.clone();
    let server = TlsAcceptor::from(Arc::new(config));
    let policy = Arc::new(UpstreamTls { identity: None, ..upstream() });
    let client = on(&clock, &trusting(&ca)).client(&policy, Alpn::Either);
    let shake = async || {
        let (near, address, far) = sockets().await;
        // Without SNI a session is of the server's IP address, whatever its port.
        let (client, server) = tokio::join!(client.connect(Box::new(near), None, address), server.accept(far));
        (client, server.unwrap())
    };
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (near, mut far) = shake().await;
        assert_eq!(far.get_ref().1.handshake_kind(), Some(kind));
        a_byte_each_way(&mut near.unwrap().io, &mut far).await;
    }
    clock.pass();
    let (near, far) = shake().await;
    assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let error = near.expect_err("it is taken with a certificate of the past");
    assert!(error.code() == Code::HANDSHAKE && error.to_string().contains("expired"), "{error}");
}
