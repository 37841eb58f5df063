//! Services on a server of the mesh, by the one-liner.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::backend::{Named, PATIENCE, nobody, serving};
use super::config::{cluster, encode, forward, listener, server_listener};
use super::{ask, health, mesh};
use crate::{Mesh, serve_on};

/// A mesh that serves the health service, as `service` wraps it, and calls it.
async fn both<S>(service: S) -> Mesh
where
    S: tower_service::Service<
            http::Request<mesh_tower::inbound::RequestBody>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (mesh, source) = mesh(&[]);
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let (address, name) = (bound.local_addr(), bound.slot().target().to_string());
    source.set(encode(&[
        server_listener(&name, address, None),
        listener("greeter", &json!([forward("blue")])),
        cluster("blue", &[address]),
    ]));
    tokio::spawn(serve_on(bound, service));
    mesh
}

#[tokio::test]
async fn one_service() {
    let mesh = both(HealthServer::new(Named::default())).await;
    let mut client = health(&mesh);
    let mut first = ask("whoami");
    first.extensions_mut().insert(crate::WaitForReady);
    let response = timeout(PATIENCE, client.check(first)).await.unwrap().unwrap();
    assert!(response.metadata().get("x-who").is_none(), "without a certificate nobody is anybody");
    let mut messages = client.watch(ask("")).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(messages.message().await.unwrap(), Some(serving()));
    }
    assert_eq!(messages.message().await.unwrap(), None);
    assert_eq!(client.check(ask("fail")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn several_services() {
    let mesh = both(Routes::new(HealthServer::new(Named::default()))).await;
    let mut request = ask("");
    request.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, health(&mesh).check(request)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_s_deadline_ends_the_handler() {
    let service = Named::default();
    let (begun, ended) = (service.calls.clone(), service.dropped.clone());
    let mesh = both(HealthServer::new(service)).await;
    let mut request = ask("hang");
    request.extensions_mut().insert(crate::WaitForReady);
    request.set_timeout(Duration::from_millis(300));
    let status = timeout(PATIENCE, health(&mesh).check(request)).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    timeout(PATIENCE, ended.notified()).await.unwrap();
    assert_eq!(begun.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_one_liner_ends_with_the_mesh() {
    let (mesh, _source) = mesh(&[]);
    let (socket, address) = nobody();
    drop(socket);
    let serving = tokio::spawn({
        let mesh = mesh.clone();
        async move { crate::serve(&mesh, address, HealthServer::new(Named::default())).await }
    });
    while mesh.bind(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    mesh.shutdown(PATIENCE).await;
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}
