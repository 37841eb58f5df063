//! Hosts that are not in the mesh: refused, or let pass; and everything that must not pass for one.

use std::time::Duration;

use http::{Request, StatusCode, Version};
use mesh_core::ads::Settings;
use mesh_core::bootstrap::Bootstrap;
use mesh_core::error::Code;
use serde_json::json;

use super::*;
use crate::body::MeshBody;
use crate::outbound::{OutboundOptions, UnknownHosts};

/// A mesh that lets hosts pass which it does not know.
fn passing(resources: &[Value]) -> (Mesh, MemorySource) {
    let source = MemorySource::new(encode(resources));
    let builder = Mesh::builder().source(source.clone()).unknown_hosts(UnknownHosts::PassThrough);
    (builder.build().unwrap(), source)
}

/// The backend by a name that DNS knows.
fn url(backend: &Backend) -> String {
    format!("http://localhost:{}/x", backend.address.port())
}

fn name(backend: &Backend) -> String {
    format!("localhost:{}", backend.address.port())
}

#[tokio::test]
async fn a_host_that_is_not_in_the_mesh_is_refused_with_the_option_that_would_let_it_pass() {
    let backend = Backend::start("one").await;
    let error = mesh(&[]).0.http().get(&url(&backend)).await.unwrap_err();
    assert_eq!(error.code(), Code::UNKNOWN_HOST);
    let text = error.to_string();
    assert!(text.contains(&name(&backend)) && text.contains("UnknownHosts::PassThrough"), "{text}");
    assert_eq!(backend.count(), 0);
    assert_eq!(OutboundOptions::default().unknown_hosts, UnknownHosts::Refuse);
}

#[tokio::test]
async fn a_host_that_is_not_in_the_mesh_is_let_pass_by_dns() {
    let backend = Backend::start("one").await;
    let client = passing(&[]).0.http();
    let response = client.get(&url(&backend)).await.unwrap();
    assert_eq!(response.body().endpoint_address(), Some(backend.address));
    assert_eq!(text(response).await, format!("one GET /x {}", name(&backend)));
    assert_eq!(backend.version(), Version::HTTP_11);
    let literal = format!("http://{}/", backend.address);
    assert_eq!(get(&client, &literal).await.1, format!("one GET / {}", backend.address));
}

#[tokio::test]
async fn a_request_of_http2_and_grpc_pass_as_http2() {
    let backend = Backend::start("one").await;
    let client = passing(&[]).0.http();
    let h2 = Request::get(url(&backend)).version(Version::HTTP_2).body(MeshBody::empty()).unwrap();
    let grpc = Request::post(url(&backend)).header("content-type", "application/grpc").body(MeshBody::empty()).unwrap();
    for request in [h2, grpc] {
        assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
        assert_eq!(backend.version(), Version::HTTP_2);
    }
}

#[tokio::test]
async fn what_is_in_the_mesh_takes_the_mesh_and_a_host_may_come_and_go() {
    let (inside, outside) = (Backend::start("inside").await, Backend::start("outside").await);
    let host = name(&outside);
    let all = [listener(&host, &routes(&to("c"))), cluster("c", &[inside.address])];
    // What was deleted is used on for a while, unless told otherwise.
    let mut settings = Settings::default();
    settings.deletion_grace = Some(Duration::ZERO);
    let source = MemorySource::new(encode(&all)).with_settings(settings);
    let mesh = Mesh::builder().source(source.clone()).unknown_hosts(UnknownHosts::PassThrough).build().unwrap();
    let client = mesh.http();
    let until = async |name: &str| {
        while !get(&client, &url(&outside)).await.1.starts_with(name) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(get(&client, &url(&outside)).await.1.starts_with("inside"));
    source.set([]);
    tokio::time::timeout(PATIENCE, until("outside")).await.unwrap();
    source.set(encode(&all));
    tokio::time::timeout(PATIENCE, until("inside")).await.unwrap();
}

/// Long enough for anything that is to come at all.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_fixed_target_does_not_pass() {
    let backend = Backend::start("one").await;
    let mesh = passing(&[]).0;
    // The client for any host shares its target.
    assert_eq!(get(&mesh.http(), &url(&backend)).await.0, StatusCode::OK);
    let fixed = mesh.client(&name(&backend)).unwrap();
    assert_eq!(code(fixed.get(&url(&backend)).await), Code::RESOURCE_NOT_FOUND);
    assert_eq!(mesh.ready(&name(&backend)).await.unwrap_err().code(), Code::RESOURCE_NOT_FOUND);
    assert_eq!(backend.count(), 1);
}

/// Each of these says nothing about whether the host is in the mesh, or says that it is.
#[tokio::test]
async fn a_host_of_the_mesh_that_is_badly_configured_does_not_pass() {
    let backend = Backend::start("one").await;
    let host = name(&backend);
    let by_name = |table: &str| {
        let mut value = listener(&host, &json!({}));
        let http = &mut value["api_listener"]["api_listener"];
        http.as_object_mut().unwrap().remove("route_config");
        http["rds"] = json!({"config_source": {"ads": {}}, "route_config_name": table});
        value
    };
    let mut refused = listener(&host, &routes(&to("c")));
    refused["api_listener"]["api_listener"]["http_filters"] = json!([]);
    let elsewhere = json!({"virtual_hosts": [{"name": "v", "domains": ["other"], "routes": to("c")}]});
    let nothing = routes(&json!([]));
    for (resources, expected) in [
        (vec![by_name("missing")], Code::RESOURCE_NOT_FOUND),
        (vec![refused], Code::RESOURCE_REFUSED),
        (vec![listener(&host, &elsewhere)], Code::NO_VIRTUAL_HOST),
        (vec![listener(&host, &nothing)], Code::NO_ROUTE),
        (vec![listener(&host, &routes(&to("c"))), cluster("c", &[])], Code::NO_ENDPOINTS),
    ] {
        assert_eq!(code(passing(&resources).0.http().get(&url(&backend)).await), expected);
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_control_plane_that_is_away_or_silent_lets_nothing_pass() {
    let backend = Backend::start("one").await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let brief = Duration::from_millis(50);
    let mut settings = Settings::default();
    (settings.resource_timeout, settings.connect_timeout, settings.patience) = (brief, brief, brief);
    for (server, expected) in [(nobody, Code::NO_CONTROL_PLANE), (silent.local_addr().unwrap(), Code::RESOURCE_TIMEOUT)]
    {
        let bootstrap = format!(
            r#"{{"xds_servers": [{{"server_uri": "{server}", "channel_creds": [{{"type": "insecure"}}]}}], "node": {{"id": "me"}}}}"#
        );
        let builder = Mesh::builder().bootstrap(Bootstrap::from_json(&bootstrap).unwrap()).xds(settings.clone());
        let mesh = builder.unknown_hosts(UnknownHosts::PassThrough).build().unwrap();
        assert_eq!(code(mesh.http().get(&url(&backend)).await), expected);
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_host_that_is_not_there_says_so_and_is_found_when_it_is() {
    let backend = Backend::start("one").await;
    let (address, url) = (backend.address, url(&backend));
    let client = passing(&[]).0.http();
    assert_eq!(get(&client, &url).await.0, StatusCode::OK);
    backend.stop().await;
    let error = client.get(&url).await.unwrap_err();
    assert_eq!(error.code(), Code::NO_CONNECTION);
    assert!(error.message().contains(&format!("localhost:{} (passed through)", address.port())), "{error}");
    let _again = Backend::start_at("two", address).await;
    assert!(get(&client, &url).await.1.starts_with("two"), "no backoff stands in the way");
    assert_eq!(code(client.get("http://nothing.invalid/").await), Code::NO_CONNECTION);
}

#[tokio::test]
async fn requests_that_come_at_once_share_one_verdict_about_a_host() {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    let connector = tower::service_fn(move |_uri: http::Uri| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err::<hyper_util::rt::TokioIo<tokio::net::TcpStream>, _>(std::io::Error::other("no way"))
        }
    });
    let builder = Mesh::builder().source(MemorySource::new([])).connector(connector);
    let client = builder.unknown_hosts(UnknownHosts::PassThrough).build().unwrap().http();
    assert_eq!(code(client.get("http://192.0.2.1/").await), Code::NO_CONNECTION);
    let requests: Vec<_> = (0..50).map(|_| tokio::spawn(client.get("http://192.0.2.1/"))).collect();
    for request in requests {
        assert_eq!(code(request.await.unwrap()), Code::NO_CONNECTION);
    }
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) <= 4, "they did not wait one after the other");
}

#[tokio::test]
async fn a_grpc_deadline_ends_a_call_that_passes() {
    let backend = Backend::start("one").await;
    let request = Request::post(url(&backend)).header("content-type", "application/grpc");
    let request = request.header("grpc-timeout", "50m").header("x-plan", "hang").body(MeshBody::empty()).unwrap();
    assert_eq!(code(passing(&[]).0.http().send(request).await), Code::DEADLINE);
}
