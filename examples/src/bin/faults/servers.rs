//! The backends, as a process: three servers without a mesh, on every address of this machine's loopback network.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use mesh_examples::Failure;
use mesh_examples::backend::BACKEND;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// How many there are.
pub(crate) const BACKENDS: usize = 3;

/// Serves until stdin ends; says the ports first.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut ports = Vec::new();
    for number in 0..BACKENDS {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        ports.push(listener.local_addr()?.port());
        tokio::spawn(serve(listener, HeaderValue::from(number)));
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&ports)?)?;
    out.flush()?;
    let mut ignored = [0; 64];
    while tokio::io::stdin().read(&mut ignored).await? > 0 {}
    Ok(())
}

async fn serve(listener: TcpListener, name: HeaderValue) {
    loop {
        // Nothing else goes wrong than that the process is out of descriptors for a moment.
        let Ok((stream, _)) = listener.accept().await else { continue };
        // As any server would: otherwise a small answer waits 40 ms for the client's kernel to acknowledge the one before.
        let _ = stream.set_nodelay(true);
        let name = name.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
                response.headers_mut().insert(BACKEND, name.clone());
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let _ =
                Builder::new(TokioExecutor::new()).http2_only().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
