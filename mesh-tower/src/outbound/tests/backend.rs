//! A real HTTP server that says what it is and what it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A server. Its requests may say what to answer: header `x-plan: 503,200` has the first request of the server answered 503
/// and the second 200; `hang` never answers, `slow` after 200 ms, `302>URL` sends elsewhere. `x-plan-NAME` is for the server of
/// that name alone.
pub(in crate::outbound) struct Backend {
    pub(in crate::outbound) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    count: AtomicUsize,
    last: Mutex<Option<(http::request::Parts, Bytes)>>,
}

impl Backend {
    pub(in crate::outbound) async fn start(name: &'static str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// In the place of one that was stopped.
    pub(in crate::outbound) async fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(serve(listener, name, seen.clone()));
        Self { address, seen, task }
    }

    pub(in crate::outbound) fn count(&self) -> usize {
        self.seen.count.load(Ordering::Relaxed)
    }

    pub(in crate::outbound) fn headers(&self) -> HeaderMap {
        self.seen.last.lock().unwrap().as_ref().unwrap().0.headers.clone()
    }

    pub(in crate::outbound) fn version(&self) -> Version {
        self.seen.last.lock().unwrap().as_ref().unwrap().0.version
    }

    pub(in crate::outbound) fn body(&self) -> Bytes {
        self.seen.last.lock().unwrap().as_ref().unwrap().1.clone()
    }

    /// Closes its socket and every connection.
    pub(in crate::outbound) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, name: &'static str, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let seen = seen.clone();
        let service = hyper::service::service_fn(move |request| answer(name, seen.clone(), request));
        connections.spawn(async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    name: &'static str,
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = seen.count.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let plan = head.headers.get(format!("x-plan-{name}")).or(head.headers.get("x-plan"));
    let plan = plan.map(|plan| plan.to_str().unwrap().to_owned()).unwrap_or_default();
    let step = plan.split(',').nth(number).unwrap_or_default().to_owned();
    let hangs = head.headers.get("x-hangs").is_some_and(|who| who == name);
    let authority = head.uri.authority().map(ToString::to_string);
    let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let text = format!("{name} {} {path} {}", head.method, authority.or(host).unwrap_or_default());
    *seen.last.lock().unwrap() = Some((head, body));
    if step == "hang" || hangs {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    if step == "slow" {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut response = Response::new(Full::from(text));
    let (status, location) = step.split_once('>').unwrap_or((&step, ""));
    if let Ok(status) = status.parse::<StatusCode>() {
        *response.status_mut() = status;
    }
    if !location.is_empty() {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    Ok(response)
}
