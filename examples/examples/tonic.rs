//! tonic on the mesh: a generated service under tonic's own server, and its generated client over a channel of the mesh.

use mesh_examples::sandbox::Sandbox;
use mesh_examples::{Failure, say};
use mesh_grpc::MeshChannel;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sandbox = Sandbox::new()?;
    let mesh = sandbox.mesh().build()?;
    let (listener, layer) = sandbox.bind(&mesh).await?.split();
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(listener));

    let mut client = HealthClient::new(MeshChannel::new(&mesh, "xds:///greeter:8080")?);
    let status = client.check(HealthCheckRequest::default()).await?.into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    Ok(say(&format!("tonic: {status:?}"))?)
}
