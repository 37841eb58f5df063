//! hyper on the mesh: any Tower service over hyper's bodies, on a server that owns its connections. With an address that is
//! known before, `mesh.serve(address, service)` is all of it.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use mesh_examples::sandbox::Sandbox;
use mesh_examples::{Failure, say, text};
use mesh_tower::inbound::{RequestBody, serve};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sandbox = Sandbox::new()?;
    let mesh = sandbox.mesh().build()?;
    let (slot, listener) = sandbox.bind(&mesh).await?.into_parts();
    let hello = tower::service_fn(|request: Request<RequestBody>| async move {
        Ok::<_, Infallible>(Response::new(Full::from(format!("hello from {}", request.uri().path()))))
    });
    let served = tokio::spawn(serve(slot, listener, hello));

    let response = mesh.http().get("http://greeter:8080/hyper").await?;
    let answer = text(response).await?;
    assert_eq!(answer, "hello from /hyper");
    // It drains its connections, and returns.
    mesh.shutdown(Duration::from_secs(5)).await;
    served.await?;
    Ok(say(&format!("hyper: {answer}"))?)
}
