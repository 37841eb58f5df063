//! Attempts.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_core::error::Code;
use serde_json::json;

use super::*;
use crate::body::MeshBody;

fn retrying(policy: &Value) -> Value {
    routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "retry_policy": policy}}]))
}

fn planned(plan: &str) -> Request<MeshBody> {
    Request::post("http://a/").header("x-plan", plan).body("the body".into()).unwrap()
}

#[tokio::test]
async fn a_response_that_the_policy_names_is_asked_for_again_with_the_whole_body() {
    let one = Backend::start("one").await;
    let table = retrying(&json!({"retry_on": "5xx", "num_retries": 2}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    let response = client.send(planned("503,502,200")).await.unwrap();
    assert_eq!((response.status(), one.count()), (StatusCode::OK, 3));
    assert_eq!((response.body().retries(), response.body().endpoint_address()), (2, Some(one.address)));
    assert_eq!(one.body(), "the body");
}

#[tokio::test]
async fn the_last_response_stands_when_the_attempts_are_used_up() {
    let one = Backend::start("one").await;
    let table = retrying(&json!({"retry_on": "5xx", "num_retries": 1}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    assert_eq!(client.send(planned("503,502,200")).await.unwrap().status(), StatusCode::BAD_GATEWAY);
    assert_eq!(one.count(), 2);
}

#[tokio::test]
async fn without_a_policy_there_is_one_attempt() {
    let one = Backend::start("one").await;
    let client = client(&routes(&to("one")), &[cluster("one", &[one.address])]);
    assert_eq!(client.send(planned("503,200")).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(one.count(), 1);
}

#[tokio::test]
async fn a_request_that_is_too_long_to_keep_is_tried_once() {
    let one = Backend::start("one").await;
    let table = retrying(&json!({"retry_on": "5xx", "num_retries": 3}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    let long = Full::from(Bytes::from(vec![b'x'; 100_000]));
    let request = planned("503,200").map(|_| MeshBody::new(long));
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((one.count(), one.body().len()), (1, 100_000));
}

#[tokio::test]
async fn an_attempt_that_hangs_is_given_up_for_another() {
    let one = Backend::start("one").await;
    let table = retrying(&json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.5s"}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    assert_eq!(client.send(planned("hang,200")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_retry_does_not_go_where_the_attempt_before_it_hung() {
    let (hung, one) = (Backend::start("hung").await, Backend::start("one").await);
    let table = retrying(&json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s",
        "retry_back_off": {"base_interval": "0.001s"}}));
    let mut cluster = cluster("one", &[hung.address, one.address]);
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 100}]});
    let client = client(&table, &[cluster]);
    // Each of the two would be asked first by some, and again by some of those.
    let calls = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.send(planned_for_hung()).await.map(|response| response.status()) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), StatusCode::OK);
    }
    assert!(hung.count() > 0, "some began there");
}

/// The server called `hung` never answers, whichever of its requests this is.
fn planned_for_hung() -> Request<MeshBody> {
    Request::post("http://a/").header("x-hangs", "hung").body("the body".into()).unwrap()
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_replaced_without_a_policy() {
    let one = Backend::start("one").await;
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let client = client(&routes(&to("one")), &[cluster("one", &[dead, one.address])]);
    for _ in 0..20 {
        assert_eq!(client.get("http://a/").await.unwrap().status(), StatusCode::OK);
    }
    let nobody = super::client(&routes(&to("none")), &[cluster("none", &[dead])]);
    let error = nobody.get("http://a/").await.unwrap_err();
    assert_eq!(error.code(), Code::NO_CONNECTION);
    assert!(error.to_string().contains("cluster `none`"), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_between_requests_loses_none() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let client = client(&routes(&to("one")), &[cluster("one", &[one.address, two.address])]);
    for _ in 0..10 {
        assert_eq!(get(&client, "http://a/").await.0, StatusCode::OK);
    }
    one.stop().await;
    for _ in 0..50 {
        assert!(get(&client, "http://a/").await.1.starts_with("two"));
    }
}

#[tokio::test]
async fn streams_pass_unbuffered_in_both_directions() {
    let one = Backend::start("one").await;
    let client = client(&routes(&to("one")), &[cluster("one", &[one.address])]);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = StreamBody::new(Chunks(receiver));
    let request = Request::post("http://a/").body(frames).unwrap();
    let sent = tokio::spawn(async move {
        for chunk in ["a", "b", "c"] {
            sender.send(Bytes::from_static(chunk.as_bytes())).await.unwrap();
        }
    });
    let response = client.send(request).await.unwrap();
    sent.await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "one POST / a");
    assert_eq!(one.body(), "abc");
}

#[tokio::test]
async fn a_retry_avoids_canaries_where_the_policy_says_so() {
    let (first, second) = (Backend::start("canary").await, Backend::start("canary").await);
    let stable = Backend::start("stable").await;
    let mut cluster = cluster("one", &[first.address, second.address, stable.address]);
    let endpoints = cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints").unwrap();
    for canary in 0..2 {
        endpoints[canary]["metadata"] = json!({"filter_metadata": {"envoy.lb": {"canary": true}}});
    }
    let table = retrying(&json!({"retry_on": "5xx", "num_retries": 1,
        "retry_host_predicate": [{"name": "omit", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}}],
        "retry_back_off": {"base_interval": "0.001s"}}));
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 100}]});
    let client = client(&table, &[cluster]);
    for _ in 0..20 {
        // More than any of them will be asked.
        client.send(planned(&"503,".repeat(60))).await.unwrap();
    }
    // A call begins anywhere, and only the stable server is asked again: more than its third.
    assert_eq!(first.count() + second.count() + stable.count(), 40);
    assert!(stable.count() >= 20, "{} {} {}", first.count(), second.count(), stable.count());
}

#[tokio::test]
async fn a_retry_avoids_endpoints_by_their_metadata_and_priorities_where_the_policy_says_so() {
    let [zero, one, two] = [Backend::start("zero").await, Backend::start("one").await, Backend::start("two").await];
    let mut cluster = cluster("one", &[zero.address]);
    let places = cluster.pointer_mut("/load_assignment/endpoints").unwrap().as_array_mut().unwrap();
    for (priority, backend) in [(1, &one), (2, &two)] {
        let mut place = places[0].clone();
        place["priority"] = priority.into();
        place["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = backend.address.port().into();
        places.push(place);
    }
    let policy = |fields: &Value| {
        let mut policy = json!({"retry_on": "5xx", "num_retries": 5, "retry_back_off": {"base_interval": "0.001s"}});
        policy.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        retrying(&policy)
    };
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 100}]});
    let previous = json!({"retry_priority": {"name": "previous", "typed_config": {"update_frequency": 2, "@type":
        "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"}}});
    let client = super::client(&policy(&previous), &[cluster.clone()]);
    // Each server counts for itself: the first two answers of each are bad.
    let answer = text(client.send(planned("503,503,503")).await.unwrap()).await;
    assert_eq!([zero.count(), one.count(), two.count()], [2, 2, 2], "{answer}");

    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] =
        json!({"filter_metadata": {"envoy.lb": {"stage": "old"}}});
    let omit = json!({"retry_host_predicate": [{"name": "omit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
        "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "old"}}}}}]});
    let client = super::client(&policy(&omit), &[cluster]);
    let answer = text(client.send(planned(",,503,200")).await.unwrap()).await;
    assert_eq!([zero.count(), one.count(), two.count()], [3, 4, 2], "{answer}");
}

pub(super) struct Chunks(pub(super) tokio::sync::mpsc::Receiver<Bytes>);

impl futures_core::Stream for Chunks {
    type Item = Result<http_body::Frame<Bytes>, std::convert::Infallible>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(http_body::Frame::data(chunk))))
    }
}

/// `per_request_buffer_limit_bytes` and its like, over the client's own bound.
#[tokio::test]
async fn what_is_kept_of_a_body_is_the_configurations_to_say() {
    let long = 100 * 1024;
    for (field, bytes, length, attempts) in [
        ("per_request_buffer_limit_bytes", 16, 8, 2),
        ("per_request_buffer_limit_bytes", 16, 17, 1),
        ("request_body_buffer_limit", 2 * long, long, 2),
        ("request_body_buffer_limit", 16, 17, 1),
    ] {
        let backend = Backend::start("one").await;
        let mut table = routes(&json!([{"match": {"prefix": "/"},
            "route": {"cluster": "one", "retry_policy": {"retry_on": "5xx", "num_retries": 1}}}]));
        table["virtual_hosts"][0][field] = json!(bytes);
        let client = client(&table, &[cluster("one", &[backend.address])]);
        let body = MeshBody::new(http_body_util::Full::from(vec![b'x'; length]));
        let request = Request::post("http://a/").header("x-plan", "503,200").body(body).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(backend.count(), attempts, "{length} bytes, {field}: {bytes}");
        assert_eq!(response.status().is_success(), attempts == 2);
        assert_eq!(response.body().retries() as usize, attempts - 1);
    }
}

#[tokio::test]
async fn an_error_says_after_how_many_retries() {
    // Real sockets and so real time: long enough for a busy machine to reach the server with each attempt.
    let one = Backend::start("one").await;
    let table = retrying(&json!({"retry_on": "5xx,reset", "num_retries": 2, "per_try_timeout": "0.5s",
        "retry_back_off": {"base_interval": "0.001s"}}));
    let exhausted = client(&table, &[cluster("one", &[one.address])]);
    let error = exhausted.send(planned("hang,hang,hang")).await.unwrap_err();
    assert_eq!((error.code(), error.retries(), one.count()), (Code::ATTEMPT_TIMEOUT, 2, 3));
    assert!(error.to_string().contains("after 2 retries"), "{error}");

    let two = Backend::start("two").await;
    let mut table =
        retrying(&json!({"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}));
    table["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = json!("1.5s");
    let late = client(&table, &[cluster("one", &[two.address])]);
    let error = late.send(planned("503,hang")).await.unwrap_err();
    assert_eq!((error.code(), error.retries(), two.count()), (Code::DEADLINE, 1, 2));
}
