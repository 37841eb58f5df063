//! What routes make of requests and responses.

use http::{Request, StatusCode};
use serde_json::json;

use super::*;
use crate::body::MeshBody;

#[tokio::test]
async fn rewrites_and_header_mutations_reach_the_server_and_the_client() {
    let one = Backend::start("one").await;
    let table = routes(&json!([{
        "match": {"prefix": "/old"},
        "route": {"cluster": "one", "prefix_rewrite": "/new", "host_rewrite_literal": "inside"},
        "request_headers_to_add": [{"header": {"key": "x-path", "value": "%REQ(:path)%"}}],
        "request_headers_to_remove": ["x-secret"],
        "response_headers_to_add": [{"header": {"key": "x-was", "value": "%REQ(x-secret)%"}}],
    }]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    let request = Request::get("http://a/old/x?q").header("x-secret", "s").body(MeshBody::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.headers()["x-was"], "s");
    assert_eq!(text(response).await, "one GET /new/x?q inside");
    let headers = one.headers();
    assert_eq!(headers["x-path"], "/old/x?q");
    assert_eq!(headers["x-envoy-original-path"], "/old/x?q");
    assert_eq!(headers["x-envoy-original-host"], "a");
    assert!(!headers.contains_key("x-secret"));
}

#[tokio::test]
async fn a_host_that_a_header_says_is_rewritten_as_one_of_the_uri_is() {
    let one = Backend::start("one").await;
    let table =
        routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "host_rewrite_literal": "inside"}}]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    for uri in ["/x", "http://a/x"] {
        let request = Request::get(uri).header("host", "a").body(MeshBody::empty()).unwrap();
        assert_eq!(text(client.send(request).await.unwrap()).await, "one GET /x inside", "{uri}");
        assert_eq!(one.headers()["x-envoy-original-host"], "a");
    }
}

#[tokio::test]
async fn a_redirect_is_answered_by_the_route() {
    let table =
        routes(&json!([{"match": {"prefix": "/"}, "redirect": {"https_redirect": true, "path_redirect": "/x"}}]));
    let response = client(&table, &[]).get("http://a/y").await.unwrap();
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.headers()["location"], "https://a/x");
}
