//! The built-in filters on a client's way: fault injection and CORS.

use http::{Method, Request};
use serde_json::{Value, json};

use super::*;
use crate::body::MeshBody;

const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";

/// A client whose Listener has one filter, and whose route to `address` overrides it.
fn filtered(filter: &Value, over: &Value, address: SocketAddr) -> HttpClient {
    let route = json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}, "typed_per_filter_config": over}]);
    let mut listener = listener("a:80", &routes(&route));
    let filters = listener.pointer_mut("/api_listener/api_listener/http_filters").unwrap();
    filters.as_array_mut().unwrap().insert(0, json!({"name": "filter", "typed_config": filter}));
    mesh(&[listener, cluster("one", &[address])]).0.http()
}

fn fault(fields: &Value) -> Value {
    let mut fault = fields.clone();
    fault["@type"] = FAULT.into();
    fault
}

fn ask(headers: &[(&str, &str)]) -> Request<MeshBody> {
    let mut request = Request::get("http://a/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(MeshBody::empty()).unwrap()
}

/// gRFC A33.
#[tokio::test]
async fn an_inert_fault_filter_lets_requests_pass_and_a_route_can_make_it_abort() {
    let one = Backend::start("one").await;
    let inert = filtered(&fault(&json!({})), &json!({}), one.address);
    assert_eq!(get(&inert, "http://a/").await.0, StatusCode::OK);
    assert_eq!(one.count(), 1);
    let over = fault(&json!({"abort": {"http_status": 429, "percentage": {"numerator": 100}}}));
    let aborting = filtered(&fault(&json!({})), &json!({"filter": over}), one.address);
    assert_eq!(get(&aborting, "http://a/").await, (StatusCode::TOO_MANY_REQUESTS, "fault filter abort\n".to_owned()));
    let grpc = aborting.send(ask(&[("content-type", "application/grpc")])).await.unwrap();
    assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &"14".parse().unwrap()));
    assert_eq!(one.count(), 1, "an aborted request does not leave");
}

#[tokio::test]
async fn a_response_comes_no_faster_than_the_fault_lets_it() {
    let one = Backend::start("one").await;
    let slow = json!({"response_rate_limit": {"header_limit": {}, "percentage": {"numerator": 100}}});
    let client = filtered(&fault(&slow), &json!({}), one.address);
    // Nothing is asked of this one, and of the other one body frame of 7 bytes at 1 KiB/s, in parts of 51: two at most.
    assert_eq!(get(&client, "http://a/").await, (StatusCode::OK, "one GET / a".to_owned()));
    let mut slow = ask(&[("x-envoy-fault-throughput-response", "1")]);
    let path = "x".repeat(300);
    *slow.uri_mut() = format!("http://a/{path}").parse().unwrap();
    let mut body = std::pin::pin!(client.send(slow).await.unwrap().into_body());
    let mut parts = Vec::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        parts.push(frame.unwrap().into_data().unwrap());
    }
    assert!(parts.len() >= 6 && parts.iter().all(|part| part.len() <= 51), "{parts:?}");
    assert_eq!(parts.concat(), format!("one GET /{path} a").into_bytes());
    assert_eq!(one.count(), 2);
}

#[tokio::test]
async fn no_more_requests_are_under_a_fault_than_the_policy_allows() {
    let one = Backend::start("one").await;
    let delay = json!({
        "delay": {"fixed_delay": "3600s", "percentage": {"numerator": 100}}, "max_active_faults": 1});
    let client = filtered(&fault(&delay), &json!({}), one.address);
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { client.send(ask(&[])).await.map(|response| response.status()) })
    };
    // Which of them waits is chance.
    let (mut first, mut second) = (send(), send());
    tokio::select! {
        done = &mut first => assert_eq!(done.unwrap().unwrap(), StatusCode::OK),
        done = &mut second => assert_eq!(done.unwrap().unwrap(), StatusCode::OK),
    }
    assert_eq!(one.count(), 1);
    assert_ne!(first.is_finished(), second.is_finished(), "the other one waits");
}

#[tokio::test]
async fn headers_are_changed_where_the_listener_says_and_by_each_level() {
    let one = Backend::start("one").await;
    let kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let set = |value: &str| {
        json!({"append": {"header": {"key": "x-set", "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}})
    };
    let own = json!({"@type": kind, "mutations": {"request_mutations": [set("listener"), {"remove": "x-secret"}],
        "response_mutations": [{"append": {"header": {"key": "x-asked-by", "value": "%REQ(x-who)%"}}}]}});
    let over =
        json!({"filter": {"@type": format!("{kind}PerRoute"), "mutations": {"request_mutations": [set("route")]}}});
    let client = filtered(&own, &over, one.address);
    let response = client.send(ask(&[("x-who", "bob"), ("x-secret", "s")])).await.unwrap();
    assert_eq!(response.headers()["x-asked-by"], "bob");
    assert_eq!((&one.headers()["x-set"], one.headers().contains_key("x-secret")), (&"route".parse().unwrap(), false));
}

#[tokio::test]
async fn a_query_is_changed_by_each_level_after_the_levels_headers() {
    let one = Backend::start("one").await;
    let kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let add = |key: &str, value: &str| json!({"append": {"record": {"key": key, "value": value}}});
    let new = json!([{"append": {"header": {"key": "x-new", "value": "n"}}}]);
    let own = json!({"@type": kind, "mutations": {"request_mutations": new,
        "query_parameter_mutations": [{"remove": "secret"}, add("own", "%REQ(x-new)%")]}});
    let over = json!({"filter": {"@type": format!("{kind}PerRoute"),
        "mutations": {"query_parameter_mutations": [add("route", "%REQ(:path)%")]}}});
    let client = filtered(&own, &over, one.address);
    assert_eq!(get(&client, "http://a/p?secret=s&z=1").await.1, "one GET /p?own=n&route=%2Fp%3Fown%3Dn%26z%3D1&z=1 a");
}

#[tokio::test]
async fn responses_say_which_origin_may_read_them_and_preflights_are_answered() {
    let one = Backend::start("one").await;
    let cors = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"});
    let policy = json!({"filter": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": "https://a.test"}]}});
    let client = filtered(&cors, &policy, one.address);
    let allowed = client.send(ask(&[("origin", "https://a.test")])).await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://a.test");
    let stranger = client.send(ask(&[("origin", "https://b.test")])).await.unwrap();
    assert!(!stranger.headers().contains_key("access-control-allow-origin"));
    let mut preflight = ask(&[("origin", "https://a.test"), ("access-control-request-method", "PUT")]);
    *preflight.method_mut() = Method::OPTIONS;
    let response = client.send(preflight).await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "https://a.test");
    assert_eq!(text(response).await, "");
    assert_eq!(one.count(), 2, "the preflight did not leave");
}
