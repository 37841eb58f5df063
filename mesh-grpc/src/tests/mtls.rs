//! The whole thing with identities: a control plane, a server and clients, each with its own bootstrap and certificates.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Code as Grpc;
use tonic_health::pb::health_server::HealthServer;

use super::backend::{Named, PATIENCE};
use super::config::{cluster, encode, forward, listener, server_listener};
use super::wire::{Relay, is_tls};
use super::{ask, health};
use crate::control::{ControlPlane, DevCa, DevCertificates, Workload};
use crate::{Bootstrap, Code, Error, Mesh, WaitForReady, error_of, serve_on};

const SERVER: &str = "spiffe://cluster.local/ns/default/sa/greeter";
const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/caller";

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A control plane, a server behind a relay, and what both are configured with.
struct World {
    control: ControlPlane,
    relay: Relay,
    server: DevCertificates,
    caller: DevCertificates,
    listener: Value,
    _mesh: Mesh,
    _folder: Folder,
}

pub(super) fn tls(kind: &str, mut context: Value) -> Value {
    context["@type"] = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}").into();
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn common(sans: &Value) -> Value {
    json!({
        "tls_certificate_provider_instance": {"instance_name": "default"},
        "validation_context": {
            "ca_certificate_provider_instance": {"instance_name": "default"},
            "match_subject_alt_names": sans,
        },
    })
}

/// The transport socket of a client that calls `server`.
fn upstream(server: &str) -> Value {
    tls("UpstreamTlsContext", json!({"common_tls_context": common(&json!([{"exact": server}]))}))
}

fn mesh(control: &ControlPlane, node: &str, certificates: &DevCertificates) -> Mesh {
    mesh_with(control, node, certificates, &[])
}

fn mesh_with(control: &ControlPlane, node: &str, certificates: &DevCertificates, aliases: &[&str]) -> Mesh {
    let json = control
        .bootstrap(node)
        .certificates(certificates.folder())
        .refresh_interval(Duration::from_millis(100))
        .to_json();
    let builder = Mesh::builder().bootstrap(Bootstrap::from_json(&json).unwrap());
    builder.trust_domain_aliases(aliases.iter().copied()).build().unwrap()
}

impl World {
    async fn new(name: &str) -> Self {
        Self::with(name, "cluster.local", &[]).await
    }

    /// A caller of this trust domain, and a server that has these aliases of its own.
    async fn with(name: &str, callers: &str, aliases: &[&str]) -> Self {
        let folder = Folder(std::env::temp_dir().join(format!("mesh-grpc-{}-{name}", std::process::id())));
        let ca = Arc::new(DevCa::new().unwrap());
        let issue = |domain: &str, account: &str| {
            let workload = Workload::service_account(domain, "default", account).unwrap();
            DevCertificates::write(ca.clone(), workload, folder.0.join(account)).unwrap()
        };
        let (server, caller) = (issue("cluster.local", "greeter"), issue(callers, "caller"));
        let control = ControlPlane::builder().listen("127.0.0.1:0").await.unwrap();
        let mesh = mesh_with(&control, "server", &server, aliases);
        let bound = mesh.bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr();
        let slot = bound.slot().clone();
        let socket = tls(
            "DownstreamTlsContext",
            json!({"require_client_certificate": true, "common_tls_context": common(&json!([]))}),
        );
        let listener = server_listener(bound.slot().target(), address, Some(&socket));
        let relay = Relay::to(address).await;
        tokio::spawn(serve_on(bound, HealthServer::new(Named::default())));
        let world = Self { control, relay, server, caller, listener, _mesh: mesh, _folder: folder };
        world.call_with(&upstream(SERVER));
        // A server that does not serve yet closes connections, and that is another failure than those looked for here.
        slot.serving().await;
        world
    }

    /// Has clients call over this transport socket.
    fn call_with(&self, socket: &Value) {
        let mut blue = cluster("blue", &[self.relay.address]);
        blue["transport_socket"] = socket.clone();
        self.call(blue);
    }

    /// Has clients call this cluster, whose endpoint says of itself that it has this `tlsMode`, as istiod writes both.
    fn call_by_mode(&self, mode: &str) {
        let plaintext = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
        let mut blue = cluster("blue", &[self.relay.address]);
        blue["transport_socket_matches"] = json!([
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": upstream(SERVER)},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket":
                {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": plaintext}}},
        ]);
        let endpoint = &mut blue["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
        endpoint["metadata"] = json!({"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": mode}}});
        self.call(blue);
    }

    fn call(&self, blue: Value) {
        let routes = listener("greeter", &json!([forward("blue")]));
        self.control.set(encode(&[self.listener.clone(), routes, blue]));
    }

    fn client(&self) -> Mesh {
        mesh(&self.control, "client", &self.caller)
    }
}

/// Who the server says the caller is, and by which certificate.
pub(super) async fn who(mesh: &Mesh) -> (String, Vec<u8>) {
    let mut request = ask("whoami");
    request.extensions_mut().insert(WaitForReady);
    let response = timeout(PATIENCE, health(mesh).check(request)).await.unwrap().unwrap();
    let metadata = response.metadata();
    let leaf = metadata.get_bin("x-leaf-bin").unwrap().to_bytes().unwrap();
    (metadata.get("x-who").unwrap().to_str().unwrap().to_owned(), leaf.to_vec())
}

/// gRFC A29.
#[tokio::test]
async fn a_call_proves_who_both_are() {
    let world = World::new("both").await;
    assert_eq!(who(&world.client()).await.0, CLIENT);
    assert!(world.relay.sent().iter().all(|bytes| is_tls(bytes)));
}

#[tokio::test]
async fn a_server_that_is_somebody_else_gets_no_byte() {
    let world = World::new("else").await;
    world.call_with(&upstream("spiffe://cluster.local/ns/default/sa/other"));
    let mesh = world.client();
    let mut client = health(&mesh);
    for _ in 0..3 {
        let status = timeout(PATIENCE, client.check(ask("secret"))).await.unwrap().unwrap_err();
        let found = error_of(&status).map(Error::code);
        assert_eq!((status.code(), found), (Grpc::Unavailable, Some(Code::WRONG_IDENTITY)), "{status:?}");
        assert!(status.message().contains(SERVER), "{}", status.message());
    }
    let sent = world.relay.sent();
    assert!(!sent.is_empty() && sent.iter().all(|bytes| is_tls(bytes)), "{sent:?}");

    world.call_with(&upstream(SERVER));
    assert_eq!(who(&mesh).await.0, CLIENT);
}

/// The server is STRICT: plaintext is seen by what it does not answer.
#[tokio::test]
async fn auto_mtls_follows_the_endpoints_metadata_live() {
    let world = World::new("auto").await;
    world.call_by_mode("istio");
    let mesh = world.client();
    assert_eq!(who(&mesh).await.0, CLIENT);
    assert!(world.relay.sent().iter().all(|bytes| is_tls(bytes)));
    world.call_by_mode("disabled");
    let refused = async {
        while health(&mesh).check(ask("")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("the connection that stood is used no more");
    assert!(world.relay.sent().iter().any(|bytes| !is_tls(bytes)));
    world.call_by_mode("istio");
    assert_eq!(who(&mesh).await.0, CLIENT);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_so() {
    let world = World::new("nobody").await;
    // The server is up.
    who(&world.client()).await;
    let sans = json!([{"exact": SERVER}]);
    let mut common = common(&sans);
    common.as_object_mut().unwrap().remove("tls_certificate_provider_instance");
    world.call_with(&tls("UpstreamTlsContext", json!({"common_tls_context": common})));
    let status = timeout(PATIENCE, health(&world.client()).check(ask(""))).await.unwrap().unwrap_err();
    let found = error_of(&status).map(Error::code);
    assert_eq!((status.code(), found), (Grpc::Unavailable, Some(Code::HANDSHAKE)), "{status:?}");
    assert!(status.message().contains("certificate"), "{}", status.message());
}

/// Istio's `trustDomainAliases`: the authority is one, and the trust domains are two.
#[tokio::test]
async fn istio_a_caller_of_another_trust_domain_gets_an_answer_only_where_that_is_an_alias() {
    let strangers = World::with("stranger", "theirs.test", &["other.test"]).await;
    let status = timeout(PATIENCE, health(&strangers.client()).check(ask(""))).await.unwrap().unwrap_err();
    let found = error_of(&status).map(Error::code);
    assert_eq!((status.code(), found), (Grpc::Unavailable, Some(Code::HANDSHAKE)), "{status:?}");
    let alias = World::with("alias", "theirs.test", &["theirs.test"]).await;
    assert_eq!(who(&alias.client()).await.0, "spiffe://theirs.test/ns/default/sa/caller");
}

#[tokio::test]
async fn an_alias_that_is_no_trust_domain_is_named() {
    for bad in ["", "Cluster.local", "spiffe://cluster.local", "cluster.local/ns"] {
        let builder = Mesh::builder().source(mesh_core::source::MemorySource::new([]));
        let error = builder.trust_domain_aliases(["good.test", bad]).build().unwrap_err();
        assert_eq!(error.code(), Code::BAD_BOOTSTRAP);
        assert!(error.to_string().contains(&format!("`{bad}` is no trust domain")), "{error}");
    }
}

#[tokio::test]
async fn certificates_change_under_calls() {
    let world = World::new("rotation").await;
    let mesh = world.client();
    let (_, first) = who(&mesh).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = std::iter::repeat_with(|| {
        let (stop, calls, mut client) = (stop.clone(), calls.clone(), health(&mesh));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.check(ask("")).await?;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(())
        })
    })
    .take(16)
    .collect();
    let mut leaves = HashSet::from([first]);
    for _ in 0..4 {
        let before = calls.load(Ordering::Relaxed);
        world.server.rotate().unwrap();
        world.caller.rotate().unwrap();
        // Whoever comes now makes the handshake with what is there now, whether both halves have been replaced or not.
        for _ in 0..4 {
            let (id, leaf) = who(&world.client()).await;
            assert_eq!(id, CLIENT);
            leaves.insert(leaf);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(calls.load(Ordering::Relaxed) > before);
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(leaves.len(), 5, "each rotation's certificate was used");
    for task in load {
        timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    }
}
