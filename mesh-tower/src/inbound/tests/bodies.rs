//! Bodies that are longer than the server takes, and bodies of which nothing comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{BOTH, Client};
use super::{Server, start};
use crate::inbound::testing::Config;
use crate::inbound::{BoxError, InboundOptions, RequestBody};

/// Serves an application that reads bodies and says how long they were, or why there is no more of them; and how many requests
/// it has had.
async fn reader(options: InboundOptions) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let app = tower::service_fn({
        let asked = asked.clone();
        move |request: Request<RequestBody>| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                Ok::<_, BoxError>(match request.into_body().collect().await {
                    Ok(body) => Response::new(Full::from(body.to_bytes().len().to_string())),
                    Err(error) => {
                        let mut response = Response::new(Full::from(error.to_string()));
                        *response.status_mut() = StatusCode::BAD_REQUEST;
                        response
                    }
                })
            }
        }
    });
    let server = start(app, options).await;
    server.slot.apply(Config::new(server.address).build(1));
    (server, asked)
}

fn at_most(bytes: u64) -> InboundOptions {
    let mut options = InboundOptions::default();
    options.limits.max_body_bytes = Some(bytes);
    options
}

fn post(length: usize, kind: &'static str) -> Request<Full<Bytes>> {
    let body = Full::from(vec![0; length]);
    Request::post("http://plain.test/").header("host", "plain.test").header("content-type", kind).body(body).unwrap()
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_refused_before_anybody_reads_it() {
    let (server, asked) = reader(at_most(10)).await;
    for http in BOTH {
        let (mut client, _driver) = Client::connect(http, server.address).await.unwrap();
        let answer = client.send(post(10, "text/plain")).await.unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.text), (200, "10"), "{http:?}");
        let answer = client.send(post(11, "text/plain")).await.unwrap();
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{http:?}");
        assert_eq!(answer.code(), "MESH-704", "{http:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_that_does_not_say_its_length_fails_at_the_first_byte_too_many() {
    let (server, _) = reader(at_most(10)).await;
    for (chunk, status) in [("a\r\n0123456789\r\n0\r\n\r\n", "200"), ("b\r\n0123456789a\r\n0\r\n\r\n", "400")] {
        let answer = raw(&server, chunk).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.contains("max_body_bytes"), status == "400", "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_comes_fails_after_body_timeout() {
    let (server, asked) = reader(InboundOptions::default()).await;
    let began = tokio::time::Instant::now();
    let answer = raw(&server, "5\r\n01234\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("body_timeout"), "{answer}");
    assert_eq!(began.elapsed().as_secs(), Duration::from_secs(300).as_secs());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// What is answered to a request of HTTP/1 whose body comes in these chunks, without an end of the connection.
async fn raw(server: &Server, chunks: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: plain.test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(chunks.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // What was not read may end it with a reset.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}
