//! What a well-behaved control plane says, and what it remembers.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::rpc;
use mesh_core::ads::{DELTA_AGGREGATED_RESOURCES, Variant};
use mesh_core::publish::Publisher;
use mesh_core::resource::{CLUSTER, LISTENER, TYPE_URL_PREFIX};
use mesh_core::source::responder::ResourceSet;
use tonic::Code;

use super::client::Client;
use super::*;
use crate::control::{Verdict, What};

fn contents(response: &envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse) -> Vec<String> {
    let read = |any: &envoy_types::pb::google::protobuf::Any| Listener::decode(&any.value[..]).unwrap();
    response.resources.iter().map(read).map(|l| format!("{} {}", l.name, l.stat_prefix)).collect()
}

#[tokio::test]
async fn a_client_is_answered_and_pushed_what_changed() {
    let control = serving([listener("a", "1"), listener("b", "1")]).await;
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    let first = client.response().await;
    assert_eq!(contents(&first), ["a 1"]);
    client.ack(&first, &["a"]);
    client.ack(&first, &["a", "c"]);
    assert_eq!(client.response().await.resource_errors.len(), 1);

    control.set([listener("a", "2"), listener("b", "1")]);
    let second = client.response().await;
    assert_eq!(contents(&second), ["a 2"]);
    assert_ne!(first.version_info, second.version_info);
    client.nack(&second, &["a", "c"], "the reason");

    let mut events = control.events();
    let (node, acked) =
        events.find(|event| event.ack(LISTENER).map(|ack| (event.node.clone(), ack.version.clone()))).await.unwrap();
    assert_eq!((&*node, acked), ("tester", first.version_info.clone()));
    assert_eq!(events.find(|event| event.nack().map(str::to_owned)).await.unwrap(), "the reason");
    let [stream] = &control.streams()[..] else { panic!("one stream is open") };
    assert_eq!((stream.id, &*stream.node, stream.subscriptions.len()), (1, "tester", 2));
    let verdicts: Vec<_> = control.log().iter().filter_map(|event| Some(event.request()?.verdict.clone())).collect();
    let expected = [Verdict::None, Verdict::Ack, Verdict::None, Verdict::Nack("the reason".to_owned())];
    assert_eq!(verdicts, expected, "a change of names is no second ACK");
}

#[tokio::test]
async fn delta_a_client_is_answered_and_pushed_what_changed() {
    let control = serving([listener("a", "1"), listener("b", "1")]).await;
    let mut client = Client::call(control.address(), DELTA_AGGREGATED_RESOURCES).await.unwrap();
    let say = |client: &Client, subscribe: &[&str], unsubscribe: &[&str], nonce: &str, nack: Option<&str>| {
        client.say_delta(&DeltaDiscoveryRequest {
            node: Some(Node { id: "tester".to_owned(), ..Node::default() }),
            type_url: format!("{TYPE_URL_PREFIX}{LISTENER}"),
            resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
            resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
            response_nonce: nonce.to_owned(),
            error_detail: nack.map(|why| rpc::Status { code: 3, message: why.to_owned(), details: Vec::new() }),
            ..DeltaDiscoveryRequest::default()
        });
    };
    say(&client, &["a", "none"], &[], "", None);
    let first = client.delta().await;
    assert_eq!((first.resources[0].name.as_str(), first.removed_resources), ("a", vec!["none".to_owned()]));
    say(&client, &["b"], &["none"], &first.nonce, None);
    let second = client.delta().await;
    assert_eq!((second.resources.len(), second.resources[0].name.as_str()), (1, "b"));
    control.set([listener("a", "2"), listener("b", "1")]);
    let third = client.delta().await;
    assert_eq!((third.resources.len(), third.resources[0].name.as_str()), (1, "a"));
    assert_ne!(third.resources[0].version, first.resources[0].version);
    say(&client, &[], &[], &third.nonce, Some("the reason"));

    let mut events = control.events();
    assert_eq!(events.find(|event| event.nack().map(str::to_owned)).await.unwrap(), "the reason");
    let said: Vec<String> = control.log().iter().filter_map(|event| Some(event.request()?.to_string())).collect();
    assert_eq!(
        said,
        [
            "asks for Listener [a, none]",
            "ACKs Listener [b] without [none]",
            "NACKs Listener and keeps ``: the reason; []"
        ]
    );
    let [stream] = &control.streams()[..] else { panic!("one stream is open") };
    let names: Vec<&str> = stream.subscriptions.iter().map(|key| &*key.name).collect();
    assert_eq!((stream.variant, names), (Some(Variant::Incremental), vec!["a", "b"]));
}

#[tokio::test]
async fn two_clients_get_what_each_asked_for() {
    let control = serving([listener("a", "1"), listener("b", "1")]).await;
    let mut one = Client::connect(control.address()).await;
    let mut two = Client::connect(control.address()).await;
    one.subscribe(LISTENER, &["a"]);
    two.subscribe(LISTENER, &["b"]);
    assert_eq!(contents(&one.response().await), ["a 1"]);
    assert_eq!(contents(&two.response().await), ["b 1"]);
    control.set([listener("a", "1"), listener("b", "2")]);
    assert_eq!(contents(&two.response().await), ["b 2"]);
    control.set([listener("a", "3"), listener("b", "2")]);
    assert_eq!(contents(&one.response().await), ["a 3"], "the change of b was not told");

    let mut events = control.events();
    drop(one);
    let closed = |event: &crate::control::Event| matches!(event.what, What::Closed { .. }).then_some(event.stream);
    let gone = events.find(closed).await.unwrap();
    let left: Vec<u64> = control.streams().iter().map(|stream| stream.id).collect();
    assert_eq!(left, [3 - gone]);
}

#[tokio::test]
async fn messages_may_be_larger_than_any_default() {
    let note = "x".repeat(5 << 20);
    let control = serving([listener("a", &note), cluster("c", "")]).await;
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    assert_eq!(contents(&client.response().await), [format!("a {note}")]);
    let names: Vec<String> = (0..100_000).map(|n| format!("a cluster that does not exist, number {n:050}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.subscribe(CLUSTER, &names);
    assert_eq!(client.response().await.resource_errors.len(), names.len());
}

#[tokio::test]
async fn a_server_may_keep_silent_about_what_does_not_exist() {
    let control = ControlPlane::builder().without_resource_errors().listen("127.0.0.1:0").await.unwrap();
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    let response = client.response().await;
    assert_eq!((response.resources.len(), response.resource_errors.len()), (0, 0));
}

#[tokio::test]
async fn it_follows_what_something_else_publishes() {
    let source = Publisher::new(Arc::new(ResourceSet::new([listener("a", "1")])));
    let control = ControlPlane::builder().follow(source.reader()).listen("127.0.0.1:0").await.unwrap();
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    assert_eq!(contents(&client.response().await), ["a 1"]);
    source.publish(Arc::new(ResourceSet::new([listener("a", "2")])));
    assert_eq!(contents(&client.response().await), ["a 2"]);
    drop(source);
    control.set([listener("a", "3")]);
    assert_eq!(contents(&client.response().await), ["a 3"]);
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let control = serving([]).await;
    let other = "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters";
    let status = Client::call(control.address(), other).await.err().unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("StreamClusters"), "{status}");
}

#[tokio::test]
async fn a_client_that_ends_its_side_is_told_ok() {
    let control = serving([listener("a", "1")]).await;
    let mut client = Client::connect(control.address()).await;
    client.subscribe(LISTENER, &["a"]);
    client.response().await;
    client.finish();
    assert!(client.message().await.unwrap().is_none());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let control = serving([]).await;
    let error = ControlPlane::builder().listen(control.address()).await.unwrap_err();
    assert_eq!(error.code(), mesh_core::error::Code::BIND);
    assert!(error.to_string().contains(&control.address().to_string()), "{error}");
}
