//! Serving and not serving, routes, and what a request is answered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, ChainMatch, DirectResponse, Domain, SourceType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{BOTH, Client, Http, call, get};
use super::{Server, bound, echo, start, tell};
use crate::inbound::testing::{Config, everything, route, table, with_routes};
use crate::inbound::{BoxError, InboundOptions, InboundSlot, RequestBody, ServingState};

#[tokio::test]
async fn http1_and_http2_reach_the_application_with_one_authority() {
    let server = echo().await;
    let one = get(Http::One, server.address, "/x").await.unwrap();
    assert_eq!(one.text, format!("GET /x authority= host=a.test local={}", server.address));
    let two = get(Http::Two, server.address, "/x").await.unwrap();
    assert_eq!(two.text, format!("GET /x authority=a.test host= local={}", server.address));
}

#[tokio::test]
async fn an_ambiguous_authority_is_answered_400() {
    let server = echo().await;
    let text = raw(&server, "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\nconnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("x-mesh-code: MESH-704"), "{text}");
}

/// What comes back for these bytes.
async fn raw(server: &Server, bytes: &str) -> String {
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(bytes.as_bytes()).await.unwrap();
    let mut text = String::new();
    raw.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_target_with_a_fragment_is_answered_400() {
    let server = echo().await;
    let rest = "host: a.test\r\nconnection: close\r\n\r\n";
    let text = raw(&server, &format!("GET /a#b HTTP/1.1\r\n{rest}")).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    let text = raw(&server, &format!("GET /a HTTP/1.1\r\nx: #\r\n{rest}")).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[tokio::test]
async fn a_body_that_looks_like_a_request_line_is_left_alone() {
    let server = start(tower::service_fn(back), InboundOptions::default()).await;
    server.slot.apply(Config::new(server.address).build(1));
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    let body = b"GET /a#b HTTP/1.1\r\n";
    let head = format!(
        "POST / HTTP/1.1\r\nexpect: 100-continue\r\nhost: a.test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    // The body in a packet of its own, once the server has read the head and asks for it.
    let mut asked = [0; 25];
    raw.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    raw.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(body), "{:?}", String::from_utf8_lossy(&answer));
}

/// Sends the body back.
async fn back(request: Request<RequestBody>) -> Result<Response<Full<bytes::Bytes>>, BoxError> {
    let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
    Ok(Response::new(Full::new(body)))
}

#[tokio::test]
async fn an_empty_host_is_for_the_host_of_everything() {
    let server = echo().await;
    let text = raw(&server, "GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// Not a byte, and the end.
async fn closed_without_a_byte(server: &InboundSlot) {
    let mut raw = TcpStream::connect(server.address()).await.unwrap();
    let mut byte = [0];
    // A reset is an end too.
    assert_eq!(raw.read(&mut byte).await.unwrap_or(0), 0);
}

/// gRFC A36.
#[tokio::test]
async fn without_a_configuration_connections_are_closed_without_a_byte() {
    let server = start(tower::service_fn(tell), InboundOptions::default()).await;
    assert!(matches!(server.slot.state(), ServingState::NotServing(error) if error.code() == Code::NOT_SERVING));
    closed_without_a_byte(&server.slot).await;
    server.slot.apply(Config::new(server.address).build(1));
    server.slot.serving().await;
    assert_eq!(get(Http::One, server.address, "/").await.unwrap().status, 200);
    server.slot.fail(Error::new(Code::RESOURCE_NOT_FOUND, "gone"));
    closed_without_a_byte(&server.slot).await;
}

#[tokio::test]
async fn a_connection_that_no_chain_takes_is_closed_without_a_byte() {
    let server = echo().await;
    let external = ChainMatch { source_type: SourceType::External, ..ChainMatch::default() };
    server.slot.apply(Config { matches: external, ..Config::new(server.address) }.build(2));
    closed_without_a_byte(&server.slot).await;
}

#[tokio::test]
async fn tls_that_cannot_be_had_closes_the_connection() {
    let server = echo().await;
    let name = mesh_core::model::CertificateRef { instance: "none".into(), certificate: "".into() };
    let tls = mesh_core::model::DownstreamTls {
        identity: name,
        client_roots: None,
        require_client_certificate: false,
        sans: Vec::new(),
        checks: Default::default(),
        params: Default::default(),
    };
    server.slot.apply(Config { tls: Some(Arc::new(tls)), ..Config::new(server.address) }.build(2));
    closed_without_a_byte(&server.slot).await;
}

/// gRFC A36.
#[tokio::test]
async fn a_listener_for_another_address_is_not_served() {
    let server = echo().await;
    let other = "127.0.0.1:1".parse().unwrap();
    server.slot.apply(Config::new(other).build(2));
    let ServingState::NotServing(error) = server.slot.state() else { panic!("serving") };
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    // Port 0 stands for any.
    let any_port = std::net::SocketAddr::new(server.address.ip(), 0);
    server.slot.apply(Config::new(any_port).build(3));
    assert!(matches!(server.slot.state(), ServingState::Serving { version: 3 }));
}

/// gRFC A36.
#[tokio::test]
async fn the_callback_hears_of_each_change_once() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    let options = InboundOptions {
        on_change: Arc::new(move |change| {
            ears.lock().unwrap().push(match &change.state {
                ServingState::Serving { version } => format!("serving {version}"),
                ServingState::NotServing(error) => error.message().to_owned(),
            });
        }),
        ..InboundOptions::default()
    };
    let (_listener, slot) = bound(options).await;
    let first = Config::new(slot.address()).build(1);
    slot.apply(first.clone());
    slot.apply(with_routes(&first, Ok(everything())));
    slot.apply(Config::new(slot.address()).build(3));
    slot.fail(Error::new(Code::RESOURCE_NOT_FOUND, "gone"));
    slot.fail(Error::new(Code::RESOURCE_NOT_FOUND, "gone"));
    slot.fail(Error::new(Code::RESOURCE_REFUSED, "bad"));
    slot.apply(Config::new(slot.address()).build(4));
    assert_eq!(*heard.lock().unwrap(), ["serving 1", "gone", "bad", "serving 4"]);
}

/// gRFC A36.
#[tokio::test]
async fn what_no_route_takes_is_refused_in_the_clients_own_way() {
    let server = echo().await;
    let direct = Action::Direct(DirectResponse { status: StatusCode::OK, body: bytes::Bytes::new() });
    let routes = vec![route("/app", Action::NonForwarding), route("/direct", direct)];
    let other_host = table(Domain::Exact("b.test".into()), routes.clone());
    let first = Config::new(server.address).build(2);
    server.slot.apply(first.clone());
    let rows = [
        (table(Domain::Any, routes), "/other", 404, "MESH-202"),
        (other_host, "/app", 404, "MESH-203"),
        (table(Domain::Any, vec![route("/", Action::Unknown("x".into()))]), "/app", 503, "MESH-204"),
    ];
    for (routes, path, status, code) in rows {
        server.slot.apply(with_routes(&first, Ok(routes)));
        for http in BOTH {
            let answer = get(http, server.address, path).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{http:?}");
        }
        let answer = call(server.address, path).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.grpc_status(), answer.code()), (200, "14", code));
    }
}

#[tokio::test]
async fn a_route_change_reaches_open_connections() {
    let server = echo().await;
    let first = Config::new(server.address).build(2);
    server.slot.apply(first.clone());
    for http in BOTH {
        let (mut client, _) = Client::connect(http, server.address).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        server.slot.apply(with_routes(&first, Err(Error::new(Code::RESOURCE_TIMEOUT, "not there"))));
        let answer = client.get("/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "MESH-111"), "{http:?}");
        assert!(matches!(server.slot.state(), ServingState::Serving { .. }));
        server.slot.apply(with_routes(&first, Ok(everything())));
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
}

async fn moody(request: Request<RequestBody>) -> Result<Response<Full<bytes::Bytes>>, BoxError> {
    match request.uri().path() {
        "/panic" => panic!("on purpose"),
        "/error" => Err("on purpose".into()),
        _ => tell(request).await,
    }
}

#[tokio::test]
async fn a_failing_handler_fails_its_own_request_only() {
    let server = start(tower::service_fn(moody), InboundOptions::default()).await;
    server.slot.apply(Config::new(server.address).build(1));
    for http in BOTH {
        let (mut client, _) = Client::connect(http, server.address).await.unwrap();
        for path in ["/panic", "/error"] {
            let answer = client.get(path).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.code()), (500, "MESH-706"), "{http:?} {path}");
            assert_eq!(client.get("/").await.unwrap().status, 200);
        }
    }
    let answer = call(server.address, "/panic").await.unwrap();
    assert_eq!(answer.grpc_status(), "13");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed() {
    let server = echo().await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut raw = TcpStream::connect(server.address).await.unwrap();
        raw.write_all(said).await.unwrap();
        let start = tokio::time::Instant::now();
        let mut rest = Vec::new();
        let _ = raw.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(12), "{waited:?}");
    }
}
