//! Mutual TLS through the whole way: what applications and routes see of the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::identity::{PeerIdentity, StaticSource};
use mesh_core::model::{
    Action, CertificateChecks, ClientCertDetails, CrlSource, Domain, DownstreamTls, ForwardClientCert,
    ForwardClientCertMode, SanKind, UpstreamTls,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::client::{BOTH, Client, Http};
use super::{Server, start};
use crate::inbound::testing::{Config, route, table};
use crate::inbound::{BoxError, InboundOptions, PeerInfo, RequestBody};
use crate::secure::testing::{Ca, Leaf, downstream, exactly, secure, serial, source, upstream};
use crate::secure::{Alpn, Protocol};

const CLIENT: &str = "spiffe://mesh.test/ns/a/sa/client";
const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";

/// Says who calls, as the extensions and the connection tell it.
async fn who(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let id = |peer: Option<&PeerIdentity>| peer.and_then(PeerIdentity::spiffe_id).map(ToString::to_string);
    let extension = id(request.extensions().get::<PeerIdentity>());
    let connection = request.extensions().get::<PeerInfo>().unwrap();
    assert!(connection.is_tls());
    // gRFC A41: without an inspection authorization knows no server name.
    assert_eq!(connection.inspected_name(), None);
    assert_eq!(extension, id(connection.identity()));
    Ok(Response::new(Full::from(extension.unwrap_or_else(|| "nobody".to_owned()))))
}

async fn server(ca: &Ca, policy: DownstreamTls) -> Server {
    let tls = Arc::new(secure(&source(ca, &Leaf::workload(SERVER))));
    let server = start(tower::service_fn(who), InboundOptions { tls, ..InboundOptions::default() }).await;
    let mut shown = route("/shown", Action::NonForwarding);
    Arc::get_mut(&mut shown).unwrap().matches.tls_presented = Some(true);
    let mut valid = route("/valid", Action::NonForwarding);
    Arc::get_mut(&mut valid).unwrap().matches.tls_validated = Some(true);
    let routes = table(Domain::Any, vec![shown, valid, route("/any", Action::NonForwarding)]);
    let config = Config { tls: Some(Arc::new(policy)), routes: Ok(routes), ..Config::new(server.address) };
    server.slot.apply(config.build(1));
    server
}

async fn client(ca: &Ca, server: &Server, http: Http, identity: bool) -> Client {
    client_of(&source(ca, &Leaf::workload(CLIENT)), server, http, identity).await
}

async fn client_of(shown: &Arc<StaticSource>, server: &Server, http: Http, identity: bool) -> Client {
    let policy = UpstreamTls { sans: vec![exactly(SanKind::Uri, SERVER)], ..upstream() };
    let policy = UpstreamTls { identity: policy.identity.clone().filter(|_| identity), ..policy };
    let (alpn, chosen) = match http {
        Http::One => (Alpn::Http1, Protocol::Http1),
        Http::Two => (Alpn::Http2, Protocol::Http2),
    };
    let tls = secure(shown).client(&Arc::new(policy), alpn);
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let secured = tls.connect(Box::new(tcp), None, server.address).await.unwrap();
    assert_eq!(secured.alpn, Some(chosen));
    Client::over(http, secured.io).await.unwrap().0
}

#[tokio::test]
async fn applications_see_who_calls() {
    let ca = Ca::new();
    let server = server(&ca, downstream()).await;
    for http in BOTH {
        let mut client = client(&ca, &server, http, true).await;
        for path in ["/any", "/shown", "/valid"] {
            let answer = client.get(path).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, CLIENT), "{http:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody_to_applications_and_routes() {
    let ca = Ca::new();
    let server = server(&ca, DownstreamTls { require_client_certificate: false, ..downstream() }).await;
    for http in BOTH {
        let mut client = client(&ca, &server, http, false).await;
        assert_eq!(client.get("/any").await.unwrap().text, "nobody");
        for path in ["/shown", "/valid"] {
            let answer = client.get(path).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.code()), (404, "MESH-202"), "{http:?} {path}");
        }
    }
}

#[tokio::test]
async fn no_request_reaches_the_application_without_the_handshake() {
    let ca = Ca::new();
    let server = server(&ca, downstream()).await;
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(b"GET /any HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer[0] == 21, "at most a TLS alert: {answer:?}");

    let stranger = Ca::new();
    let theirs = source(&ca, &Leaf::workload(CLIENT));
    crate::secure::testing::show(&theirs, &stranger, &Leaf::workload(CLIENT));
    let tls = secure(&theirs).client(&Arc::new(upstream()), Alpn::Http1);
    let tcp = TcpStream::connect(server.address).await.unwrap();
    // In TLS 1.3 the client is done before it is judged.
    if let Ok(secured) = tls.connect(Box::new(tcp), None, server.address).await {
        let mut client = Client::over(Http::One, secured.io).await.unwrap().0;
        client.get("/any").await.unwrap_err();
    }
}

/// Says what the server tells of the client.
async fn told(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let told = request.headers().get("x-forwarded-client-cert").map(|told| told.to_str().unwrap().to_owned());
    Ok(Response::new(Full::from(told.unwrap_or_default())))
}

#[tokio::test]
async fn applications_are_told_of_the_client_in_a_header() {
    let ca = Ca::new();
    let tls = Arc::new(secure(&source(&ca, &Leaf::workload(SERVER))));
    let server = start(tower::service_fn(told), InboundOptions { tls, ..InboundOptions::default() }).await;
    let details = ClientCertDetails { uri: true, ..ClientCertDetails::default() };
    let client_cert = ForwardClientCert { mode: ForwardClientCertMode::SanitizeSet, details };
    let config = Config { tls: Some(Arc::new(downstream())), client_cert, ..Config::new(server.address) };
    server.slot.apply(config.build(1));
    for http in BOTH {
        let text = client(&ca, &server, http, true).await.get("/").await.unwrap().text;
        let [by, hash, uri] = text.split(';').collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!((by, uri), (format!("By={SERVER}").as_str(), format!("URI={CLIENT}").as_str()));
        let hash = hash.strip_prefix("Hash=").unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()), "a SHA-256: {hash}");
    }
}

/// Answers once it is told to.
async fn slow(request: Request<RequestBody>, gate: Arc<Semaphore>, entered: Arc<AtomicUsize>) -> Answered {
    entered.fetch_add(1, Ordering::SeqCst);
    gate.acquire().await.unwrap().forget();
    who(request).await
}

type Answered = Result<Response<Full<Bytes>>, BoxError>;

/// Whether the list comes with a new Listener, whose old connections are otherwise given minutes to end, or in the file that the
/// Listener names: what a revoked client has begun breaks, and what others have begun goes on.
#[tokio::test]
async fn a_revoked_clients_connections_end_when_the_list_comes_and_others_go_on() {
    for by_file in [false, true] {
        let ca = Ca::new();
        let file = std::env::temp_dir().join(format!("mesh-inbound-crl-{}.pem", std::process::id()));
        std::fs::write(&file, ca.crl(&[], false)).unwrap();
        let secure = secure(&source(&ca, &Leaf::workload(SERVER)));
        let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let app = {
            let (gate, entered) = (gate.clone(), entered.clone());
            tower::service_fn(move |request| slow(request, gate.clone(), entered.clone()))
        };
        let options = InboundOptions { tls: Arc::new(secure.clone()), ..InboundOptions::default() };
        let server = start(app, options).await;
        let apply = |crl: CrlSource, version| {
            let checks = CertificateChecks { crl: Some(crl), ..Default::default() };
            let tls = Some(Arc::new(DownstreamTls { checks, ..downstream() }));
            server.slot.apply(Config { tls, ..Config::new(server.address) }.build(version));
        };
        apply(CrlSource::File(file.clone()), 1);

        let mut numbers = Vec::new();
        let (mut out, mut kept) = (Vec::new(), Vec::new());
        for http in BOTH {
            for requests in [&mut out, &mut kept] {
                let shown = source(&ca, &Leaf::workload(CLIENT));
                let mut client = client_of(&shown, &server, http, true).await;
                numbers.push(serial(&shown));
                requests.push(tokio::spawn(async move { client.get("/").await }));
            }
        }
        while entered.load(Ordering::SeqCst) < 4 {
            tokio::task::yield_now().await;
        }
        let list = ca.crl(&[numbers[0].clone(), numbers[2].clone()], false);
        if by_file {
            std::fs::write(&file, list).unwrap();
            secure.refresh_revocations();
        } else {
            apply(CrlSource::Inline(vec![list].into()), 2);
        }
        for request in out {
            request.await.unwrap().expect_err("its client is revoked");
        }
        gate.add_permits(4);
        for request in kept {
            assert_eq!(request.await.unwrap().unwrap().text, CLIENT);
        }
        std::fs::remove_file(&file).unwrap();
    }
}
