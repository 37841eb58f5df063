//! Redirects that the mesh follows itself.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{Full, StreamBody};
use mesh_core::error::Code;
use serde_json::json;
use tower_layer::Layer;

use super::*;
use crate::body::MeshBody;

/// `/one` goes to cluster `one` and follows redirects as `policy` says, and `/two` to cluster `two`.
fn following(policy: &Value) -> Value {
    routes(&json!([
        {"name": "one", "match": {"prefix": "/one"}, "route": {"cluster": "one", "internal_redirect_policy": policy},
         "request_headers_to_add": [{"header": {"key": "x-passed", "value": "one"}}],
         "response_headers_to_remove": ["location"]},
        {"name": "two", "match": {"prefix": "/two"}, "route": {"cluster": "two"},
         "request_headers_to_add": [{"header": {"key": "x-passed", "value": "two"}}]},
    ]))
}

/// Both servers, and a client of them with these routes.
async fn both(table: &Value) -> (Backend, Backend, HttpClient) {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let client = client(table, &[cluster("one", &[one.address]), cluster("two", &[two.address])]);
    (one, two, client)
}

fn ask(method: Method, plan: &str) -> http::request::Builder {
    Request::builder().method(method).uri("http://a/one?y=1").header("x-plan-one", plan)
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_redirect_takes_the_request_to_another_route() {
    let (one, two, client) = both(&following(&json!({}))).await;
    let request = ask(Method::POST, "302>http://a/two?z=2").body(MeshBody::from("the body")).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(text(response).await, "two POST /two?z=2 a");
    assert_eq!((one.count(), two.count(), &*two.body()), (1, 1, &b"the body"[..]));
    let headers = two.headers();
    assert_eq!(values(&headers, "x-envoy-original-url"), ["http://a/one?y=1"]);
    // What the first route did to the request stays with it.
    assert_eq!(values(&headers, "x-passed"), ["one", "two"]);
}

#[tokio::test]
async fn without_a_policy_a_redirect_is_the_callers_and_so_is_one_of_another_status() {
    let mut plain = following(&json!({}));
    plain["virtual_hosts"][0]["routes"][0]["route"]["internal_redirect_policy"].take();
    for (table, plan) in [
        (plain, "302>http://a/two"),
        (following(&json!({})), "301>http://a/two"),
        (following(&json!({})), "302>/two"),
        (following(&json!({})), "302>https://a/two"),
        (following(&json!({"max_internal_redirects": 0})), "302>http://a/two"),
    ] {
        let (_one, two, client) = both(&table).await;
        let response = client.send(ask(Method::GET, plan).body(MeshBody::empty()).unwrap()).await.unwrap();
        assert!(response.status().is_redirection(), "{plan}");
        // It passes what the route says of responses, as any other does.
        assert!(!response.headers().contains_key("location"), "{plan}");
        assert_eq!(two.count(), 0, "{plan}");
    }
}

#[tokio::test]
async fn a_303_is_got_and_a_request_of_grpc_is_not_sent_elsewhere() {
    let (_one, two, client) = both(&following(&json!({"redirect_response_codes": [303]}))).await;
    let request = ask(Method::POST, "303>http://a/two").body(MeshBody::from("the body")).unwrap();
    assert_eq!(text(client.send(request).await.unwrap()).await, "two GET /two a");
    assert!(two.body().is_empty() && !two.headers().contains_key("content-length"));

    let (_one, two, client) = both(&following(&json!({}))).await;
    let call = ask(Method::POST, "302>http://a/two").header("content-type", "application/grpc");
    let _ = client.send(call.body(MeshBody::from("the body")).unwrap()).await;
    assert_eq!(two.count(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_sent_once() {
    for (length, followed) in [(100, true), (101, false)] {
        let mut table = following(&json!({}));
        table["virtual_hosts"][0]["routes"][0]["per_request_buffer_limit_bytes"] = json!(100);
        let (_one, two, client) = both(&table).await;
        let request =
            ask(Method::POST, "302>http://a/two").body(MeshBody::from(Bytes::from(vec![b'x'; length]))).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!((response.status().is_success(), two.count()), (followed, usize::from(followed)), "{length}");
    }
}

#[tokio::test]
async fn a_request_that_has_not_ended_is_not_sent_elsewhere() {
    /// A body that has begun and does not end.
    struct Endless(bool);
    impl futures_core::Stream for Endless {
        type Item = Result<http_body::Frame<Bytes>, crate::BoxError>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            if std::mem::replace(&mut self.0, true) {
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"x")))))
        }
    }
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = paths.clone();
    // It answers before it has read a byte.
    let service = tower::service_fn(move |request: Request<MeshBody>| {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        let response = Response::builder().status(302).header("location", "http://a/two").body(Full::from("")).unwrap();
        std::future::ready(Ok::<Response<Full<Bytes>>, std::convert::Infallible>(response))
    });
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let table = following(&json!({}));
    let (mesh, _source) = mesh(&[listener("a", &table), cluster("one", &[address]), cluster("two", &[address])]);
    let client = mesh.layer("xds:///a").unwrap().layer(service);
    let body = MeshBody::new(StreamBody::new(Endless(false)));
    client.send(Request::post("http://a/one").body(body).unwrap()).await.unwrap();
    assert_eq!(*paths.lock().unwrap(), ["/one"]);
    client.send(Request::get("http://a/one").body(MeshBody::empty()).unwrap()).await.unwrap();
    assert_eq!(*paths.lock().unwrap(), ["/one", "/one", "/two"]);
}

#[tokio::test]
async fn filters_see_each_request_and_no_redirect_that_is_followed() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let added = |key: &str| json!({"append": {"header": {"key": key, "value": "f"}}});
    let filter = json!({"name": "hm", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [added("x-f")], "response_mutations": [{"remove": "location"}, added("x-r")]}}});
    let mut listener = listener("a:80", &following(&json!({})));
    let filters = listener.pointer_mut("/api_listener/api_listener/http_filters").unwrap();
    filters.as_array_mut().unwrap().insert(0, filter);
    let (mesh, _source) = mesh(&[listener, cluster("one", &[one.address]), cluster("two", &[two.address])]);
    let request = ask(Method::GET, "302>http://a/two").body(MeshBody::empty()).unwrap();
    let response = mesh.http().send(request).await.unwrap();
    assert_eq!(values(response.headers(), "x-r"), ["f"]);
    assert_eq!(values(&two.headers(), "x-f"), ["f", "f"]);
}

#[tokio::test]
async fn the_new_host_chooses_the_virtual_host_of_the_same_table() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let follow = json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "internal_redirect_policy": {}}}]);
    let hosts = json!({"virtual_hosts": [
        {"name": "a", "domains": ["a"], "routes": follow},
        {"name": "b", "domains": ["b"], "routes": to("two")},
    ]});
    let resources = [listener("a", &hosts), cluster("one", &[one.address]), cluster("two", &[two.address])];
    // The target's own virtual host is fixed, and nobody has asked for the other one's cluster.
    let (mesh, _source) = mesh(&resources);
    let client = mesh.client("xds:///a").unwrap();
    let request = ask(Method::GET, "302>http://b/x").body(MeshBody::empty()).unwrap();
    assert_eq!(text(client.send(request).await.unwrap()).await, "two GET /x b");
    let request = ask(Method::GET, ",302>http://nowhere/x").body(MeshBody::empty()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::FOUND);
}

#[tokio::test]
async fn a_redirect_to_https_gets_no_plaintext() {
    let (one, two, client) = both(&following(&json!({"allow_cross_scheme_redirect": true}))).await;
    let request = ask(Method::GET, "302>https://a/two").body(MeshBody::empty()).unwrap();
    assert_eq!(code(client.send(request).await), Code::UNPROVABLE_TLS);
    assert_eq!((one.count(), two.count()), (1, 0));
}

#[tokio::test]
async fn attempts_come_before_redirects_and_a_route_that_answers_is_one_too() {
    let mut table = following(&json!({"redirect_response_codes": [302, 307]}));
    table["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"] = json!({"retry_on": "5xx,retriable-status-codes",
        "retriable_status_codes": [307], "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
    table["virtual_hosts"][0]["routes"][1] = json!({"match": {"prefix": "/two"}, "direct_response": {"status": 418}});
    let (one, two, client) = both(&table).await;
    let request = ask(Method::POST, "503,307>http://a/two,302>http://a/two").body(MeshBody::from("the body")).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), StatusCode::IM_A_TEAPOT);
    assert_eq!((one.count(), two.count(), &*one.body()), (3, 0, &b"the body"[..]));
}

#[tokio::test]
async fn explain_says_what_is_followed() {
    let policy = json!({"max_internal_redirects": 2, "predicates": [{"name": "allowed", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        "allowed_route_names": ["two"]}}]});
    let (mesh, _source) = mesh(&[listener("a:80", &following(&policy))]);
    let explained = mesh.explain(&Request::get("http://a/one").body(()).unwrap()).await.unwrap().to_string();
    assert!(explained.contains("redirects: 2 at most are followed on 302, allow_listed_routes (two)"), "{explained}");
}

/// Half of the requests to `/two` are another route's, which the policy does not let in.
#[tokio::test]
async fn the_route_that_the_policy_judged_is_the_one_that_is_taken() {
    const REQUESTS: usize = 64;
    let allowed = json!({"predicates": [{"name": "allowed", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        "allowed_route_names": ["two"]}}]});
    let mut table = following(&allowed);
    let half = json!({"default_value": {"numerator": 50, "denominator": "HUNDRED"}});
    let all = table["virtual_hosts"][0]["routes"].as_array_mut().unwrap();
    all.insert(
        0,
        json!({"name": "other", "match": {"prefix": "/two", "runtime_fraction": half},
        "direct_response": {"status": 418}}),
    );
    let (one, two, client) = both(&table).await;
    let plan = vec!["302>http://a/two"; REQUESTS].join(",");
    for _ in 0..REQUESTS {
        let response = client.send(ask(Method::GET, &plan).body(MeshBody::empty()).unwrap()).await.unwrap();
        assert!([200, 302].contains(&response.status().as_u16()), "{}", response.status());
    }
    // Neither all nor none: 2 in 2^64.
    assert!(one.count() == REQUESTS && (1..REQUESTS).contains(&two.count()), "{}", two.count());
}
