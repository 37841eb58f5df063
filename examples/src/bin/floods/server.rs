//! The server, as a process: one address in plaintext, one over mTLS, and the control plane that says so.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use hyper::body::Frame;
use mesh_core::bootstrap::Bootstrap;
use mesh_examples::Failure;
use mesh_grpc::control::{ControlPlane, DevCa, DevCertificates, Workload};
use mesh_tower::Mesh;
use mesh_tower::inbound::{InboundLimits, InboundOptions, serve};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

/// What a slow reader is sent, in pieces of 16 KiB.
const PIECES: usize = 1024;
/// All timeouts, when it is to be quick.
const QUICK: Duration = Duration::from_secs(2);

/// Where it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// The bootstrap of a client that the server takes.
    pub(crate) bootstrap: String,
}

/// The limits of the server.
pub(crate) fn limits(quick: bool) -> InboundLimits {
    let mut limits = InboundLimits::default();
    if quick {
        (limits.header_timeout, limits.handshake_timeout, limits.write_timeout) = (QUICK, QUICK, QUICK);
        limits.body_timeout = Some(QUICK);
    } else {
        // A minute, and five, by default; nobody waits that long for a table.
        limits.write_timeout = Duration::from_secs(10);
        limits.body_timeout = Some(Duration::from_secs(10));
    }
    limits
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves until stdin ends; says first where.
pub(crate) async fn run(quick: bool) -> Result<(), Failure> {
    let folder = Folder(std::env::temp_dir().join(format!("mesh-floods-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0)?;
    let ca = Arc::new(DevCa::new()?);
    let certificates = |account: &str| {
        let workload = Workload::service_account("cluster.local", "default", account)?;
        DevCertificates::write(ca.clone(), workload, folder.0.join(account))
    };
    let (server, client) = (certificates("server")?, certificates("client")?);
    let file = folder.0.join("mesh.yaml");
    let mut ports = [0; 2];
    std::fs::write(&file, world(ports))?;
    let control = ControlPlane::builder().file(&file)?.listen("127.0.0.1:0").await?;
    let bootstrap = control.bootstrap("server").certificates(server.folder()).to_json();
    let mut options = InboundOptions::default();
    options.limits = limits(quick);
    let mesh = Mesh::builder().bootstrap(Bootstrap::from_json(&bootstrap)?).server_options(options).build()?;
    let mut bound = Vec::new();
    for port in &mut ports {
        let address = mesh.bind("127.0.0.1:0").await?;
        *port = address.local_addr().port();
        bound.push(address);
    }
    std::fs::write(&file, world(ports))?;
    let [plain, tls] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    for address in bound {
        let (slot, listener) = address.into_parts();
        slot.serving().await;
        tokio::spawn(serve(slot, listener, app()));
    }
    let bootstrap = control.bootstrap("client").certificates(client.folder()).to_json();
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&Served { plain, tls, bootstrap })?)?;
    out.flush()?;
    let mut ignored = [0; 64];
    while tokio::io::stdin().read(&mut ignored).await? > 0 {}
    Ok(())
}

/// `plain` and `tls`, each with its one server.
fn world([plain, tls]: [u16; 2]) -> String {
    let service = |name: &str, port: u16| {
        format!(
            "{{kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 8080}}]}}}}\n---\n\
             kind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             ports: [{{port: {}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n",
            // Until the ports are known, something that nobody asks.
            if port == 0 { 9 + u16::from(name == "tls") } else { port }
        )
    };
    let policy = "kind: BackendTLSPolicy\nmetadata: {name: tls}\nspec:\n  \
        targetRefs: [{group: \"\", kind: Service, name: tls}]\n  validation:\n    hostname: tls\n    \
        caCertificateRefs: [{group: \"\", kind: ConfigMap, name: default}]\n    \
        subjectAltNames: [{type: URI, uri: \"spiffe://cluster.local/ns/default/sa/server\"}]\n  \
        options: {mesh/identity: default}\n";
    format!("{}{}{policy}", service("plain", plain), service("tls", tls))
}

/// Answers everything at once, `/never` never, `/big` with a stream, and `/read` when the request is over.
fn app() -> Router {
    Router::new()
        .route("/never", any(|| async { std::future::pending::<&'static str>().await }))
        .route("/big", any(|| async { Body::new(Big(PIECES)) }))
        .route("/read", any(|body: Bytes| async move { body.len().to_string() }))
        .fallback(any(|| async { "ok" }))
}

/// A stream of pieces, each made when it is asked for.
struct Big(usize);

impl hyper::body::Body for Big {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 16 * 1024])))))
    }
}
