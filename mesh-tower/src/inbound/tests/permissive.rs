//! STRICT and PERMISSIVE on one port: what a client speaks is known by its first bytes, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::identity::{CertificateProviders, PeerIdentity};
use mesh_core::model::{CertificateRef, ChainMatch, DownstreamTls, Inspection, SanKind, TrustRoots, UpstreamTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{BOTH, Client, Http};
use super::{Server, start};
use crate::inbound::testing::Config;
use crate::inbound::{BoxError, InboundOptions, PeerInfo, RequestBody};
use crate::secure::testing::{Ca, INSTANCE, Leaf, downstream, exactly, secure, source, upstream};
use crate::secure::{Alpn, Secure};

const CLIENT: &str = "spiffe://mesh.test/ns/a/sa/client";
const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";
/// What a client of the mesh offers beside its protocol, as Istio's do.
const MESH: &str = "istio";

/// Says how it was called.
async fn how(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let connection = request.extensions().get::<PeerInfo>().unwrap();
    let who = connection.identity().and_then(PeerIdentity::spiffe_id).map(ToString::to_string);
    let tls = if connection.is_tls() { "tls" } else { "plain" };
    let name = connection.server_name().unwrap_or("-");
    assert_eq!(connection.inspected_name(), connection.server_name(), "authorization knows it");
    Ok(Response::new(Full::from(format!("{tls} {} {name}", who.as_deref().unwrap_or("nobody")))))
}

/// Where the mesh's certificate comes from, and the application's own.
fn certificates(mesh: &Ca, own: &Ca) -> Secure {
    let providers = CertificateProviders::new()
        .with(INSTANCE, source(mesh, &Leaf::workload(SERVER)))
        .with("own", source(own, &Leaf::web("app.test")));
    Secure::new(providers)
}

fn own_tls() -> DownstreamTls {
    let identity = CertificateRef { instance: "own".into(), certificate: "".into() };
    DownstreamTls { identity, client_roots: None, require_client_certificate: false, ..downstream() }
}

fn tls_with(protocols: &[&str], names: &[&str]) -> ChainMatch {
    ChainMatch {
        transport_protocol: "tls".to_owned(),
        application_protocols: protocols.iter().map(|&name| name.to_owned()).collect(),
        server_names: names.iter().map(|&name| name.to_owned()).collect(),
        ..ChainMatch::default()
    }
}

fn inspection() -> Inspection {
    Inspection { tls: true, http: true, timeout: Duration::from_secs(3), max_client_hello: 16384 }
}

/// A server whose one port takes mTLS of the mesh; if it is permissive also the application's own TLS for its name, and plaintext.
async fn server(mesh: &Ca, own: &Ca, permissive: bool) -> Server {
    let tls = Arc::new(certificates(mesh, own));
    let server = start(tower::service_fn(how), InboundOptions { tls, ..InboundOptions::default() }).await;
    let plain = ChainMatch { transport_protocol: "raw_buffer".to_owned(), ..ChainMatch::default() };
    let more = vec![(tls_with(&[], &["*.test"]), Some(Arc::new(own_tls()))), (plain, None)];
    let config = Config {
        matches: tls_with(&[MESH], &[]),
        tls: Some(Arc::new(downstream())),
        more: if permissive { more } else { Vec::new() },
        inspection: Some(inspection()),
        ..Config::new(server.address)
    };
    server.slot.apply(config.build(1));
    server
}

async fn over_tls(ca: &Ca, server: &Server, http: Http, policy: UpstreamTls) -> Option<Client> {
    let alpn = if http == Http::One { Alpn::Http1 } else { Alpn::Http2 };
    let tls = secure(&source(ca, &Leaf::workload(CLIENT))).client(&Arc::new(policy), alpn);
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let secured = tls.connect(Box::new(tcp), None, server.address).await.ok()?;
    Some(Client::over(http, secured.io).await.unwrap().0)
}

fn of_the_mesh(protocols: &[&str]) -> UpstreamTls {
    let alpn = protocols.iter().map(|&name| name.to_owned()).collect();
    UpstreamTls { alpn, sans: vec![exactly(SanKind::Uri, SERVER)], ..upstream() }
}

fn of_the_application() -> UpstreamTls {
    UpstreamTls { identity: None, sni: Some("app.test".to_owned()), auto_sni_san_validation: true, ..upstream() }
}

#[tokio::test]
async fn one_port_takes_plaintext_mesh_tls_and_the_applications_own() {
    let (mesh, own) = (Ca::new(), Ca::new());
    let server = server(&mesh, &own, true).await;
    for http in BOTH {
        let (mut plain, _) = Client::connect(http, server.address).await.unwrap();
        assert_eq!(plain.get("/").await.unwrap().text, "plain nobody -");

        let protocol = if http == Http::One { "http/1.1" } else { "h2" };
        let mut peer = over_tls(&mesh, &server, http, of_the_mesh(&[MESH, protocol])).await.unwrap();
        assert_eq!(peer.get("/").await.unwrap().text, format!("tls {CLIENT} -"));

        let mut stranger = over_tls(&own, &server, http, of_the_application()).await.unwrap();
        assert_eq!(stranger.get("/").await.unwrap().text, "tls nobody app.test");
    }
    // Istio's clients may offer nothing that is spoken here: then none is chosen, and HTTP is known by its first bytes.
    let mut peer = over_tls(&mesh, &server, Http::One, of_the_mesh(&["istio-peer-exchange", MESH])).await.unwrap();
    assert_eq!(peer.get("/").await.unwrap().text, format!("tls {CLIENT} -"));
}

#[tokio::test]
async fn a_strict_port_takes_mesh_tls_and_nothing_else() {
    let (mesh, own) = (Ca::new(), Ca::new());
    let server = server(&mesh, &own, false).await;
    for http in BOTH {
        let mut peer = over_tls(&mesh, &server, http, of_the_mesh(&[MESH, "h2", "http/1.1"])).await;
        if http == Http::Two {
            assert_eq!(peer.as_mut().unwrap().get("/").await.unwrap().text, format!("tls {CLIENT} -"));
        }
        assert!(over_tls(&own, &server, http, of_the_application()).await.is_none());
    }
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "plaintext gets not a byte: {answer:?}");
}

/// Without `istio` among its protocols a client of the mesh is a client of the application's own TLS, whose certificate is
/// another's: nothing is taken for the mesh's by mistake.
#[tokio::test]
async fn a_client_that_does_not_say_it_is_of_the_mesh_is_not_taken_for_one() {
    let (mesh, own) = (Ca::new(), Ca::new());
    let server = server(&mesh, &own, true).await;
    let policy = UpstreamTls { sni: Some("app.test".to_owned()), ..of_the_mesh(&["h2"]) };
    assert!(over_tls(&mesh, &server, Http::Two, policy).await.is_none());
    let anyone = UpstreamTls { roots: TrustRoots::Nobody, sans: Vec::new(), sni: None, ..of_the_mesh(&["h2"]) };
    assert!(over_tls(&mesh, &server, Http::Two, anyone).await.is_none(), "no chain is for no name");
}

/// A ClientHello as openssl's clients send it; what follows a cut is what the server still waits for.
fn hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(crate::secure::testing::crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), "app.test".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn closed_after(server: &Server, sent: &[u8], more: bool) -> Duration {
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    let start = Instant::now();
    raw.write_all(sent).await.unwrap();
    let (mut reading, mut writing) = raw.into_split();
    let dribble = async {
        // As long as it is taken, a byte each second, which never ends a line.
        while more && writing.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = reading.read_to_end(&mut answer) => {}
        () = dribble => {}
    }
    assert!(answer.is_empty(), "not a byte: {answer:?}");
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn whoever_is_slow_to_say_what_it_speaks_is_closed_at_the_deadline() {
    let (mesh, own) = (Ca::new(), Ca::new());
    let server = server(&mesh, &own, true).await;
    let hello = hello();
    for (sent, more) in [
        (&b""[..], false),
        (b"P", false),
        (b"PRI * HTTP/2.0", false),
        (b"GET /", true),
        (&hello[..1], false),
        (&hello[..5], false),
        (&hello[..hello.len() - 1], false),
    ] {
        let after = closed_after(&server, sent, more).await;
        assert!(after > Duration::from_secs(2) && after < Duration::from_secs(5), "{sent:?}: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_client_hello_or_a_too_long_one_is_closed_at_once() {
    let (mesh, own) = (Ca::new(), Ca::new());
    let server = server(&mesh, &own, true).await;
    // A record of a handshake message that says it has 16 MiB.
    let long = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat();
    let endless = [long.clone(), long.clone()].concat();
    for sent in [&[22, 3, 1, 0, 4, 99, 0, 0, 0][..], &[22, 3, 1, 0xff, 0xff, 1, 1][..], &endless] {
        let after = closed_after(&server, sent, false).await;
        assert!(after < Duration::from_secs(1), "{:?}: {after:?}", &sent[..7]);
    }
}

/// However it is cut, the handshake gets every byte that was looked at.
#[tokio::test]
async fn a_hello_in_small_pieces_is_put_together_and_put_back() {
    let (mesh, own) = (Ca::new(), Ca::new());
    let server = server(&mesh, &own, true).await;
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    for piece in hello().chunks(7) {
        raw.write_all(piece).await.unwrap();
        raw.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 6];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[5]), (22, 2), "a ServerHello");

    let mut raw = TcpStream::connect(server.address).await.unwrap();
    for byte in b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n" {
        raw.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("plain nobody -"), "{answer}");
}
