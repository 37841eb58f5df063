//! The mesh as a layer over an application's own client: it routes, retries, balances and traces, and leaves the exchange
//! to the service below, which gets the picked endpoint as the request's authority.

use axum::Router;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_examples::sandbox::Sandbox;
use mesh_examples::{Failure, say, text};
use mesh_tower::body::MeshBody;
use mesh_tower::connect::PickedEndpoint;
use mesh_tower::inbound::serve;
use tokio::net::TcpStream;
use tower::Layer;

/// A client that knows nothing of the mesh: one connection for each request.
async fn send(request: Request<MeshBody>) -> Result<Response<Incoming>, Failure> {
    let authority = request.uri().authority().ok_or("the request has no authority")?;
    let picked = request.extensions().get::<PickedEndpoint>().ok_or("the mesh says what it picked")?;
    assert_eq!(authority.as_str(), picked.address.to_string());
    let stream = TcpStream::connect(authority.as_str()).await?;
    let (mut connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection.send_request(request).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sandbox = Sandbox::new()?;
    let mesh = sandbox.mesh().build()?;
    let (slot, listener) = sandbox.bind(&mesh).await?.into_parts();
    tokio::spawn(serve(slot, listener, Router::new().fallback(|| async { "hello" })));

    let client = mesh.layer("xds:///greeter:8080")?.layer(tower::service_fn(send));
    let answer = text(client.get("/").await?).await?;
    assert_eq!(answer, "hello");
    Ok(say(&format!("layer: {answer}"))?)
}
