//! Each way in which it can fail, as a client sees it.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use mesh_core::decode::{DecodeResource, Decoded, Decoder, Registry};
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey};
use tonic::Code;

use super::client::{Client, Frames, channel};
use super::*;
use crate::control::invalid::{garbage, invalid};

#[tokio::test]
async fn stalled_it_hears_and_says_nothing_until_it_resumes() {
    let control = serving([listener("a", "1")]).await;
    control.faults().stall();
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    control.events().find(|event| event.request().cloned()).await.unwrap();
    control.set([listener("a", "2")]);
    let silence = tokio::time::timeout(Duration::from_millis(50), client.message()).await;
    assert!(silence.is_err(), "it said something");
    control.faults().resume();
    assert_eq!(client.response().await.resources.len(), 1);
}

#[tokio::test]
async fn refusing_ends_streams_and_new_ones_too() {
    let control = serving([listener("a", "1")]).await;
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    client.response().await;
    control.faults().refuse();
    assert_eq!(client.message().await.unwrap_err().code(), Code::Unavailable);
    let mut next = Client::connect(control.address()).await;
    assert_eq!(next.message().await.unwrap_err().code(), Code::Unavailable);
    control.faults().resume();
    let mut last = Client::connect(control.address()).await;
    last.subscribe(LISTENER, &["a"]);
    assert_eq!(last.response().await.resources.len(), 1);
}

#[tokio::test]
async fn torn_in_the_middle_of_a_response() {
    let control = serving([listener("a", "1")]).await;
    assert_eq!(control.faults().tear(), 0, "no stream is open");
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    client.response().await;
    assert_eq!(control.faults().tear(), 1);
    let status = client.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");

    let mut next = Frames::ask(control.address(), LISTENER, &["a"]).await;
    let whole = next.next().await.unwrap();
    control.faults().tear();
    assert_eq!(next.next().await.unwrap(), whole.slice(..whole.len() / 2), "half of it arrived");
    assert_eq!(next.next().await, None);
}

#[tokio::test]
async fn garbage_is_a_message_that_is_no_response() {
    let control = serving([listener("a", "1")]).await;
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    client.response().await;
    assert_eq!(control.faults().garbage(), 1);
    let message = client.message().await.unwrap().unwrap();
    DiscoveryResponse::decode(message).unwrap_err();
    control.set([listener("a", "2")]);
    assert_eq!(client.response().await.resources.len(), 1, "the stream goes on");
}

#[tokio::test]
async fn a_spoiled_resource_is_pushed_and_healed() {
    let control = serving([listener("a", "1"), listener("b", "1")]).await;
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a", "b"]);
    let good = client.response().await;
    control.faults().spoil("a");
    let bad = client.response().await;
    assert_ne!(good.resources[0], bad.resources[0]);
    assert_eq!(good.resources[1], bad.resources[1], "its sibling is unharmed");
    client.nack(&bad, &["a", "b"], "a is not valid");
    control.events().find(|event| event.nack().map(str::to_owned)).await.unwrap();
    control.set([listener("a", "1"), listener("b", "2")]);
    assert_eq!(client.response().await.resources[0], bad.resources[0], "an edit does not heal it");
    control.faults().heal();
    assert_eq!(client.response().await.resources[0], good.resources[0]);
}

#[test]
fn scrambled_bytes_are_no_message_of_any_type() {
    let decoder = Decoder::new(Arc::new(Registry::standard()), []);
    for type_url in [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT] {
        match decoder.decode(type_url, &garbage(&ResourceKey::new(type_url, "it")).bytes) {
            Decoded::Err { name: None, .. } => {}
            other => panic!("{type_url}: {other:?}"),
        }
    }
}

#[test]
fn a_spoiled_resource_of_each_type_is_refused_by_name() {
    let decoder = Decoder::new(Arc::new(Registry::standard()), []);
    for type_url in [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT] {
        let spoiled = invalid(&ResourceKey::new(type_url, "it"));
        match decoder.decode(type_url, &spoiled.bytes) {
            Decoded::Err { name, .. } => assert_eq!(name.as_deref(), Some("it")),
            other => panic!("{type_url}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_each_response_back() {
    let control = serving([listener("a", "1")]).await;
    control.faults().delay(Duration::from_secs(3600));
    let mut client = Client::connect(control.address()).await;
    let began = tokio::time::Instant::now();
    client.subscribe(LISTENER, &["a"]);
    client.response().await;
    assert!(began.elapsed() >= Duration::from_secs(3600));
}

#[tokio::test]
async fn it_vanishes_and_comes_back_on_the_same_address() {
    let control = serving([listener("a", "1")]).await;
    let address = control.address();
    let mut client = Client::connect(address).await;
    client.subscribe(LISTENER, &["a"]);
    client.response().await;
    control.faults().vanish().await;
    client.message().await.unwrap_err();
    channel(address).await.unwrap_err();
    control.faults().vanish().await;
    control.set([listener("a", "2"), listener("b", "1")]);

    control.faults().come_back().await.unwrap();
    control.faults().come_back().await.unwrap();
    assert_eq!(control.address(), address);
    let mut client = Client::connect(address).await;
    client.subscribe(LISTENER, &["a", "b"]);
    assert_eq!(client.response().await.resources.len(), 2);

    control.shutdown().await;
    channel(address).await.unwrap_err();
}

#[tokio::test]
async fn dropping_it_closes_everything() {
    let control = serving([]).await;
    let mut client = Client::connect(control.address()).await;
    let mut events = control.events();
    drop(control);
    client.message().await.unwrap_err();
    while events.next().await.is_some() {}
}
