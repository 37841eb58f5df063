//! Time and load.

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use mesh_core::error::Code;
use serde_json::json;

use super::*;
use crate::body::MeshBody;

fn hanging() -> Request<MeshBody> {
    Request::get("http://a/").header("x-plan", "hang,hang,hang").body(MeshBody::empty()).unwrap()
}

#[tokio::test]
async fn a_route_timeout_ends_the_call() {
    let one = Backend::start("one").await;
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one", "timeout": "0.05s"}}]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    let error = client.send(hanging()).await.unwrap_err();
    assert_eq!(error.code(), Code::DEADLINE);
    assert!(error.is_timeout());
}

/// gRFC A31.
#[tokio::test]
async fn max_stream_duration_covers_the_whole_call() {
    let one = Backend::start("one").await;
    let table = routes(&json!([{"match": {"prefix": "/"},
        "route": {"cluster": "one", "max_stream_duration": {"max_stream_duration": "0.05s"}}}]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    assert_eq!(code(client.send(hanging()).await), Code::DEADLINE);
}

#[tokio::test]
async fn a_grpc_deadline_travels_as_what_is_left_of_it() {
    let one = Backend::start("one").await;
    let table = routes(&json!([{"match": {"prefix": "/"},
        "route": {"cluster": "one", "max_stream_duration": {"max_stream_duration": "5s"}}}]));
    let client = client(&table, &[cluster("one", &[one.address])]);
    let grpc = |timeout: &str| {
        let request = Request::post("http://a/s/m").header("content-type", "application/grpc");
        request.header("grpc-timeout", timeout).body(MeshBody::empty()).unwrap()
    };
    client.send(grpc("2S")).await.unwrap();
    assert_eq!(one.headers()["grpc-timeout"], "2S", "the caller's own word stays while it is true");
    client.send(grpc("1H")).await.unwrap();
    let said = one.headers()["grpc-timeout"].to_str().unwrap().to_owned();
    let left = mesh_core::policy::deadline::parse_grpc_timeout(said.as_bytes()).unwrap();
    assert!(left <= std::time::Duration::from_secs(5), "{said}");
}

/// gRFC A32.
#[tokio::test]
async fn a_breaker_lets_through_what_it_may_and_counts_to_the_end_of_the_body() {
    let one = Backend::start("one").await;
    let mut limited = cluster("one", &[one.address]);
    limited["circuit_breakers"] = json!({"thresholds": [{"max_requests": 1}]});
    let client = client(&routes(&to("one")), &[limited]);
    let held = client.get("http://a/").await.unwrap();
    assert_eq!(code(client.get("http://a/").await), Code::OVERLOADED);
    held.into_body().collect().await.unwrap();
    assert_eq!(client.get("http://a/").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_mesh_that_was_shut_down_takes_nothing_and_waits_for_what_it_took() {
    let one = Backend::start("one").await;
    let (mesh, _source) = mesh(&[listener("a:80", &routes(&to("one"))), cluster("one", &[one.address])]);
    let client = mesh.http();
    let open = client.get("http://a/").await.unwrap();
    let stopping = tokio::spawn({
        let mesh = mesh.clone();
        async move { mesh.shutdown(std::time::Duration::from_secs(60)).await }
    });
    while code_of(client.get("http://a/").await) != Some(Code::SHUT_DOWN) {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    open.into_body().collect().await.unwrap();
    stopping.await.unwrap();
}

fn code_of(result: Result<http::Response<ResponseBody>, mesh_core::error::Error>) -> Option<Code> {
    result.err().map(|error| error.code())
}
