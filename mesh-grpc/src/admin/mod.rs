//! The admin services on one port (gRFC A38): what the process's xDS clients know (CSDS, gRFC A40), what its clients and servers
//! do (channelz), its health, and reflection, so that `grpcdebug`, `grpcurl` and health probes can read them.
//!
//! ```no_run
//! # async fn example() -> Result<(), mesh_grpc::Error> {
//! use mesh_grpc::Mesh;
//! use mesh_grpc::admin::Admin;
//!
//! let mesh = Mesh::from_env()?;
//! tokio::spawn(Admin::new(&mesh).serve("127.0.0.1:9901"));
//! # Ok(())
//! # }
//! ```
//!
//! Whoever reaches the port reads the whole configuration, so it is in plaintext on loopback only. To serve it to others, put
//! [`Admin::into_routes`] on a server of the mesh, whose Listener says who may call.

mod raw;
mod csds;
mod channelz;
#[cfg(test)]
#[cfg(feature = "control")]
mod tests;

use std::fmt;
use std::time::Duration;

use mesh_core::error::{Code, Error};
use mesh_tower::Mesh;
use tokio::net::{TcpListener, ToSocketAddrs};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::{Builder, Error as ReflectionError};

use channelz::Channelz;
use csds::Csds;
use raw::Raw;

/// The services that are ours, as reflection tells of them. Made by `cargo run -p mesh-benches --bin descriptors`.
const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// Calls under way on one connection: people and tools ask one at a time.
const CALLS: usize = 16;
/// How long a silent connection is left alone, and how long the answer may then take.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The admin services of a mesh.
#[must_use = "nothing is served before serve()"]
pub struct Admin {
    mesh: Mesh,
    health: HealthReporter,
    routes: Routes,
    descriptors: Vec<Vec<u8>>,
    remote: bool,
}

impl Admin {
    /// The services of `mesh`, which they keep alive.
    pub fn new(mesh: &Mesh) -> Self {
        let (health, server) = tonic_health::server::health_reporter();
        let routes = Routes::new(server).add_service(Raw::new(Csds::new(mesh.clone())));
        let routes = routes.add_service(Raw::new(Channelz::new(mesh.clone())));
        let descriptors = vec![DESCRIPTORS.to_vec(), tonic_health::pb::FILE_DESCRIPTOR_SET.to_vec()];
        Self { mesh: mesh.clone(), health, routes, descriptors, remote: false }
    }

    /// Says how services are, by their names. The process itself, whose name is empty, is `SERVING` unless it is told
    /// otherwise.
    pub fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    /// Lets reflection tell of the application's own services: their encoded `FileDescriptorSet`, as prost-build writes it.
    pub fn describe(mut self, descriptors: impl Into<Vec<u8>>) -> Self {
        self.descriptors.push(descriptors.into());
        self
    }

    /// Allows addresses other machines can reach. Without it they are refused, as anyone could read the configuration.
    pub fn allow_remote(mut self) -> Self {
        self.remote = true;
        self
    }

    /// The services, for a server of one's own: [`mesh_grpc::serve`](crate::serve) takes them.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_DESCRIPTORS`] if what [`describe`](Self::describe) was given is no descriptor set.
    pub fn into_routes(self) -> Result<Routes, Error> {
        let builder = || {
            let configure = Builder::configure();
            self.descriptors.iter().fold(configure, |builder, set| builder.register_encoded_file_descriptor_set(set))
        };
        let bad = |error: ReflectionError| Error::new(Code::BAD_DESCRIPTORS, error.to_string()).with_source(error);
        // Tools ask by either version.
        let (v1, alpha) = (builder().build_v1().map_err(bad)?, builder().build_v1alpha().map_err(bad)?);
        Ok(self.routes.add_service(v1).add_service(alpha))
    }

    /// Serves on `address` until [`Mesh::shutdown`]. Dropping the future closes everything at once.
    ///
    /// # Errors
    ///
    /// [`Code::BIND`] if the address cannot be listened on or other machines can reach it, and as
    /// [`into_routes`](Self::into_routes).
    pub async fn serve(self, address: impl ToSocketAddrs) -> Result<(), Error> {
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        self.serve_on(listener).await
    }

    /// As [`serve`](Self::serve), on a listener that is bound already.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub async fn serve_on(self, listener: TcpListener) -> Result<(), Error> {
        let address = listener.local_addr().map_err(cannot_listen)?;
        if !self.remote && !address.ip().is_loopback() {
            let text = format!("the admin services on {address} would show the configuration to other machines");
            let step = "listen on 127.0.0.1, put Admin::into_routes on a server of the mesh, or call allow_remote";
            return Err(Error::new(Code::BIND, text).with_next_step(step));
        }
        let mesh = self.mesh.clone();
        Server::builder()
            .concurrency_limit_per_connection(CALLS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_routes(self.into_routes()?)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), async move { mesh.stopped().await })
            .await
            .map_err(|error| Error::new(Code::BIND, format!("the admin services ended: {error}")).with_source(error))
    }
}

fn cannot_listen(error: std::io::Error) -> Error {
    Error::new(Code::BIND, format!("the admin services cannot listen: {error}")).with_source(error)
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("mesh", &self.mesh).field("remote", &self.remote).finish_non_exhaustive()
    }
}
