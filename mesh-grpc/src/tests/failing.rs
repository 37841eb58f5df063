//! Calls that do not reach their server: each has the code that the gRFCs ask for, and the mesh's own behind it.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use tonic::{Code as Grpc, Status};
use tonic_health::pb::health_client::HealthClient;

use super::backend::{Backend, PATIENCE, nobody};
use super::config::{cluster, encode, forward, listener};
use super::{TARGET, ask, health, mesh, to};
use crate::{Code, Error, Mesh, MeshChannel, WaitForReady, error_of};

/// That `status` is of this code, and the mesh's error behind it of that one.
#[track_caller]
fn is(status: &Status, grpc: Grpc, code: Code) {
    let found = error_of(status).map(Error::code);
    assert_eq!((status.code(), found), (grpc, Some(code)), "{status:?}");
    assert!(status.message().starts_with(&format!("{code}: ")), "{}", status.message());
}

async fn failed(mesh: &Mesh) -> Status {
    timeout(PATIENCE, health(mesh).check(ask(""))).await.unwrap().unwrap_err()
}

#[tokio::test]
async fn nothing_is_configured() {
    let status = failed(&mesh(&[]).0).await;
    is(&status, Grpc::Unavailable, Code::RESOURCE_NOT_FOUND);
    assert!(status.message().contains("greeter"), "{}", status.message());
}

#[tokio::test]
async fn no_endpoints() {
    let status = failed(&to(&[])).await;
    is(&status, Grpc::Unavailable, Code::NO_ENDPOINTS);
    assert!(status.message().contains("cluster `blue`"), "{}", status.message());
}

#[tokio::test]
async fn the_connection_is_refused() {
    let (_reserved, address) = nobody();
    let status = failed(&to(&[address])).await;
    is(&status, Grpc::Unavailable, Code::NO_CONNECTION);
    assert!(status.message().contains(&address.to_string()), "{}", status.message());
}

/// gRFC A88: where no endpoint can be reached, and nothing is wrong with the configuration, the text says who asks.
#[cfg(feature = "control")]
#[tokio::test]
async fn a88_where_nobody_is_reached_the_text_carries_the_node_id() {
    let (_reserved, address) = nobody();
    for (endpoints, code) in [(&[][..], Code::NO_ENDPOINTS), (&[address], Code::NO_CONNECTION)] {
        let resources = [listener("greeter", &json!([forward("blue")])), cluster("blue", endpoints)];
        let builder = crate::control::ControlPlane::builder().resources(encode(&resources));
        let control = builder.listen("127.0.0.1:0").await.unwrap();
        let bootstrap = crate::Bootstrap::from_json(&control.bootstrap("node-7").to_json()).unwrap();
        let status = failed(&Mesh::builder().bootstrap(bootstrap).build().unwrap()).await;
        is(&status, Grpc::Unavailable, code);
        assert!(status.message().contains("[xDS node id: node-7]"), "{}", status.message());
        // Without a control plane there is nobody to name.
        let status = failed(&mesh(&resources).0).await;
        is(&status, Grpc::Unavailable, code);
        assert!(!status.message().contains("node id"), "{}", status.message());
    }
}

/// gRFC A28.
#[tokio::test]
async fn no_route_matches() {
    let routes = json!([{"match": {"path": "/other.Service/Call"}, "route": {"cluster": "blue"}}]);
    let status = failed(&mesh(&[listener("greeter", &routes), cluster("blue", &[])]).0).await;
    is(&status, Grpc::Unavailable, Code::NO_ROUTE);
}

#[tokio::test]
async fn no_virtual_host_matches() {
    let mut listener = listener("greeter", &json!([forward("blue")]));
    listener["api_listener"]["api_listener"]["route_config"]["virtual_hosts"][0]["domains"] = json!(["other"]);
    let status = failed(&mesh(&[listener, cluster("blue", &[])]).0).await;
    is(&status, Grpc::Unavailable, Code::NO_VIRTUAL_HOST);
}

/// gRFC A31.
#[tokio::test]
async fn the_cluster_is_not_there() {
    let status = failed(&mesh(&[listener("greeter", &json!([forward("blue")]))]).0).await;
    assert_eq!(status.code(), Grpc::Unavailable);
    assert!(error_of(&status).is_some() && status.message().contains("blue"), "{status:?}");
}

#[tokio::test]
async fn the_listener_is_not_valid() {
    let routes = json!([{"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "blue"}}]);
    let status = failed(&mesh(&[listener("greeter", &routes)]).0).await;
    is(&status, Grpc::Unavailable, Code::RESOURCE_REFUSED);
}

#[tokio::test]
async fn the_deadline_is_over_before_the_answer() {
    let backend = Backend::start().await;
    let mut request = ask("hang");
    request.set_timeout(Duration::from_millis(50));
    let status = timeout(PATIENCE, health(&to(&[backend.address])).check(request)).await.unwrap().unwrap_err();
    is(&status, Grpc::DeadlineExceeded, Code::DEADLINE);
}

#[tokio::test]
async fn the_deadline_is_over_within_the_answer() {
    let backend = Backend::start().await;
    let mut request = ask("hang");
    request.set_timeout(Duration::from_millis(200));
    let mut messages = health(&to(&[backend.address])).watch(request).await.unwrap().into_inner();
    let all = async {
        loop {
            if let Err(status) = messages.message().await.map(Option::unwrap) {
                return status;
            }
        }
    };
    is(&timeout(PATIENCE, all).await.unwrap(), Grpc::DeadlineExceeded, Code::DEADLINE);
}

/// gRFC A32.
#[tokio::test]
async fn the_cluster_is_overloaded() {
    let backend = Backend::start().await;
    let mut blue = cluster("blue", &[backend.address]);
    blue["circuit_breakers"] = json!({"thresholds": [{"max_requests": 1}]});
    let mesh = mesh(&[listener("greeter", &json!([forward("blue")])), blue]).0;
    let mut client = health(&mesh);
    let first = client.watch(ask("hang")).await.unwrap();
    is(&failed(&mesh).await, Grpc::Unavailable, Code::OVERLOADED);
    drop(first);
    client.check(ask("")).await.unwrap();
}

#[tokio::test]
async fn the_server_dies_within_the_answer() {
    let backend = Backend::start().await;
    let mut messages = health(&to(&[backend.address])).watch(ask("hang")).await.unwrap().into_inner();
    messages.message().await.unwrap().unwrap();
    drop(backend);
    let rest = async {
        loop {
            if let Err(status) = messages.message().await.map(Option::unwrap) {
                return status;
            }
        }
    };
    is(&timeout(PATIENCE, rest).await.unwrap(), Grpc::Unavailable, Code::BROKEN);
}

#[tokio::test]
async fn the_mesh_was_shut_down() {
    let backend = Backend::start().await;
    let mesh = to(&[backend.address]);
    let mut client = health(&mesh);
    client.check(ask("")).await.unwrap();
    mesh.shutdown(PATIENCE).await;
    is(&client.check(ask("")).await.unwrap_err(), Grpc::Unavailable, Code::SHUT_DOWN);
}

#[tokio::test]
async fn misuse_says_what_to_do() {
    let mesh = mesh(&[]).0;
    let error = MeshChannel::new(&mesh, "dns:///greeter").unwrap_err();
    assert_eq!(error.code(), Code::BAD_TARGET);
    assert!(error.to_string().contains("dns:///greeter") && error.to_string().contains("xds:///"), "{error}");
    let error = Mesh::builder().file("/no/such/mesh.yaml").build().unwrap_err();
    assert_eq!(error.code(), Code::BAD_FILE);
    // The environment of a test has no configuration.
    let error = Mesh::from_env().unwrap_err();
    assert_eq!(error.code(), Code::NO_BOOTSTRAP);
    assert!(error.to_string().contains("GRPC_XDS_BOOTSTRAP"), "{error}");
}

#[tokio::test]
async fn a_call_waits_for_what_it_needs_if_it_asks_to() {
    let backend = Backend::start().await;
    let (_reserved, refused) = nobody();
    let routes = listener("greeter", &json!([forward("blue")]));
    let (mesh, source) = mesh(&[routes.clone(), cluster("blue", &[refused])]);
    let mut client = HealthClient::new(MeshChannel::new(&mesh, TARGET).unwrap());
    is(&client.check(ask("")).await.unwrap_err(), Grpc::Unavailable, Code::NO_CONNECTION);

    let mut request = ask("");
    request.extensions_mut().insert(WaitForReady);
    let mut waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.check(request).await });
    let mut limited = ask("");
    limited.extensions_mut().insert(WaitForReady);
    limited.set_timeout(Duration::from_millis(50));
    is(&client.check(limited).await.unwrap_err(), Grpc::DeadlineExceeded, Code::DEADLINE);
    assert!(!waiting.is_finished());
    source.set(encode(&[routes, cluster("blue", &[backend.address])]));
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
}
