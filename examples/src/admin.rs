//! The admin services of a program, where it is told to serve them.

use std::net::SocketAddr;

use mesh_core::error::{Code, Error};
use mesh_grpc::admin::Admin;
use mesh_tower::Mesh;
use tokio::net::TcpListener;

/// Serves the admin services of `mesh` on `address`, if there is one, until the mesh is shut down. They are listened for when
/// this returns.
///
/// # Errors
///
/// [`Code::BIND`].
pub async fn serve(mesh: &Mesh, address: Option<SocketAddr>) -> Result<(), Error> {
    let Some(address) = address else { return Ok(()) };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Error::new(Code::BIND, format!("{address}: {error}")).with_source(error))?;
    let served = Admin::new(mesh).serve_on(listener);
    tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!("{error}");
        }
    });
    Ok(())
}
