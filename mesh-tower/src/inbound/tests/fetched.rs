//! Keys that change while they are in use: fetched through the mesh, from a server that has none at first, then others, then
//! fails; and in a file that is replaced.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_core::policy::jwt::Algorithm;
use mesh_core::source::MemorySource;
use mesh_core::source::file::resource_from_json;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::ANY;
use super::client::{Client, Http};
use crate::Mesh;
use crate::inbound::BoxError;
use crate::secure::tests::tokens::TokenKey;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the server of keys answers now.
type Keys = Arc<Mutex<(StatusCode, String)>>;

/// A server of keys.
async fn key_server(keys: Keys) -> std::net::SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let keys = keys.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                assert_eq!(
                    (request.uri().path(), &request.headers()["host"]),
                    ("/jwks", &"keys.test".parse().unwrap())
                );
                let (status, body) = keys.lock().unwrap().clone();
                let response = Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap();
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let serve = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { drop(serve.serve_connection(TokioIo::new(stream), service).await) });
        }
    });
    address
}

fn remote() -> Value {
    json!({"remote_jwks": {
        "http_uri": {"uri": "http://keys.test/jwks", "cluster": "keys", "timeout": "5s"},
        "cache_duration": "0.1s",
        "async_fetch": {"failed_refetch_duration": "0.1s"},
    }})
}

fn listener(name: &str, address: std::net::SocketAddr, keys: &Value) -> Value {
    let at = |url: &str| format!("type.googleapis.com/envoy.extensions.filters.{url}");
    let mut provider = keys.clone();
    provider["issuer"] = json!("i");
    let jwt = json!({
        "@type": at("http.jwt_authn.v3.JwtAuthentication"),
        "providers": {"p": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}],
    });
    let routes = json!([{"match": {"prefix": ""}, "non_forwarding_action": {}}]);
    let manager = json!({
        "@type": at("network.http_connection_manager.v3.HttpConnectionManager"),
        "route_config": {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "jwt", "typed_config": jwt},
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

fn cluster(address: std::net::SocketAddr) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "keys",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "keys", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": {"socket_address": socket}}}]}]},
    })
}

/// The status and text of a request with this token, as soon as they are `expected`.
async fn becomes(address: std::net::SocketAddr, token: &str, expected: (u16, &str)) {
    let ask = async {
        loop {
            let (mut client, _) = Client::connect(Http::One, address).await.unwrap();
            let request = Request::get("/").header("host", "a.test").header("authorization", format!("Bearer {token}"));
            let found = client.send(request.body(Full::default()).unwrap()).await;
            // Until there is a Listener, connections are closed.
            let found = found.map(|answer| (answer.status.as_u16(), answer.text));
            if found.is_ok_and(|(status, text)| (status, text.as_str()) == expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("never {expected:?}"));
}

#[tokio::test]
async fn keys_are_fetched_rotated_and_kept() {
    let [first, second] = [(); 2].map(|()| TokenKey::new(Algorithm::Es256));
    let claims = json!({"iss": "i", "exp": 4_900_000_000_u64});
    let tokens = [("1", &first), ("2", &second)].map(|(kid, key)| key.token(kid, &claims));
    let keys: Keys = Arc::new(Mutex::new((StatusCode::NOT_FOUND, first.jwks("1"))));
    let answer = |status: StatusCode, body: String| *keys.lock().unwrap() = (status, body);
    let source = MemorySource::new(Vec::new());
    let mesh = Mesh::builder().source(source.clone()).build().unwrap();
    let bound = mesh.bind(ANY).await.unwrap();
    let (address, name) = (bound.local_addr(), bound.slot().target().to_string());
    let at = key_server(keys.clone()).await;
    source.set([listener(&name, address, &remote()), cluster(at)].iter().map(|json| resource_from_json(json).unwrap()));
    let (slot, socket) = bound.into_parts();
    let app = tower::service_fn(|_| async { Ok::<_, BoxError>(Response::new(Full::from("in"))) });
    tokio::spawn(crate::inbound::serve(slot, socket, app));

    becomes(address, &tokens[0], (401, "Jwks remote fetch is failed\n")).await;
    answer(StatusCode::OK, first.jwks("1"));
    becomes(address, &tokens[0], (200, "in")).await;
    answer(StatusCode::OK, second.jwks("2"));
    becomes(address, &tokens[1], (200, "in")).await;
    becomes(address, &tokens[0], (401, "Jwks doesn't have key to match kid or alg from Jwt\n")).await;
    for (status, body) in [(StatusCode::INTERNAL_SERVER_ERROR, second.jwks("2")), (StatusCode::OK, "{}".to_owned())] {
        answer(status, body);
        // Some fetches later the last good keys are still there.
        tokio::time::sleep(Duration::from_millis(500)).await;
        becomes(address, &tokens[1], (200, "in")).await;
        becomes(address, &tokens[0], (401, "Jwks doesn't have key to match kid or alg from Jwt\n")).await;
    }
}

/// A directory of this test's own, which goes with it.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mesh-jwks-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As Kubernetes replaces what it mounts: the file is behind a symbolic link that is replaced by a rename.
fn swap(scratch: &Scratch, version: &str, keys: &str) {
    let directory = scratch.0.join(version);
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("jwks.json"), keys).unwrap();
    let next = scratch.0.join("next");
    std::os::unix::fs::symlink(&directory, &next).unwrap();
    std::fs::rename(next, scratch.0.join("now")).unwrap();
}

#[tokio::test]
async fn keys_of_a_file_are_read_again_and_kept() {
    let [first, second] = [(); 2].map(|()| TokenKey::new(Algorithm::Es256));
    let claims = json!({"iss": "i", "exp": 4_900_000_000_u64});
    let tokens = [("1", &first), ("2", &second)].map(|(kid, key)| key.token(kid, &claims));
    let scratch = Scratch::new();
    swap(&scratch, "a", &first.jwks("1"));
    let file = scratch.0.join("now/jwks.json");
    let keys = json!({"local_jwks": {"filename": file, "watched_directory": {"path": scratch.0}}});
    let source = MemorySource::new(Vec::new());
    let mesh = Mesh::builder().source(source.clone()).build().unwrap();
    let bound = mesh.bind(ANY).await.unwrap();
    let (address, name) = (bound.local_addr(), bound.slot().target().to_string());
    source.set([resource_from_json(&listener(&name, address, &keys)).unwrap()]);
    let (slot, socket) = bound.into_parts();
    let app = tower::service_fn(|_| async { Ok::<_, BoxError>(Response::new(Full::from("in"))) });
    tokio::spawn(crate::inbound::serve(slot, socket, app));
    let unknown = (401, "Jwks doesn't have key to match kid or alg from Jwt\n");

    becomes(address, &tokens[0], (200, "in")).await;
    becomes(address, &tokens[1], unknown).await;
    swap(&scratch, "b", &second.jwks("2"));
    becomes(address, &tokens[1], (200, "in")).await;
    becomes(address, &tokens[0], unknown).await;
    for trouble in ["{", "gone"] {
        match trouble {
            "gone" => std::fs::remove_file(&file).unwrap(),
            text => std::fs::write(&file, text).unwrap(),
        }
        // Some readings later the last good keys are still there.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        becomes(address, &tokens[1], (200, "in")).await;
    }
    std::fs::write(&file, first.jwks("1")).unwrap();
    becomes(address, &tokens[0], (200, "in")).await;
}
