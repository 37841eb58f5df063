//! `https` to hosts that are not in the mesh: the system's roots, and a certificate for that very name.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mesh_core::model::DownstreamTls;
use tokio::net::TcpListener;

use super::*;
use crate::inbound::InboundTls;
use crate::outbound::UnknownHosts;
use crate::secure::testing::{Ca, Leaf, downstream, secure, source};

/// Where rustls-native-certs takes the system's roots from.
const ROOTS: &str = "SSL_CERT_FILE";
const LIMIT: Duration = Duration::from_secs(120);

/// The system's roots are the process's: this one cannot be given others.
#[test]
fn https_passes_with_the_systems_roots_and_to_no_other_name() {
    let directory = std::env::temp_dir().join(format!("mesh-passing-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "outbound::tests::passing_tls::in_a_process_of_its_own", "--ignored", "--nocapture"])
        .env(ROOTS, directory.join("roots.pem"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => child.kill().unwrap(),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let out = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    assert!(status.success() && out.contains("1 passed"), "{out}");
}

#[tokio::test]
#[ignore = "run by the test above, in a process whose roots are its own"]
async fn in_a_process_of_its_own() {
    tokio::time::timeout(LIMIT / 2, judge_servers()).await.unwrap();
}

async fn judge_servers() {
    let (trusted, other) = (Ca::new(), Ca::new());
    std::fs::write(std::env::var_os(ROOTS).unwrap(), trusted.root_pem()).unwrap();
    let client = Mesh::builder().source(MemorySource::new([])).unknown_hosts(UnknownHosts::PassThrough).build();
    let client = client.unwrap().http();
    let address = Leaf { ips: vec!["127.0.0.1".parse().unwrap()], dns: vec![], ..Leaf::web("x") };

    let named = server(&trusted, &Leaf::web("localhost")).await;
    assert_eq!(get(&client, &format!("https://localhost:{named}/")).await.1, "HTTP/2.0 without a certificate");
    let numbered = server(&trusted, &address).await;
    assert_eq!(get(&client, &format!("https://127.0.0.1:{numbered}/")).await.1, "HTTP/2.0 without a certificate");

    let stranger = server(&other, &Leaf::web("localhost")).await;
    let plain = Backend::start("plain").await;
    for (host, port, expected) in [
        ("127.0.0.1", named, Code::WRONG_IDENTITY),
        ("localhost", numbered, Code::WRONG_IDENTITY),
        ("localhost", server(&trusted, &Leaf::web("example.test")).await, Code::WRONG_IDENTITY),
        ("localhost", server(&trusted, &Leaf { expired: true, ..Leaf::web("localhost") }).await, Code::HANDSHAKE),
        ("localhost", stranger, Code::HANDSHAKE),
        ("localhost", plain.address.port(), Code::HANDSHAKE),
    ] {
        let error = client.get(&format!("https://{host}:{port}/")).await.unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
    }
    assert_eq!(plain.count(), 0, "not one request in plaintext");
}

/// A server on loopback that asks for a certificate and takes clients without; it says what was spoken.
async fn server(ca: &Ca, leaf: &Leaf) -> u16 {
    let policy = DownstreamTls { require_client_certificate: false, ..downstream() };
    let tls = secure(&source(ca, leaf)).acceptor(&std::sync::Arc::new(policy)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(accepted) = tls.accept(Box::new(stream)).await else { return };
                let shown = if accepted.client.identity.is_some() { "with" } else { "without" };
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                        let said = format!("{:?} {shown} a certificate", request.version());
                        Ok::<_, std::convert::Infallible>(Response::new(said))
                    });
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(accepted.io), service).await;
            });
        }
    });
    port
}
