//! Calls that reach their server.

use serde_json::json;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;

use super::backend::{Backend, serving};
use super::config::{cluster, forward, listener};
use super::{TARGET, ask, health, mesh, to};
use crate::{MeshChannel, error_of};

#[tokio::test]
async fn unary() {
    let backend = Backend::start().await;
    let response = health(&to(&[backend.address])).check(ask("")).await.unwrap();
    assert_eq!(response.into_inner(), serving());
    assert_eq!(backend.calls(), 1);
}

#[tokio::test]
async fn a_server_stream() {
    let backend = Backend::start().await;
    let mut messages = health(&to(&[backend.address])).watch(ask("")).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(messages.message().await.unwrap(), Some(serving()));
    }
    assert_eq!(messages.message().await.unwrap(), None);
}

#[tokio::test]
async fn metadata_goes_both_ways() {
    let backend = Backend::start().await;
    let mut request = ask("echo");
    request.metadata_mut().insert("x-text", "a".parse().unwrap());
    request.metadata_mut().insert_bin("x-bytes-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
    let response = health(&to(&[backend.address])).check(request).await.unwrap();
    let metadata = response.metadata();
    assert_eq!(metadata.get("x-text").unwrap(), "a");
    assert_eq!(&*metadata.get_bin("x-bytes-bin").unwrap().to_bytes().unwrap(), [0, 255]);
    assert!(metadata.get("user-agent").unwrap().to_str().unwrap().starts_with("grpc-rust-mesh/"));
}

#[tokio::test]
async fn every_form_of_a_target_is_a_channel() {
    let backend = Backend::start().await;
    let routes = json!([forward("blue")]);
    let resources = [listener("greeter:80", &routes), cluster("blue", &[backend.address])];
    let mesh = mesh(&resources).0;
    for target in ["xds:///greeter:80", "greeter", "http://greeter:80"] {
        HealthClient::new(MeshChannel::new(&mesh, target).unwrap()).check(ask("")).await.unwrap();
    }
    // For any host, the client says its own.
    let any = MeshChannel::from(mesh.http());
    HealthClient::with_origin(any, "http://greeter".parse().unwrap()).check(ask("")).await.unwrap();
    assert_eq!(backend.calls(), 4);
}

#[tokio::test]
async fn interceptors_see_and_refuse_calls() {
    let backend = Backend::start().await;
    let mesh = to(&[backend.address]);
    let channel = MeshChannel::new(&mesh, TARGET).unwrap();
    let mut marked = HealthClient::with_interceptor(channel.clone(), |mut request: Request<()>| {
        request.metadata_mut().insert("x-mark", "here".parse().unwrap());
        Ok(request)
    });
    let response = marked.check(ask("echo")).await.unwrap();
    assert_eq!(response.metadata().get("x-mark").unwrap(), "here");
    let mut refused = HealthClient::with_interceptor(channel, |_: Request<()>| Err(Status::unauthenticated("who?")));
    assert_eq!(refused.check(ask("")).await.unwrap_err().code(), Code::Unauthenticated);
    // The mesh's own errors pass an interceptor whole.
    let nowhere = MeshChannel::new(&to(&[]), TARGET).unwrap();
    let mut nowhere = HealthClient::with_interceptor(nowhere, |request: Request<()>| Ok(request));
    let status = nowhere.check(ask("")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(error_of(&status).map(crate::Error::code), Some(crate::Code::NO_ENDPOINTS));
}

#[tokio::test]
async fn a_server_s_status_passes_as_it_is() {
    let backend = Backend::start().await;
    let mut client = health(&to(&[backend.address]));
    let status = client.check(ask("fail")).await.unwrap_err();
    assert_eq!((status.code(), status.message(), status.details()), (Code::NotFound, "no \u{fc}ser", &[1, 2, 3][..]));
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    assert!(error_of(&status).is_none());

    let mut messages = client.watch(ask("fail")).await.unwrap().into_inner();
    for _ in 0..3 {
        messages.message().await.unwrap().unwrap();
    }
    let status = messages.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "half of it"));
    assert!(error_of(&status).is_none());
}

/// gRFC A44.
#[tokio::test]
async fn a_call_is_tried_again_as_its_route_says() {
    let backend = Backend::start().await;
    let mut route = forward("blue");
    route["route"]["retry_policy"] = json!({
        "retry_on": "unavailable", "num_retries": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"}});
    let blue = cluster("blue", &[backend.address]);
    let mesh = mesh(&[listener("greeter", &json!([route])), blue.clone()]).0;
    health(&mesh).check(ask("flaky")).await.unwrap();
    assert_eq!(backend.calls(), 3);
    // What is not listed is not tried again.
    assert_eq!(health(&mesh).check(ask("fail")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(backend.calls(), 4);

    let other = Backend::start().await;
    assert_eq!(health(&to(&[other.address])).check(ask("flaky")).await.unwrap_err().message(), "not yet");
    assert_eq!(other.calls(), 1);
}

#[tokio::test]
async fn messages_larger_than_every_window_pass() {
    let backend = Backend::start().await;
    let name = "x".repeat(3 << 20);
    let mut client = health(&to(&[backend.address])).max_encoding_message_size(4 << 20);
    client.check(ask(&name)).await.unwrap();
    // What tonic refuses to send: HTTP/2 takes the body's error, and leaves that there was one.
    let mut client = client.max_encoding_message_size(1 << 20);
    let status = client.check(ask(&name)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(error_of(&status).map(crate::Error::code), Some(crate::Code::BODY));
    assert_eq!(backend.calls(), 1);
}
