//! A real tonic server with a generated service, whose answers are asked for by name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::peer_identity;

/// The service. The name that is asked for says what happens: `hang`; `fail` (with a status and metadata); `flaky` (fails
/// twice, then is well); `echo` (metadata comes back); `whoami` (the caller's identity
/// and certificate, as metadata).
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    pub(crate) calls: Arc<AtomicUsize>,
    /// Told when a call that hangs is dropped.
    pub(crate) dropped: Arc<Notify>,
}

/// Tells when it is dropped.
struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

pub(crate) fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for Named {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(serving());
        match &*request.get_ref().service {
            "hang" => {
                let _tell = Tell(self.dropped.clone());
                std::future::pending::<()>().await;
            }
            "fail" => {
                let mut status = Status::with_details(Code::NotFound, "no \u{fc}ser", vec![1, 2, 3].into());
                status.metadata_mut().insert("x-why", MetadataValue::from_static("because"));
                return Err(status);
            }
            "flaky" if number < 2 => return Err(Status::unavailable("not yet")),
            "echo" => *response.metadata_mut() = request.metadata().clone(),
            "whoami" => {
                assert!(request.remote_addr().is_some_and(|address| address.ip().is_loopback()));
                if let Some(peer) = peer_identity(&request) {
                    let id = peer.spiffe_id().unwrap().to_string();
                    response.metadata_mut().insert("x-who", id.parse().unwrap());
                    response.metadata_mut().insert_bin("x-leaf-bin", MetadataValue::from_bytes(&peer.chain()[0]));
                }
            }
            _ => {}
        }
        Ok(response)
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, messages) = mpsc::channel(1);
        let service = request.into_inner().service;
        tokio::spawn(async move {
            for _ in 0..3 {
                let _ = sender.send(Ok(serving())).await;
            }
            match &*service {
                "hang" => sender.closed().await,
                "fail" => drop(sender.send(Err(Status::data_loss("half of it"))).await),
                _ => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// The service on a tonic server of its own, outside the mesh, in a runtime of its own: as tonic's connections are tasks that
/// nobody else can end, dropping it is a process that dies.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = Named::default();
        let calls = service.calls.clone();
        let serve = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = Server::builder().add_service(HealthServer::new(service));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            address
        };
        let address = runtime.spawn(serve).await.unwrap();
        Self { address, calls, runtime: Some(runtime) }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Dropped as it is, it would wait, which nobody may within a runtime.
        self.runtime.take().expect("it is dropped once").shutdown_background();
    }
}

/// An address of this machine on which nothing listens, as long as the socket is kept.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Long enough for a test that would otherwise hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
