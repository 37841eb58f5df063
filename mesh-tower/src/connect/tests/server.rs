//! Servers whose connections are in the test's hand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::body::MeshBody;
use crate::connect::BoxFuture;

pub(super) type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<MeshBody>> + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http {
    One,
    Two,
}

/// A server. Dropping it drops its connections, as a crash would.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    goaway: watch::Sender<u32>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    pub(super) async fn start(http: Http, handler: Handler) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), http, handler).await
    }

    pub(super) async fn on(address: SocketAddr, http: Http, handler: Handler) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (goaway, told) = watch::channel(0);
        let counts = (accepted.clone(), open.clone());
        let task = Mutex::new(Some(tokio::spawn(accept(listener, http, handler, counts, told))));
        Self { address, accepted, open, goaway, task }
    }

    /// How many connections it has taken.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Until so many connections are open.
    pub(super) async fn until_open(&self, count: usize) {
        while self.open.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    }

    /// Ends all connections gracefully.
    pub(super) fn goaway(&self) {
        self.goaway.send_modify(|count| *count += 1);
    }

    /// Ends all at once, the listener too.
    pub(super) async fn kill(&self) {
        let task = self.task.lock().unwrap().take().unwrap();
        task.abort();
        let _ = task.await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}

async fn accept(
    listener: TcpListener,
    http: Http,
    handler: Handler,
    (accepted, open): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    told: watch::Receiver<u32>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        accepted.fetch_add(1, Ordering::SeqCst);
        open.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(open.clone());
        let mut told = told.clone();
        told.mark_unchanged();
        let serving = serve(stream, http, handler.clone(), told);
        connections.spawn(async move {
            let _counted = counted;
            serving.await;
        });
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(stream: TcpStream, http: Http, handler: Handler, mut told: watch::Receiver<u32>) {
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    match http {
        Http::One => {
            let mut connection = pin!(http1::Builder::new().serve_connection(io, service).with_upgrades());
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = told.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
        Http::Two => {
            let builder = http2::Builder::new(TokioExecutor::new());
            let mut connection = pin!(builder.serve_connection(io, service));
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = told.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

/// Answers with the request's method, URI, host and version.
pub(super) fn echo() -> Handler {
    Arc::new(|request| {
        let host = request.headers().get("host").map_or("-", |host| host.to_str().unwrap());
        let text = format!("{} {} {host} {:?}", request.method(), request.uri(), request.version());
        Box::pin(async move { Response::new(text.into()) })
    })
}

/// Answers once `gate` says so, and tells `arrived` of each request first.
pub(super) fn held(arrived: Arc<AtomicUsize>, gate: watch::Receiver<bool>) -> Handler {
    Arc::new(move |_| {
        arrived.fetch_add(1, Ordering::SeqCst);
        let mut gate = gate.clone();
        Box::pin(async move {
            let _ = gate.wait_for(|open| *open).await;
            Response::new("done".into())
        })
    })
}
