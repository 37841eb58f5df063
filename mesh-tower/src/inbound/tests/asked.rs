//! External authorization by HTTP: a real server is asked, over both protocols, with and without the request's body.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_core::source::MemorySource;
use mesh_core::source::file::resource_from_json;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::ANY;
use super::client::{Answer, BOTH, Client, Http};
use crate::Mesh;
use crate::inbound::{BoxError, InboundSlot, RequestBody, ServingState};

const PATIENCE: Duration = Duration::from_secs(20);
const MORE: usize = 300_000;

/// What the authorization server was asked: lines of a request, headers sorted.
type Seen = Arc<Mutex<Vec<String>>>;

/// An authorization server that does what the first part of the path says.
async fn judge() -> (Seen, SocketAddr) {
    let (seen, listener) = (Seen::default(), TcpListener::bind(ANY).await.unwrap());
    let address = listener.local_addr().unwrap();
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = shared.clone();
            let service = hyper::service::service_fn(move |request| answer(request, seen.clone()));
            let serve = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { drop(serve.serve_connection(TokioIo::new(stream), service).await) });
        }
    });
    (seen, address)
}

async fn answer(request: Request<Incoming>, seen: Seen) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut lines: Vec<String> =
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    let shown = format!("{} {} {lines:?} {}", head.method, head.uri, String::from_utf8_lossy(&body));
    seen.lock().unwrap().push(shown);
    let response = Response::builder();
    let response = match head.uri.path().rsplit('/').next().unwrap() {
        "denied" => response.status(401).header("x-why", "no").header("www-authenticate", "Basic"),
        "login" => response.status(302).header("location", "/login").header("content-type", "text/html"),
        "broken" => response.status(503),
        "silent" => std::future::pending().await,
        _ => response.header("x-user", "ann").header("x-envoy-auth-headers-to-remove", "x-secret"),
    };
    Ok(response.body(Full::from("because")).unwrap())
}

/// Says what it got.
async fn echo(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    let hint = http_body::Body::size_hint(&body).exact();
    let body = body.collect().await?;
    let trailers = body.trailers().is_some();
    let body = body.to_bytes();
    assert!(hint.is_none_or(|hint| hint == body.len() as u64), "{hint:?}");
    let header = |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    let shown = if body.len() > 100 { body.len().to_string() } else { String::from_utf8_lossy(&body).into_owned() };
    let text = format!("user={} secret={} body={shown} trailers={trailers}", header("x-user"), header("x-secret"));
    Ok(Response::new(Full::from(text)))
}

fn plain() -> Value {
    json!({"match": {"prefix": ""}, "non_forwarding_action": {}})
}

/// Its server asks `authz`, under `more`; `routes` may take the place of its own.
fn listener(name: &str, address: SocketAddr, more: &Value) -> Value {
    let at = |url: &str| format!("type.googleapis.com/envoy.extensions.filters.{url}");
    let mut config = json!({
        "@type": at("http.ext_authz.v3.ExtAuthz"),
        "transport_api_version": "V3",
        "http_service": {
            "server_uri": {"uri": "http://authz.test/", "cluster": "authz", "timeout": "0.5s"},
            "path_prefix": "/check",
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": "x-user"}]}},
        },
    });
    for (key, value) in more.as_object().unwrap().iter().filter(|(key, _)| *key != "routes") {
        config[key] = value.clone();
    }
    let route = |prefix: &str, over: Value| {
        let over = json!({"@type": at("http.ext_authz.v3.ExtAuthzPerRoute"), "check_settings": over});
        json!({"match": {"prefix": prefix}, "non_forwarding_action": {}, "typed_per_filter_config": {"authz": over}})
    };
    let elsewhere = json!({
        "server_uri": {"uri": "http://authz.test/", "cluster": "authz", "timeout": "0.5s"},
        "path_override": "/elsewhere",
    });
    let routes = json!([
        route("/bodiless", json!({"disable_request_body_buffering": true})),
        route("/bodily", json!({"with_request_body": {"max_request_bytes": 9}})),
        route("/elsewhere", json!({"http_service": elsewhere})),
        plain(),
    ]);
    let routes = more.get("routes").unwrap_or(&routes);
    let manager = json!({
        "@type": at("network.http_connection_manager.v3.HttpConnectionManager"),
        "route_config": {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "authz", "typed_config": config},
            {"name": "router", "typed_config": {"@type": at("http.router.v3.Router")}},
        ],
    });
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

fn cluster(address: SocketAddr) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "authz",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "authz", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": {"socket_address": socket}}}]}]},
    })
}

/// A mesh with a bound server that asks `authz`.
async fn bound(authz: SocketAddr, more: Value) -> (Mesh, crate::inbound::Bound) {
    let source = MemorySource::new(Vec::new());
    let mesh = Mesh::builder().source(source.clone()).build().unwrap();
    let bound = mesh.bind(ANY).await.unwrap();
    let resources = [listener(bound.slot().target(), bound.local_addr(), &more), cluster(authz)];
    source.set(resources.iter().map(|json| resource_from_json(json).unwrap()));
    (mesh, bound)
}

struct Asking {
    _mesh: Mesh,
    slot: Arc<InboundSlot>,
}

/// A server that asks `authz`.
async fn asking(authz: SocketAddr, more: Value) -> Asking {
    let (mesh, bound) = bound(authz, more).await;
    let (slot, socket) = bound.into_parts();
    tokio::spawn(crate::inbound::serve(slot.clone(), socket, tower::service_fn(echo)));
    tokio::time::timeout(PATIENCE, slot.serving()).await.unwrap();
    Asking { _mesh: mesh, slot }
}

impl Asking {
    async fn post(&self, http: Http, path: &str, body: impl Into<Bytes>) -> Answer {
        let (mut client, _) = Client::connect(http, self.slot.address()).await.unwrap();
        let request = match http {
            Http::One => Request::post(path).header("host", "a.test"),
            Http::Two => Request::post(format!("http://a.test{path}")),
        };
        let request = request.header("x-secret", "s").header("x-user", "root").header("authorization", "t");
        client.send(request.body(Full::from(body.into())).unwrap()).await.unwrap()
    }
}

fn last(seen: &Seen) -> String {
    seen.lock().unwrap().pop().unwrap_or_default()
}

const PLAIN: &str = r#"["authorization: t", "content-length: 0", "host: a.test"]"#;

#[tokio::test]
async fn extauthz_http_who_is_allowed_passes_with_what_the_server_changes() {
    let (seen, address) = judge().await;
    let server = asking(address, json!({})).await;
    for http in BOTH {
        let got = server.post(http, "/a?b=c", "body").await;
        assert_eq!((got.status.as_u16(), &*got.text), (200, "user=ann secret=- body=body trailers=false"), "{http:?}");
        assert_eq!(last(&seen), format!("POST /check/a?b=c {PLAIN} "), "{http:?}");
        server.post(http, "/elsewhere", "").await;
        assert_eq!(last(&seen), format!("POST /elsewhere {PLAIN} "), "the route asks under another path");
    }
}

#[tokio::test]
async fn extauthz_http_who_is_denied_gets_the_servers_answer() {
    let (_, address) = judge().await;
    let server = asking(address, json!({})).await;
    for http in BOTH {
        let got = server.post(http, "/denied", "").await;
        assert_eq!((got.status.as_u16(), &*got.text, got.code()), (401, "because", "MESH-313"), "{http:?}");
        for (name, value) in [("x-why", "no"), ("www-authenticate", "Basic"), ("content-type", "text/plain")] {
            assert_eq!(got.headers[name], value, "{http:?}");
        }
        let got = server.post(http, "/login", "").await;
        assert_eq!((got.status.as_u16(), &*got.text), (302, "because"), "{http:?}");
        assert_eq!(
            (&got.headers["location"], &got.headers["content-type"]),
            (&"/login".parse().unwrap(), &"text/html".parse().unwrap())
        );
    }
    let some = json!({"max_denied_response_body_bytes": 3, "http_service": {
        "server_uri": {"uri": "http://authz.test/", "cluster": "authz", "timeout": "0.5s"},
        "authorization_response": {"allowed_client_headers": {"patterns": [{"exact": "x-other"}]}},
    }});
    let got = asking(address, some).await.post(Http::One, "/denied", "").await;
    assert_eq!((got.status.as_u16(), &*got.text), (401, "bec"));
    assert!(got.headers.contains_key("www-authenticate") && !got.headers.contains_key("x-why"));
}

#[tokio::test]
async fn extauthz_http_without_an_answer_nobody_passes_unless_that_is_said() {
    let (_, address) = judge().await;
    for path in ["/broken", "/silent"] {
        let strict = asking(address, json!({})).await;
        let got = strict.post(Http::One, path, "").await;
        assert_eq!((got.status.as_u16(), got.code()), (403, "MESH-313"), "{path}");
        let said = asking(address, json!({"status_on_error": {"code": 503}})).await;
        assert_eq!(said.post(Http::Two, path, "").await.status, 503, "{path}");
        let lax = asking(address, json!({"failure_mode_allow": true})).await;
        assert_eq!(lax.post(Http::One, path, "").await.status, 200, "{path}");
    }
}

/// What the server sees of a body, and that the application sees all of it.
#[tokio::test]
async fn extauthz_http_the_server_may_see_the_body() {
    let (seen, address) = judge().await;
    let server = asking(address, json!({"with_request_body": {"max_request_bytes": 4}})).await;
    let partly = json!({"with_request_body": {"max_request_bytes": 4, "allow_partial_message": true}});
    let partial = asking(address, partly).await;
    let seen_with = |partial: &str, body: &str| {
        let headers = format!(
            r#"["authorization: t", "content-length: {}", "host: a.test", "x-envoy-auth-partial-body: {partial}"]"#,
            body.len()
        );
        format!("POST /check/a {headers} {body}")
    };
    for http in BOTH {
        for (body, told) in [("abc", "abc"), ("abcd", "abcd")] {
            assert!(server.post(http, "/a", body).await.text.contains(&format!("body={body} ")), "{http:?}");
            assert_eq!(last(&seen), seen_with("false", told));
            assert!(partial.post(http, "/a", body).await.text.contains(&format!("body={body} ")), "{http:?}");
            assert_eq!(last(&seen), seen_with("false", told));
        }
        server.post(http, "/a", "").await;
        assert_eq!(last(&seen), format!("POST /check/a {PLAIN} "), "there is no body to see");
        let long = "x".repeat(MORE);
        let got = partial.post(http, "/a", long.clone()).await;
        assert!(got.text.contains(&format!("body={MORE} ")), "{http:?}: {}", got.text);
        assert_eq!(last(&seen), seen_with("true", "xxxx"));
        for body in ["abcde".to_owned(), long] {
            assert_eq!(server.post(http, "/a", body).await.status, StatusCode::PAYLOAD_TOO_LARGE, "{http:?}");
            assert_eq!(last(&seen), "", "nobody is asked");
        }
        let got = server.post(http, "/bodiless", "abcde").await;
        assert!(got.text.contains("body=abcde "), "{}", got.text);
        assert_eq!(last(&seen), format!("POST /check/bodiless {PLAIN} "));
        server.post(http, "/bodily", "abcdefgh").await;
        assert!(last(&seen).ends_with(" abcdefgh"), "the route has another bound");
    }
}

/// A body that is too long is refused before anybody is asked, and so whatever happens then.
#[tokio::test]
async fn extauthz_a_body_that_is_too_long_passes_on_no_account() {
    let (_, address) = judge().await;
    let lax = json!({"with_request_body": {"max_request_bytes": 4}, "failure_mode_allow": true});
    let server = asking(address, lax).await;
    assert_eq!(server.post(Http::One, "/broken", "abcd").await.status, 200);
    assert_eq!(server.post(Http::One, "/broken", "abcde").await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Bodies of another server cannot be put together again.
#[tokio::test]
async fn extauthz_a_split_server_refuses_to_read_bodies() {
    let (_, address) = judge().await;
    for (more, serves) in [
        (json!({"routes": [plain()], "with_request_body": {"max_request_bytes": 4}}), false),
        (json!({}), false),
        (json!({"routes": [plain()]}), true),
    ] {
        let (_mesh, bound) = bound(address, more.clone()).await;
        let slot = bound.slot().clone();
        let (_listener, _layer) = bound.split();
        let decided = async {
            loop {
                match slot.state() {
                    ServingState::NotServing(error) if error.to_string().contains("reads bodies") => return false,
                    ServingState::Serving { .. } => return true,
                    ServingState::NotServing(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, decided).await.unwrap(), serves, "{more}");
    }
}
