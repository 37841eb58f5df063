//! What requests ask of their own policies, and limits on silence.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;

use super::*;
use crate::body::MeshBody;
use crate::outbound::InternalCaller;

fn asking(plan: &str, headers: &[(&str, &str)]) -> Request<MeshBody> {
    let mut request = Request::get("http://a/").header("x-plan", plan);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(MeshBody::empty()).unwrap()
}

fn internal(mut request: Request<MeshBody>) -> Request<MeshBody> {
    request.extensions_mut().insert(InternalCaller);
    request
}

const RETRY: &[(&str, &str)] = &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "2")];

#[tokio::test]
async fn only_an_internal_caller_steers_and_nobody_is_told() {
    for (trusted, attempts, status) in [(true, 3, StatusCode::OK), (false, 1, StatusCode::SERVICE_UNAVAILABLE)] {
        let one = Backend::start("one").await;
        let client = client(&routes(&to("one")), &[cluster("one", &[one.address])]);
        let request = asking("503,503,200", RETRY);
        let request = if trusted { internal(request) } else { request };
        assert_eq!(client.send(request).await.unwrap().status(), status, "{trusted}");
        assert_eq!(one.count(), attempts);
        assert!(!one.headers().keys().any(|name| name.as_str().starts_with("x-envoy-")), "the next hop is not asked");
    }
}

#[tokio::test]
async fn an_internal_caller_may_shorten_its_time_and_that_of_an_attempt() {
    let one = Backend::start("one").await;
    let policy = json!({"retry_on": "5xx", "num_retries": 1});
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "retry_policy": policy}}]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    let per_try = &[("x-envoy-upstream-rq-per-try-timeout-ms", "50")];
    assert_eq!(client.send(internal(asking("hang,200", per_try))).await.unwrap().status(), StatusCode::OK);
    let whole = &[("x-envoy-upstream-rq-timeout-ms", "50")];
    assert_eq!(code(client.send(internal(asking(",,hang", whole))).await), Code::DEADLINE);
}

#[tokio::test]
async fn a_route_without_a_condition_hides_the_virtual_hosts_policy() {
    let one = Backend::start("one").await;
    let mut table = routes(&json!([
        {"match": {"prefix": "/own"}, "route": {"cluster": "one", "retry_policy": {"retry_on": ""}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one"}}]));
    table["virtual_hosts"][0]["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 1});
    let client = client(&table, &[cluster("one", &[one.address])]);
    let mut own = asking("503,503,200", &[]);
    *own.uri_mut() = "http://a/own".parse().unwrap();
    assert_eq!(client.send(own).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.send(asking("503,503,200", &[])).await.unwrap().status(), StatusCode::OK);
    assert_eq!(one.count(), 3);
}

#[tokio::test]
async fn a_call_in_which_nothing_moves_is_over_and_one_that_sends_is_not() {
    let one = Backend::start("one").await;
    let route = json!({"cluster": "one", "timeout": "0s", "idle_timeout": "0.2s"});
    let client =
        client(&routes(&json!([{"match": {"prefix": "/"}, "route": route}])), &[cluster("one", &[one.address])]);
    assert_eq!(code(client.send(asking("hang", &[])).await), Code::DEADLINE);
    // A body that takes longer than the limit, and never pauses for as long.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = http_body_util::StreamBody::new(super::retrying::Chunks(receiver));
    let sending = tokio::spawn(async move {
        for _ in 0..8 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            sender.send(Bytes::from_static(b"x")).await.unwrap();
        }
    });
    let response = client.send(Request::post("http://a/").body(body).unwrap()).await.unwrap();
    sending.await.unwrap();
    assert_eq!((response.status(), one.body()), (StatusCode::OK, Bytes::from_static(b"xxxxxxxx")));
}

#[tokio::test]
async fn an_attempt_that_is_silent_for_too_long_is_given_up_for_another() {
    let one = Backend::start("one").await;
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "per_try_idle_timeout": "0.5s"});
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "retry_policy": policy}}]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    assert_eq!(client.send(asking("hang,200", &[])).await.unwrap().status(), StatusCode::OK);
    assert_eq!(one.count(), 2);
}
