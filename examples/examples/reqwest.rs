//! reqwest on the mesh: a middleware sends what an application asks of reqwest through the mesh.

use std::pin::Pin;

use axum::Router;
use http::{Extensions, Request};
use http_body_util::BodyDataStream;
use mesh_examples::sandbox::Sandbox;
use mesh_examples::{Failure, say};
use mesh_tower::inbound::serve;
use mesh_tower::outbound::HttpClient;
use reqwest_middleware::{ClientBuilder, Error, Next, Result};

type Answer<'a> = Pin<Box<dyn Future<Output = Result<reqwest::Response>> + Send + 'a>>;

/// The end of the chain: nothing behind it is called.
fn through(mesh: HttpClient) -> impl for<'a> Fn(reqwest::Request, &'a mut Extensions, Next<'a>) -> Answer<'a> {
    move |request, _, _| Box::pin(exchange(mesh.clone(), request))
}

async fn exchange(mesh: HttpClient, request: reqwest::Request) -> Result<reqwest::Response> {
    let request = Request::<reqwest::Body>::try_from(request)?;
    let response = mesh.send(request).await.map_err(Error::middleware)?;
    // The body stays a stream.
    Ok(response.map(|body| reqwest::Body::wrap_stream(BodyDataStream::new(body))).into())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Failure> {
    let sandbox = Sandbox::new()?;
    let mesh = sandbox.mesh().build()?;
    let (slot, listener) = sandbox.bind(&mesh).await?.into_parts();
    tokio::spawn(serve(slot, listener, Router::new().fallback(|body: String| async move { format!("hello {body}") })));

    let client = ClientBuilder::new(reqwest::Client::new()).with(through(mesh.http())).build();
    let answer = client.post("http://greeter:8080/").body("reqwest").send().await?.text().await?;
    assert_eq!(answer, "hello reqwest");
    Ok(say(&format!("reqwest: {answer}"))?)
}
