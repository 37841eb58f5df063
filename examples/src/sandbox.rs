//! A mesh of one service in a file of its own, for the examples.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_tower::inbound::Bound;
use mesh_tower::{Mesh, MeshBuilder};

use crate::Failure;

/// A YAML file with the Service `greeter`, port 8080. It goes with its owner.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
}

impl Sandbox {
    /// With a Service that runs nowhere yet.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn new() -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("mesh-sandbox-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let sandbox = Self { folder };
        sandbox.write("")?;
        Ok(sandbox)
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("mesh.yaml")
    }

    /// A mesh of this file, as `MESH_CONFIG` would make it.
    pub fn mesh(&self) -> MeshBuilder {
        Mesh::builder().file(self.file())
    }

    /// Binds any port of this machine, says in the file that `greeter` runs there, and waits until it may be served.
    ///
    /// # Errors
    ///
    /// As [`Mesh::bind`], and the file cannot be written.
    pub async fn bind(&self, mesh: &Mesh) -> Result<Bound, Failure> {
        let bound = mesh.bind("127.0.0.1:0").await?;
        self.runs_at(bound.local_addr())?;
        bound.slot().serving().await;
        Ok(bound)
    }

    /// Says in the file where `greeter` runs.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn runs_at(&self, address: SocketAddr) -> Result<(), Failure> {
        let (ip, port) = (address.ip(), address.port());
        self.write(&format!(
            "---
kind: EndpointSlice
metadata: {{name: greeter, labels: {{kubernetes.io/service-name: greeter}}}}
ports: [{{port: {port}}}]
endpoints: [{{addresses: [\"{ip}\"]}}]
"
        ))
    }

    fn write(&self, slice: &str) -> Result<(), Failure> {
        let service = "{kind: Service, metadata: {name: greeter}, spec: {ports: [{port: 8080}]}}\n";
        Ok(std::fs::write(self.file(), format!("{service}{slice}"))?)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
