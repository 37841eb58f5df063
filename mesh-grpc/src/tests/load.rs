//! ORCA reports (gRFC A51): said by our servers, with what a handler records of its request.

use std::collections::BTreeMap;

use mesh_core::load::{LOAD_REPORT, Load, LoadReport};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::backend::{PATIENCE, serving};
use super::config::{cluster, encode, forward, listener, server_listener};
use super::{TARGET, ask, health};
use crate::{InboundOptions, LoadRecorder, Mesh, ServerLoad, serve_on};

/// Records what it knows of its load.
#[derive(Clone)]
struct Recording;

#[tonic::async_trait]
impl Health for Recording {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let recorder = request.extensions().get::<LoadRecorder>().cloned();
        match (&*request.get_ref().service, recorder) {
            ("cheap", Some(recorder)) => {
                recorder.record(|load| load.cpu_utilization = 0.75);
                recorder.record(|load| {
                    load.request_cost.insert("db".to_owned(), 3.0);
                });
            }
            ("bad", Some(recorder)) => {
                recorder.record(|load| load.errors_per_second = 1.0);
                return Err(Status::not_found("nobody"));
            }
            ("cheap" | "bad", None) => return Err(Status::internal("there is nothing to record with")),
            _ => {}
        }
        Ok(Response::new(serving()))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let recorder = request.extensions().get::<LoadRecorder>().cloned().unwrap_or_default();
        let (sender, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            let _ = sender.send(Ok(serving())).await;
            // The stream ends when the sender is dropped, which is after this.
            recorder.record(|load| load.application_utilization = 0.5);
            drop(sender);
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// A mesh with a server of its own, that reports this or nothing.
async fn both(load: Option<ServerLoad>) -> Mesh {
    let mut options = InboundOptions::default();
    options.load_reports = load;
    let source = mesh_core::source::MemorySource::new([]);
    let mesh = Mesh::builder().source(source.clone()).server_options(options).build().unwrap();
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let (address, name) = (bound.local_addr(), bound.slot().target().to_string());
    source.set(encode(&[
        server_listener(&name, address, None),
        listener("greeter", &json!([forward("blue")])),
        cluster("blue", &[address]),
    ]));
    tokio::spawn(serve_on(bound, HealthServer::new(Recording)));
    assert_eq!(TARGET, "xds:///greeter");
    let mut first = ask("");
    first.extensions_mut().insert(crate::WaitForReady);
    timeout(PATIENCE, health(&mesh).check(first)).await.unwrap().unwrap();
    mesh
}

fn read(headers: &http::HeaderMap) -> Option<Load> {
    let mut found = None;
    LoadReport::of(headers, |report| found = Some(Load::from(report)));
    found
}

/// What the answer to a call says, be it good or bad.
async fn said(mesh: &Mesh, service: &str) -> Option<Load> {
    let metadata = match timeout(PATIENCE, health(mesh).check(ask(service))).await.unwrap() {
        Ok(response) => response.metadata().clone(),
        Err(status) => status.metadata().clone(),
    };
    read(&metadata.into_headers())
}

#[tokio::test]
async fn a51_a_server_says_its_load_and_what_its_handler_recorded_in_the_trailers() {
    let load = ServerLoad::new();
    let mesh = both(Some(load.clone())).await;
    assert_eq!(said(&mesh, "").await, None, "nothing is known");
    load.set(Load { cpu_utilization: 0.5, mem_utilization: 0.25, ..Load::default() });
    assert_eq!(said(&mesh, "").await, Some(Load::clone(&load.current())));
    load.update(|load| load.requests_per_second += 10.0);
    let request_cost = BTreeMap::from([("db".to_owned(), 3.0)]);
    let expected = Load { cpu_utilization: 0.75, request_cost, ..Load::clone(&load.current()) };
    assert_eq!(said(&mesh, "cheap").await, Some(expected), "the request's values beat the server's");
    assert_eq!(said(&mesh, "").await, Some(Load::clone(&load.current())), "they are one request's only");
    let expected = Load { errors_per_second: 1.0, ..Load::clone(&load.current()) };
    assert_eq!(said(&mesh, "bad").await, Some(expected), "a status without messages says it too");
}

#[tokio::test]
async fn a51_a_stream_says_it_at_its_end() {
    let mesh = both(Some(ServerLoad::new())).await;
    let mut messages = health(&mesh).watch(ask("")).await.unwrap().into_inner();
    while timeout(PATIENCE, messages.message()).await.unwrap().unwrap().is_some() {}
    let trailers = messages.trailers().await.unwrap().unwrap().into_headers();
    let expected = Load { application_utilization: 0.5, ..Load::default() };
    assert_eq!(read(&trailers), Some(expected), "what the handler learnt while it answered counts");
}

#[tokio::test]
async fn a51_a_server_that_was_not_asked_to_says_nothing() {
    let mesh = both(None).await;
    let status = timeout(PATIENCE, health(&mesh).check(ask("cheap"))).await.unwrap().unwrap_err();
    assert_eq!(status.message(), "there is nothing to record with");
    assert!(!status.metadata().clone().into_headers().contains_key(LOAD_REPORT));
}

#[tokio::test]
async fn a51_who_speaks_no_grpc_gets_it_in_the_head() {
    let load = ServerLoad::new();
    load.set(Load { cpu_utilization: 0.5, ..Load::default() });
    let mesh = both(Some(load.clone())).await;
    let response = timeout(PATIENCE, mesh.client(TARGET).unwrap().get("/")).await.unwrap().unwrap();
    assert_eq!(read(response.headers()), Some(Load::clone(&load.current())));
}
