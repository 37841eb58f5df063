//! TLS: which protocol comes of it, and that nothing goes without it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mesh_core::error::Code;
use mesh_core::identity::StaticSource;
use mesh_core::model::cluster::TLS_MATCH;
use mesh_core::model::{Endpoint, SanKind, UpstreamTls};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::rig::{Rig, endpoint, plan};
use crate::connect::WireProtocol::{Http1, Http2, Negotiated};
use crate::connect::{ConnectSettings, Connections, EndpointPlan, TcpDial, WireProtocol};
use crate::inbound::InboundTls;
use crate::secure::testing::{Ca, Leaf, downstream, exactly, secure, show, source, trusting, upstream};

const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";
const CLIENT: &str = "spiffe://mesh.test/ns/a/sa/client";

/// A server that demands a certificate of `ca`, speaks either HTTP and says which.
async fn server(ca: &Ca) -> SocketAddr {
    let tls = secure(&source(ca, &Leaf::workload(SERVER))).acceptor(&Arc::new(downstream())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(accepted) = tls.accept(Box::new(stream)).await else { return };
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    Ok::<_, Infallible>(Response::new(format!("{:?}", request.version())))
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(accepted.io), service).await;
            });
        }
    });
    address
}

fn rig(source: &Arc<StaticSource>, address: SocketAddr, protocol: WireProtocol, policy: UpstreamTls) -> Rig {
    Rig::new(&connections(source), EndpointPlan { tls: Some(Arc::new(policy)), ..plan(address, protocol) })
}

fn connections(source: &Arc<StaticSource>) -> Connections {
    let dial = Arc::new(TcpDial::new(Some(crate::connect::TcpKeepalive::default())));
    Connections::new(Handle::current(), dial, secure(source), ConnectSettings::default(), 1)
}

fn offering(alpn: &[&str]) -> UpstreamTls {
    UpstreamTls { alpn: alpn.iter().map(|&name| name.to_owned()).collect(), ..upstream() }
}

#[tokio::test]
async fn the_server_chooses_what_is_spoken() {
    let ca = Ca::new();
    let address = server(&ca).await;
    let client = source(&ca, &Leaf::workload(CLIENT));
    for (protocol, alpn, spoken) in [
        (Negotiated, &[][..], "HTTP/2.0"),
        (Negotiated, &["http/1.1"], "HTTP/1.1"),
        (Negotiated, &["istio-h2", "h2"], "HTTP/2.0"),
        (Http2, &[], "HTTP/2.0"),
        (Http2, &["istio-h2", "istio", "h2"], "HTTP/2.0"),
        (Http1, &[], "HTTP/1.1"),
    ] {
        let rig = rig(&client, address, protocol, offering(alpn));
        rig.until_ready().await;
        assert_eq!(rig.text("/").await, spoken, "{protocol:?} offering {alpn:?}");
    }
}

/// An endpoint that says this of its `tlsMode`, as istiod writes it.
fn of_mode(address: SocketAddr, mode: &str) -> Arc<Endpoint> {
    let said = serde_json::json!({"tlsMode": mode});
    Arc::new(Endpoint { metadata: [(TLS_MATCH.to_owned(), said)].into(), ..endpoint(address) })
}

/// `spec/istio.md`, fact 9: a PERMISSIVE proxy knows mTLS of the mesh by these names, and chooses among the others.
#[tokio::test]
async fn istio_an_endpoint_whose_mtls_is_istios_is_offered_its_names() {
    let ca = Ca::new();
    let client = source(&ca, &Leaf::workload(CLIENT));
    for (mode, protocol, alpn, names) in [
        ("istio", Negotiated, &[][..], &["istio-h2", "istio-http/1.1", "istio", "h2", "http/1.1"][..]),
        ("istio", Http2, &[], &["istio-h2", "istio", "h2"]),
        ("istio", Http1, &[], &["istio-http/1.1", "istio", "http/1.1"]),
        ("istio", Http2, &["h2"], &["h2"]),
        ("disabled", Negotiated, &[], &["h2", "http/1.1"]),
    ] {
        let (address, got) = listening().await;
        let connections = connections(&client);
        let plan = EndpointPlan { endpoint: of_mode(address, mode), ..plan(address, protocol) };
        let _rig = Rig::new(&connections, EndpointPlan { tls: Some(Arc::new(offering(alpn))), ..plan });
        let hello = secure(&client).hello_reader()(&got.await.unwrap()).unwrap().unwrap();
        assert_eq!(hello.protocols, names, "{mode} {protocol:?} {alpn:?}");
    }
}

#[tokio::test]
async fn istio_servers_choose_the_protocol_beside_the_names_of_the_mesh() {
    let ca = Ca::new();
    let address = server(&ca).await;
    let connections = connections(&source(&ca, &Leaf::workload(CLIENT)));
    for (protocol, spoken) in [(Negotiated, "HTTP/2.0"), (Http2, "HTTP/2.0"), (Http1, "HTTP/1.1")] {
        let plan = EndpointPlan { endpoint: of_mode(address, "istio"), ..plan(address, protocol) };
        let rig = Rig::new(&connections, EndpointPlan { tls: Some(Arc::new(upstream())), ..plan });
        rig.until_ready().await;
        assert_eq!(rig.text("/").await, spoken, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_protocol_that_the_cluster_does_not_speak_is_refused() {
    let ca = Ca::new();
    let address = server(&ca).await;
    let client = source(&ca, &Leaf::workload(CLIENT));
    for (protocol, alpn) in [(Http2, "http/1.1"), (Http1, "h2")] {
        let rig = rig(&client, address, protocol, offering(&[alpn]));
        rig.until_failed().await;
        assert_eq!(rig.handle.last_error().unwrap().code(), Code::PROTOCOL);
    }
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_not_ready() {
    let ca = Ca::new();
    let address = server(&ca).await;
    let client = source(&ca, &Leaf::workload(CLIENT));
    let sans = vec![exactly(SanKind::Uri, "spiffe://mesh.test/ns/a/sa/other")];
    let other = rig(&client, address, Negotiated, UpstreamTls { sans, ..upstream() });
    other.until_failed().await;
    assert_eq!(other.handle.last_error().unwrap().code(), Code::WRONG_IDENTITY);
    assert!(other.get("/").await.unwrap_err().request.is_some());
}

#[tokio::test]
async fn a_client_that_the_server_does_not_know_is_not_ready_for_http2() {
    let ca = Ca::new();
    let address = server(&ca).await;
    let client = trusting(&ca);
    show(&client, &Ca::new(), &Leaf::workload(CLIENT));
    let rig = rig(&client, address, Http2, upstream());
    rig.until_failed().await;
    // With TLS 1.3 it is told after the client's part of the handshake: no SETTINGS come, but an alert.
    let error = rig.handle.last_error().unwrap();
    assert_eq!(error.code(), Code::HANDSHAKE);
    assert!(error.message().contains("UnknownCA"), "{error}");
}

#[tokio::test]
async fn a_client_that_the_server_does_not_know_learns_it_from_its_first_request_in_http1() {
    let ca = Ca::new();
    let address = server(&ca).await;
    let client = trusting(&ca);
    show(&client, &Ca::new(), &Leaf::workload(CLIENT));
    let rig = rig(&client, address, Http1, upstream());
    rig.until_ready().await;
    let error = rig.get("/").await.unwrap_err().error;
    assert_eq!(error.code(), Code::HANDSHAKE);
    assert!(error.message().contains("UnknownCA"), "{error}");
}

/// Everything that is sent to a port until the other side ends.
async fn listening() -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let got = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        bytes.truncate(count);
        bytes
    });
    (address, got)
}

#[tokio::test]
async fn not_one_byte_leaves_without_a_certificate() {
    let (address, got) = listening().await;
    let rig = rig(&trusting(&Ca::new()), address, Negotiated, upstream());
    rig.until_failed().await;
    assert_eq!(rig.handle.last_error().unwrap().code(), Code::NO_CERTIFICATE);
    assert!(rig.get("/").await.is_err());
    assert_eq!(got.await.unwrap(), b"");
}

#[tokio::test]
async fn a_server_without_tls_gets_a_handshake_and_no_request() {
    let ca = Ca::new();
    let (address, got) = listening().await;
    let rig = rig(&source(&ca, &Leaf::workload(CLIENT)), address, Http1, upstream());
    rig.until_failed().await;
    assert_eq!(rig.handle.last_error().unwrap().code(), Code::HANDSHAKE);
    let got = got.await.unwrap();
    assert_eq!(got[0], 22, "a TLS handshake record");
    assert!(!got.windows(4).any(|bytes| bytes == b"HTTP"));
}
