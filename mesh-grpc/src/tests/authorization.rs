//! External authorization by a real server: tonic's, of Envoy's own service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Struct, Value as PbValue, value::Kind};
use envoy_types::pb::google::rpc;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use mesh_core::source::MemorySource;
use mesh_tower::inbound::RequestBody;
use mesh_tower::outbound::WaitForReady;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::Server;

use super::backend::{PATIENCE, nobody};
use super::config::{HCM, cluster, encode, forward, listener};
use crate::Mesh;

/// What a path asks the server for: its first part.
#[derive(Debug, Clone, Default)]
struct Judge {
    seen: Arc<Mutex<Vec<CheckRequest>>>,
}

fn option(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

fn status(code: i32) -> Option<rpc::Status> {
    Some(rpc::Status { code, ..rpc::Status::default() })
}

fn allowed() -> CheckResponse {
    let parameter = QueryParameter { key: "who".to_owned(), value: "ann".to_owned() };
    let ok = OkHttpResponse {
        headers: vec![option("x-user", "ann")],
        headers_to_remove: vec!["x-secret".to_owned()],
        response_headers_to_add: vec![option("x-checked", "yes")],
        query_parameters_to_set: vec![parameter],
        query_parameters_to_remove: vec!["token".to_owned()],
        ..OkHttpResponse::default()
    };
    CheckResponse { status: status(0), http_response: Some(HttpResponse::OkResponse(ok)), ..CheckResponse::default() }
}

fn team(name: &str) -> CheckResponse {
    let value = PbValue { kind: Some(Kind::StringValue(name.to_owned())) };
    let metadata = Struct { fields: [("team".to_owned(), value)].into() };
    CheckResponse { dynamic_metadata: Some(metadata), ..allowed() }
}

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(&self, request: tonic::Request<CheckRequest>) -> Result<tonic::Response<CheckResponse>, Status> {
        assert_eq!(request.metadata().get("x-from").unwrap(), "mesh", "initial_metadata");
        let request = request.into_inner();
        let path = request.attributes.clone().unwrap().request.unwrap().http.unwrap().path;
        self.seen.lock().unwrap().push(request);
        let answer = match path.trim_start_matches('/').split(['/', '?']).next().unwrap() {
            "denied" => {
                let denied = DeniedHttpResponse {
                    status: Some(HttpStatus { code: 401 }),
                    headers: vec![option("x-why", "no"), option("content-type", "application/json")],
                    body: "{\"why\": \"no\"}".to_owned(),
                };
                let http_response = Some(HttpResponse::DeniedResponse(denied));
                CheckResponse { status: status(16), http_response, ..CheckResponse::default() }
            }
            "red" => team("red"),
            "blue" => team("blue"),
            "nonsense" => CheckResponse::default(),
            "down" => return Err(Status::unavailable("on purpose")),
            "silent" => std::future::pending().await,
            _ => allowed(),
        };
        Ok(tonic::Response::new(answer))
    }
}

async fn judge() -> (Judge, SocketAddr) {
    let judge = Judge::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(AuthorizationServer::new(judge.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (judge, address)
}

/// Says what it got.
#[derive(Debug, Clone)]
struct Echo;

impl tower_service::Service<Request<RequestBody>> for Echo {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap());
        let target = request.uri().path_and_query().unwrap();
        let failed = header("x-envoy-auth-failure-mode-allowed");
        let text = format!("{target} user={} secret={} failed={failed}", header("x-user"), header("x-secret"));
        std::future::ready(Ok(Response::new(Full::from(text))))
    }
}

/// A server's Listener that asks `authz`, and denies teams that are red.
fn asking(name: &str, address: SocketAddr, more: &Value) -> Value {
    let at = |url: &str| format!("type.googleapis.com/envoy.extensions.filters.http.{url}");
    let per_route = at("ext_authz.v3.ExtAuthzPerRoute");
    let mut config = json!({
        "@type": at("ext_authz.v3.ExtAuthz"),
        "transport_api_version": "V3",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": "authz"},
            "timeout": "0.5s",
            "initial_metadata": [{"key": "x-from", "value": "mesh"}],
        },
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    let red = json!({"metadata": {
        "filter": "envoy.filters.http.ext_authz", "path": [{"key": "team"}], "value": {"string_match": {"exact": "red"}}}});
    let rbac = json!({"@type": at("rbac.v3.RBAC"), "rules": {
        "action": "DENY", "policies": {"red": {"permissions": [{"any": true}], "principals": [red]}}}});
    let route = |prefix: &str, over: Value| json!({"match": {"prefix": prefix}, "non_forwarding_action": {}, "typed_per_filter_config": {"authz": over}});
    let routes = json!([
        route("/open", json!({"@type": per_route, "disabled": true})),
        route("/told", json!({"@type": per_route, "check_settings": {"context_extensions": {"route": "told"}}})),
        {"match": {"prefix": ""}, "non_forwarding_action": {}},
    ]);
    let manager = json!({
        "@type": HCM,
        "route_config": {"name": "table", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "authz", "typed_config": config},
            {"name": "rbac", "typed_config": rbac},
            {"name": "router", "typed_config": {"@type": at("router.v3.Router")}},
        ],
    });
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

/// A mesh whose server asks `authz`, whose endpoints are these; and how to call that server.
async fn asks(authz: Option<SocketAddr>, more: Value) -> Mesh {
    let source = MemorySource::new(Vec::new());
    let mesh = Mesh::builder().source(source.clone()).build().unwrap();
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let (address, name) = (bound.local_addr(), bound.slot().target().to_string());
    let mut resources =
        vec![asking(&name, address, &more), listener("app", &json!([forward("app")])), cluster("app", &[address])];
    resources.extend(authz.map(|authz| cluster("authz", &[authz])));
    source.set(encode(&resources));
    let (slot, socket) = bound.into_parts();
    tokio::spawn(mesh_tower::inbound::serve(slot, socket, Echo));
    mesh
}

struct Got {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

async fn get(mesh: &Mesh, path: &str, headers: &[(&str, &str)]) -> Got {
    let client = mesh.client("xds:///app").unwrap();
    let mut request = Request::get(format!("http://app{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(WaitForReady);
    let response = tokio::time::timeout(PATIENCE, client.send(request)).await.unwrap().unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got { status: head.status.as_u16(), headers: head.headers, text: String::from_utf8(body.to_vec()).unwrap() }
}

#[tokio::test]
async fn extauthz_who_is_allowed_passes_with_what_the_server_changes() {
    let (judge, address) = judge().await;
    let mesh = asks(Some(address), json!({})).await;
    let secret = [("x-secret", "s"), ("x-user", "root")];
    let got = get(&mesh, "/a?token=t&b=c", &secret).await;
    assert_eq!((got.status, got.text.as_str()), (200, "/a?b=c&who=ann user=ann secret=- failed=-"));
    assert_eq!(got.headers["x-checked"], "yes");
    let seen = judge.seen.lock().unwrap().pop().unwrap().attributes.unwrap();
    let http = seen.request.unwrap().http.unwrap();
    assert_eq!((&*http.method, &*http.path, &*http.host), ("GET", "/a?token=t&b=c", "app"));
    assert_eq!((&*http.headers["x-secret"], &*http.protocol), ("s", "HTTP/2"));
    assert!(seen.context_extensions.is_empty());
    get(&mesh, "/told", &[]).await;
    let told = judge.seen.lock().unwrap().pop().unwrap().attributes.unwrap();
    assert_eq!(told.context_extensions["route"], "told");
    let open = get(&mesh, "/open", &secret).await;
    assert_eq!((open.status, open.text.as_str()), (200, "/open user=root secret=s failed=-"));
    assert!(judge.seen.lock().unwrap().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn extauthz_who_is_denied_is_told_so_and_later_filters_see_what_was_said() {
    let (_, address) = judge().await;
    let mesh = asks(Some(address), json!({})).await;
    let got = get(&mesh, "/denied", &[]).await;
    assert_eq!((got.status, got.text.as_str()), (401, "{\"why\": \"no\"}"));
    assert_eq!(
        (&got.headers["x-why"], &got.headers["content-type"]),
        (&"no".parse().unwrap(), &"application/json".parse().unwrap())
    );
    assert_eq!(got.headers["x-mesh-code"], "MESH-313");
    assert_eq!((get(&mesh, "/blue", &[]).await.status, get(&mesh, "/red", &[]).await.status), (200, 403));
    let deaf = asks(Some(address), json!({"enable_dynamic_metadata_ingestion": false})).await;
    assert_eq!(get(&deaf, "/red", &[]).await.status, 200, "what is not taken is not seen");
    let short = asks(Some(address), json!({"max_denied_response_body_bytes": 5})).await;
    assert_eq!(get(&short, "/denied", &[]).await.text, "{\"why");
}

#[tokio::test]
async fn extauthz_without_an_answer_nobody_passes_unless_that_is_said() {
    let (_, address) = judge().await;
    let (closed, gone) = nobody();
    drop(closed);
    let allow = json!({"failure_mode_allow": true, "failure_mode_allow_header_add": true});
    let forged = [("x-envoy-auth-failure-mode-allowed", "true")];
    for (authz, path) in [(Some(address), "/silent"), (Some(address), "/down"), (Some(gone), "/a"), (None, "/a")] {
        let strict = asks(authz, json!({})).await;
        assert_eq!(get(&strict, path, &[]).await.status, 403, "{authz:?} {path}");
        let said = asks(authz, json!({"status_on_error": {"code": 503}})).await;
        assert_eq!(get(&said, path, &[]).await.status, 503, "{authz:?} {path}");
        let lax = asks(authz, allow.clone()).await;
        let got = get(&lax, path, &[]).await;
        assert_eq!((got.status, got.text.as_str()), (200, &*format!("{path} user=- secret=- failed=true")));
    }
    let lax = asks(Some(address), allow).await;
    assert_eq!(get(&lax, "/nonsense", &[]).await.status, 403, "an answer that is none is no silence");
    assert!(get(&lax, "/a", &forged).await.text.ends_with("failed=-"), "nobody else can say so");
}

#[tokio::test]
async fn extauthz_a_share_of_requests_is_asked_about() {
    let (judge, address) = judge().await;
    let none = json!({"filter_enabled": {"default_value": {"numerator": 0}}});
    let off = asks(Some(address), none.clone()).await;
    assert_eq!(get(&off, "/denied", &[]).await.status, 200);
    let mut deny = none;
    deny["deny_at_disable"] = json!({"default_value": true, "runtime_key": "k"});
    let denying = asks(Some(address), deny).await;
    assert_eq!(get(&denying, "/a", &[]).await.status, 403);
    assert!(judge.seen.lock().unwrap().is_empty());
}

/// What a client of gRPC sees of a denial.
#[tokio::test]
async fn extauthz_grpc_clients_see_a_status() {
    let (_, address) = judge().await;
    let mesh = asks(Some(address), json!({})).await;
    for (path, expected) in [("/denied/x", "16"), ("/silent/x", "7")] {
        let got = get(&mesh, path, &[("content-type", "application/grpc")]).await;
        assert_eq!(
            (got.status, &got.headers["grpc-status"]),
            (StatusCode::OK.as_u16(), &expected.parse().unwrap()),
            "{path}"
        );
    }
    tokio::time::timeout(PATIENCE, mesh.shutdown(Duration::ZERO)).await.unwrap();
}
