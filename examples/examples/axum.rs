//! axum on the mesh: `axum::serve` keeps its own server, on the mesh's listener and with the mesh's layer.

use std::future::IntoFuture;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use mesh_examples::sandbox::Sandbox;
use mesh_examples::{Failure, say, text};
use mesh_tower::inbound::PeerInfo;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sandbox = Sandbox::new()?;
    let mesh = sandbox.mesh().build()?;
    let (listener, layer) = sandbox.bind(&mesh).await?.split();
    let hello = |Path(name): Path<String>| async move { format!("hello {name}") };
    let app = Router::new().route("/hello/{name}", get(hello)).layer(layer);
    // By this the layer knows each request's connection: without it, every request is refused.
    let app = app.into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(axum::serve(listener, app).into_future());

    let response = mesh.http().get("http://greeter:8080/hello/axum").await?;
    let answer = text(response).await?;
    assert_eq!(answer, "hello axum");
    Ok(say(&format!("axum: {answer}"))?)
}
