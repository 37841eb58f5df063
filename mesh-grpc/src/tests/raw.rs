//! Servers that break gRPC's rules: what they do becomes a status, and never UNKNOWN.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes};
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tonic::{Code as Grpc, Status};

use super::backend::PATIENCE;
use super::{ask, health, to};
use crate::{Code, Error, error_of};

/// What a server does with each request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// Resets the stream at once.
    Reset(h2::Reason),
    /// Sends a head and a message, then resets it.
    ResetLate(h2::Reason),
    /// Ends the response without trailers.
    NoTrailers,
    /// Answers with this status and no word of gRPC.
    Http(StatusCode),
    /// Ends the connection with this GOAWAY instead of an answer.
    GoAway(h2::Reason),
}

/// Ends with its owner.
struct Raw {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(answer: Answer) -> Raw {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (io, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut connection = h2::server::handshake(io).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    if let Answer::GoAway(reason) = answer {
                        connection.abrupt_shutdown(reason);
                    } else {
                        give(answer, request, respond);
                    }
                }
            });
        }
    });
    Raw { address, task }
}

fn give(answer: Answer, _request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let head = |status| Response::builder().status(status).header("content-type", "application/grpc").body(()).unwrap();
    match answer {
        Answer::Reset(reason) => respond.send_reset(reason),
        Answer::ResetLate(reason) => {
            let mut body = respond.send_response(head(StatusCode::OK), false).unwrap();
            body.send_data(message(), false).unwrap();
            tokio::spawn(async move {
                // What is sent at once is not sent before a reset.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                body.send_reset(reason);
            });
        }
        Answer::NoTrailers => {
            let mut body = respond.send_response(head(StatusCode::OK), false).unwrap();
            body.send_data(message(), true).unwrap();
        }
        Answer::Http(status) => {
            let plain = Response::builder().status(status).header("content-type", "text/html").body(()).unwrap();
            let mut body = respond.send_response(plain, false).unwrap();
            body.send_data(Bytes::from_static(b"<html>"), true).unwrap();
        }
        Answer::GoAway(_) => {}
    }
}

/// A response that says SERVING.
fn message() -> Bytes {
    let mut bytes = bytes::BytesMut::new();
    bytes.put_slice(&[0, 0, 0, 0, 2, 8, 1]);
    bytes.freeze()
}

/// How a call of each kind ends.
async fn calls(answer: Answer) -> [Status; 2] {
    let server = serve(answer).await;
    let mesh = to(&[server.address]);
    let unary = timeout(PATIENCE, health(&mesh).check(ask(""))).await.unwrap().unwrap_err();
    let mut client = health(&mesh);
    let stream = async {
        let mut messages = client.watch(ask("")).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok(())
    };
    [unary, timeout(PATIENCE, stream).await.unwrap().unwrap_err()]
}

fn code(status: &Status) -> Option<Code> {
    error_of(status).map(Error::code)
}

#[tokio::test]
async fn resets_have_their_codes() {
    for (reason, expected) in [
        (h2::Reason::REFUSED_STREAM, Grpc::Unavailable),
        (h2::Reason::INTERNAL_ERROR, Grpc::Internal),
        (h2::Reason::ENHANCE_YOUR_CALM, Grpc::ResourceExhausted),
        (h2::Reason::INADEQUATE_SECURITY, Grpc::PermissionDenied),
        (h2::Reason::CANCEL, Grpc::Cancelled),
        (h2::Reason::HTTP_1_1_REQUIRED, Grpc::Internal),
    ] {
        for status in calls(Answer::Reset(reason)).await {
            assert_eq!((status.code(), code(&status)), (expected, Some(Code::BROKEN)), "{reason:?}: {status:?}");
        }
    }
}

#[tokio::test]
async fn resets_within_the_answer_have_them_too() {
    for (reason, expected) in [
        (h2::Reason::INTERNAL_ERROR, Grpc::Internal),
        (h2::Reason::ENHANCE_YOUR_CALM, Grpc::ResourceExhausted),
        (h2::Reason::REFUSED_STREAM, Grpc::Unavailable),
        (h2::Reason::CANCEL, Grpc::Cancelled),
    ] {
        for status in calls(Answer::ResetLate(reason)).await {
            assert_eq!((status.code(), code(&status)), (expected, Some(Code::BROKEN)), "{reason:?}: {status:?}");
        }
    }
    // HTTP shows this one as the end of a body.
    for status in calls(Answer::ResetLate(h2::Reason::NO_ERROR)).await {
        assert_eq!((status.code(), code(&status)), (Grpc::Internal, Some(Code::PROTOCOL)), "{status:?}");
    }
}

#[tokio::test]
async fn a_response_without_a_status_is_none() {
    for status in calls(Answer::NoTrailers).await {
        assert_eq!((status.code(), code(&status)), (Grpc::Internal, Some(Code::PROTOCOL)), "{status:?}");
        assert!(status.message().contains("without a gRPC status"), "{}", status.message());
    }
}

#[tokio::test]
async fn errors_of_http_have_grpc_s_codes() {
    for (http, expected) in [
        (400, Grpc::Internal),
        (401, Grpc::Unauthenticated),
        (403, Grpc::PermissionDenied),
        (404, Grpc::Unimplemented),
        (429, Grpc::Unavailable),
        (502, Grpc::Unavailable),
        (503, Grpc::Unavailable),
        (504, Grpc::Unavailable),
    ] {
        for status in calls(Answer::Http(http.try_into().unwrap())).await {
            assert_eq!((status.code(), code(&status)), (expected, None), "{http}: {status:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_is_unavailable() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::PROTOCOL_ERROR] {
        for status in calls(Answer::GoAway(reason)).await {
            assert_eq!(status.code(), Grpc::Unavailable, "{reason:?}: {status:?}");
            assert!(code(&status).is_some(), "{status:?}");
        }
    }
}
