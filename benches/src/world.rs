//! Everything a client is measured against: certificates, servers and a control plane, on threads of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_core::bootstrap::Bootstrap;
use mesh_core::load::Load;
use mesh_core::source::responder::EncodedResource;
use mesh_grpc::Mesh;
use mesh_grpc::control::{ControlPlane, DevBootstrap, DevCa, DevCertificates, Workload};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::Error;
use crate::config::{self, Policies};
use crate::server::{self, Listening};

/// The identity of the servers.
pub const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";
const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
/// A name in the servers' certificates, for clients that know no SPIFFE.
const SERVER_NAME: &str = "localhost";

/// A control plane and what it tells clients of.
#[derive(Debug)]
pub struct World {
    control: ControlPlane,
    certificates: Certificates,
    /// The servers and the control plane run here, not on the client's thread.
    elsewhere: Runtime,
}

impl World {
    /// A world without servers, and a control plane that serves nothing yet.
    ///
    /// # Errors
    ///
    /// Certificates cannot be written, or no address is free.
    pub fn new() -> Result<Self, Error> {
        let certificates = Certificates::new()?;
        let elsewhere = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let control = elsewhere.block_on(ControlPlane::builder().listen("127.0.0.1:0"))?;
        Ok(Self { control, certificates, elsewhere })
    }

    /// Adds a gRPC server.
    ///
    /// # Errors
    ///
    /// As [`server::grpc`].
    pub fn grpc(&self, policies: Policies) -> Result<Listening, Error> {
        let _elsewhere = self.elsewhere.enter();
        server::grpc(policies.mtls.then(|| self.certificates.server()).as_deref())
    }

    /// Adds an HTTP/2 server that answers with `name`.
    ///
    /// # Errors
    ///
    /// As [`server::http2`].
    pub fn http2(&self, name: &'static str) -> Result<Listening, Error> {
        let _elsewhere = self.elsewhere.enter();
        server::http2(name)
    }

    /// The same, and says with each response what load it is under.
    ///
    /// # Errors
    ///
    /// As [`server::http2`].
    pub fn http2_under(&self, name: &'static str, load: &Load) -> Result<Listening, Error> {
        let _elsewhere = self.elsewhere.enter();
        server::http2_under(name, Some(load))
    }

    /// The control plane.
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// Sends every request of the mesh to `server`.
    ///
    /// # Errors
    ///
    /// None, unless the resources are none.
    pub fn send_to(&self, server: &Listening, policies: Policies) -> Result<(), Error> {
        let cluster = config::cluster("greeter", &[server.address], policies)?;
        let routes = config::routes(&[("greeter", 1)], policies)?;
        self.set(std::iter::once(config::listener()?).chain(cluster).chain([routes]));
        Ok(())
    }

    /// Serves these resources from now on.
    pub fn set(&self, resources: impl IntoIterator<Item = EncodedResource>) {
        self.control.set(resources);
    }

    /// The bootstrap of a client, with its certificates.
    pub fn bootstrap(&self) -> DevBootstrap {
        self.control.bootstrap("bench").certificates(self.client_certificates())
    }

    /// The folder of the client's certificates.
    pub fn client_certificates(&self) -> PathBuf {
        self.certificates.client()
    }

    /// A mesh of the control plane. Call it in the client's runtime.
    ///
    /// # Errors
    ///
    /// The mesh's.
    pub fn mesh(&self) -> Result<Mesh, Error> {
        Ok(Mesh::builder().bootstrap(Bootstrap::from_json(&self.bootstrap().to_json())?).build()?)
    }

    /// tonic's own channel to `server`, with the same TLS.
    ///
    /// # Errors
    ///
    /// tonic's.
    pub async fn bare_channel(&self, server: &Listening, policies: Policies) -> Result<Channel, Error> {
        bare_channel(server.address, policies.mtls.then(|| self.certificates.client()).as_deref()).await
    }
}

/// tonic's own channel, with the certificates in a folder or in plaintext.
///
/// # Errors
///
/// tonic's.
pub async fn bare_channel(address: std::net::SocketAddr, certificates: Option<&Path>) -> Result<Channel, Error> {
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?;
    if let Some(folder) = certificates {
        let tls = ClientTlsConfig::new().ca_certificate(server::root(folder)?).identity(server::identity(folder)?);
        endpoint = endpoint.tls_config(tls.domain_name(SERVER_NAME))?;
    }
    Ok(endpoint.connect().await?)
}

/// Development certificates in a folder that goes when they do.
#[derive(Debug)]
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn new() -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("mesh-benches-{}-{number}", std::process::id()));
        let new = Self { folder };
        let ca = Arc::new(DevCa::new()?);
        DevCertificates::write(ca.clone(), Workload::new(SERVER_ID.parse()?).dns_name(SERVER_NAME), new.server())?;
        DevCertificates::write(ca, Workload::new(CLIENT_ID.parse()?), new.client())?;
        Ok(new)
    }

    fn server(&self) -> PathBuf {
        self.folder.join("server")
    }

    fn client(&self) -> PathBuf {
        self.folder.join("client")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // It is in the system's folder for what nobody keeps.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
