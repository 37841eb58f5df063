//! An application's own connector under the mesh: whatever gives a stream of bytes. The mesh's TLS and HTTP run above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_examples::sandbox::Sandbox;
use mesh_examples::{Failure, say, text};
use mesh_tower::inbound::serve;
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sandbox = Sandbox::new()?;
    let opened = Arc::new(AtomicUsize::new(0));
    let connector = {
        let opened = opened.clone();
        // A tunnel, a unix socket or a SOCKS proxy would be here.
        tower::service_fn(move |endpoint: Uri| {
            opened.fetch_add(1, Ordering::Relaxed);
            async move {
                let address = endpoint.authority().map(ToString::to_string).unwrap_or_default();
                TcpStream::connect(address).await.map(TokioIo::new)
            }
        })
    };
    let mesh = sandbox.mesh().connector(connector).build()?;
    let (slot, listener) = sandbox.bind(&mesh).await?.into_parts();
    tokio::spawn(serve(slot, listener, Router::new().fallback(|| async { "hello" })));

    for _ in 0..10 {
        assert_eq!(text(mesh.http().get("http://greeter:8080/").await?).await?, "hello");
    }
    let opened = opened.load(Ordering::Relaxed);
    assert!((1..10).contains(&opened), "connections are kept: {opened}");
    Ok(say(&format!("connector: 10 requests over {opened} connection(s) of its own"))?)
}
