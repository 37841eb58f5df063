//! Attempts beside each other.

use http::Request;
use serde_json::json;

use super::*;
use crate::body::MeshBody;

fn hedging(hedge: &Value) -> Value {
    let retry = json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.05s",
        "retry_back_off": {"base_interval": "0.001s"}});
    routes(&json!([{"match": {"prefix": "/"},
        "route": {"cluster": "one", "retry_policy": retry, "hedge_policy": hedge}}]))
}

fn planned(plan: &str) -> Request<MeshBody> {
    Request::post("http://a/").header("x-plan", plan).body("the body".into()).unwrap()
}

#[tokio::test]
async fn an_attempt_that_is_late_is_joined_by_another_and_may_still_win() {
    let one = Backend::start("one").await;
    let table = hedging(&json!({"hedge_on_per_try_timeout": true}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    // The first never answers.
    assert_eq!(client.send(planned("hang,200")).await.unwrap().status(), StatusCode::OK);
    assert_eq!((one.count(), one.body()), (2, bytes::Bytes::from_static(b"the body")));
}

#[tokio::test]
async fn a_late_attempt_is_not_given_up_for_the_one_that_joins_it() {
    let one = Backend::start("one").await;
    let table = hedging(&json!({"hedge_on_per_try_timeout": true}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    // The first answers after its own time, the second never does.
    assert_eq!(client.send(planned("slow,hang")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(one.count(), 2);
}

#[tokio::test]
async fn a_bad_answer_waits_for_those_that_are_under_way() {
    let one = Backend::start("one").await;
    let table = hedging(&json!({"hedge_on_per_try_timeout": true}));
    let client = client(&table, &[cluster("one", &[one.address])]);
    // The second answers 503 before the first has answered.
    assert_eq!(client.send(planned("slow,503")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn several_attempts_may_begin_at_once() {
    let one = Backend::start("one").await;
    let client = client(&hedging(&json!({"initial_requests": 3})), &[cluster("one", &[one.address])]);
    assert_eq!(client.send(planned("hang,hang,200")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(one.count(), 3);
}

#[tokio::test]
async fn attempts_at_once_are_within_the_budget() {
    let one = Backend::start("one").await;
    let mut cluster = cluster("one", &[one.address]);
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 1}]});
    let client = client(&hedging(&json!({"initial_requests": 5})), &[cluster]);
    assert_eq!(client.send(planned("hang,200")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(one.count(), 2);
}

/// Where no other attempt joins one that is late, its time ends it, and the policy decides on another one.
#[tokio::test]
async fn attempts_at_once_have_their_own_limit() {
    let one = Backend::start("one").await;
    let client = client(&hedging(&json!({"initial_requests": 2})), &[cluster("one", &[one.address])]);
    // Both hang; the retry that the policy has answers.
    assert_eq!(client.send(planned("hang,hang,200")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(one.count(), 3);
    let error = client.send(planned("200,200,200,hang,hang,hang")).await.unwrap_err();
    assert_eq!(error.code(), Code::ATTEMPT_TIMEOUT);
}
