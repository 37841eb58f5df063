//! Calls that reach their server.

use super::backend::{Backend, serving};
use super::{ask, health, to};

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
