//! The ways in for an application's own parts, and both ends in one mesh.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::error::Code;
use serde_json::json;
use tower_layer::Layer;

use super::*;
use crate::body::MeshBody;
use crate::connect::PickedEndpoint;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Answers with what it sees of the request, without any network.
fn seer() -> impl tower::Service<
    Request<MeshBody>,
    Response = Response<Full<bytes::Bytes>>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(|request: Request<MeshBody>| async move {
        let picked = request.extensions().get::<PickedEndpoint>().unwrap().clone();
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        let text = format!("{} host={} at={}", request.uri(), host.unwrap_or_default(), picked.address);
        Ok(Response::new(Full::from(text)))
    })
}

#[tokio::test]
async fn a_layer_balances_over_a_service_of_the_application() {
    let endpoints = [address(1), address(2)];
    let (mesh, _source) = mesh(&[listener("a", &routes(&to("one"))), cluster("one", &endpoints)]);
    let service = mesh.layer("xds:///a").unwrap().layer(seer());
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(get(&service, "http://a/x").await.1);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(
        seen,
        ["http://127.0.0.1:1/x host=a at=127.0.0.1:1", "http://127.0.0.1:2/x host=a at=127.0.0.1:2"],
        "round robin over both"
    );
}

#[tokio::test]
async fn a_layer_retries_with_what_the_application_put_into_the_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mine(u8);
    let count = Arc::new(AtomicUsize::new(0));
    let service = {
        let count = count.clone();
        tower::service_fn(move |request: Request<MeshBody>| {
            assert_eq!(request.extensions().get(), Some(&Mine(7)));
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let status = if first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            let response = Response::builder().status(status).body(Full::from("")).unwrap();
            std::future::ready(Ok::<Response<Full<bytes::Bytes>>, std::convert::Infallible>(response))
        })
    };
    let table = routes(&json!([{"match": {"prefix": "/"},
        "route": {"cluster": "one", "retry_policy": {"retry_on": "5xx", "num_retries": 1}}}]));
    let (mesh, _source) = mesh(&[listener("a", &table), cluster("one", &[address(1)])]);
    let client = mesh.layer("xds:///a").unwrap().layer(service);
    let request = Request::get("/").extension(Mine(7)).body(MeshBody::empty()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_layer_cannot_prove_tls_and_says_so() {
    let mut secure = cluster("one", &[address(1)]);
    secure["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"validation_context": {"system_root_certs": {}}}}});
    let (mesh, _source) = mesh(&[listener("a", &routes(&to("one"))), secure]);
    let client = mesh.layer("xds:///a").unwrap().layer(seer());
    assert_eq!(code(client.get("/").await), Code::UNPROVABLE_TLS);
}

#[tokio::test]
async fn a_make_layer_has_one_service_for_each_endpoint() {
    let made = Arc::new(AtomicUsize::new(0));
    let maker = {
        let made = made.clone();
        tower::service_fn(move |_picked: PickedEndpoint| {
            made.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok::<_, std::convert::Infallible>(seer()))
        })
    };
    let (mesh, _source) = mesh(&[listener("a", &routes(&to("one"))), cluster("one", &[address(1), address(2)])]);
    let client = mesh.make_layer("xds:///a").unwrap().layer(maker);
    for _ in 0..10 {
        assert_eq!(get(&client, "http://a/").await.0, StatusCode::OK);
    }
    assert!((1..=2).contains(&made.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn a_client_that_comes_later_gets_what_is_already_known() {
    let one = Backend::start("one").await;
    let (mesh, _source) = mesh(&[listener("a", &routes(&to("one"))), cluster("one", &[one.address])]);
    let first = mesh.client("xds:///a").unwrap();
    assert_eq!(get(&first, "/").await.0, StatusCode::OK);
    let late = mesh.layer("xds:///a").unwrap().layer(seer());
    assert!(get(&late, "http://a/").await.1.contains("host=a"));
    drop(first);
    assert!(get(&late, "http://a/").await.1.contains("host=a"), "the other client's end is not this one's");
}

#[tokio::test]
async fn the_applications_connector_makes_the_connections() {
    use hyper_util::rt::TokioIo;

    let one = Backend::start("one").await;
    let real = one.address;
    // Whatever the endpoint's address, the connector knows better.
    let connector = tower::service_fn(move |_uri: http::Uri| async move {
        tokio::net::TcpStream::connect(real).await.map(TokioIo::new)
    });
    let source = MemorySource::new(encode(&[listener("a:80", &routes(&to("one"))), cluster("one", &[address(1)])]));
    let mesh = Mesh::builder().source(source).connector(connector).build().unwrap();
    assert_eq!(get(&mesh.http(), "http://a/").await.1, "one GET / a");
}

#[tokio::test]
async fn a_mesh_outside_a_runtime_is_an_error() {
    let built = std::thread::spawn(|| Mesh::builder().source(MemorySource::new([])).build().map(drop));
    assert_eq!(built.join().unwrap().unwrap_err().code(), Code::NO_RUNTIME);
}

#[cfg(feature = "server")]
#[tokio::test]
async fn one_mesh_calls_itself() {
    use std::time::Duration;

    let (mesh, source) = mesh(&[]);
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let at = bound.local_addr();
    let server = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": format!("grpc/server?xds.resource.listening_address={at}"),
        "address": {"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": HCM,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "non_forwarding_action": {}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}]}}]}],
    });
    source.set(encode(&[listener("a:80", &routes(&to("one"))), cluster("one", &[at]), server]));
    let (slot, socket) = bound.into_parts();
    let app = tower::service_fn(|request: Request<crate::inbound::RequestBody>| async move {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::from(request.uri().path().to_owned())))
    });
    let serving = tokio::spawn(crate::inbound::serve(slot.clone(), socket, app));
    slot.serving().await;
    assert_eq!(get(&mesh.http(), "http://a/x").await, (StatusCode::OK, "/x".to_owned()));
    mesh.shutdown(Duration::from_secs(5)).await;
    serving.await.unwrap();
}
