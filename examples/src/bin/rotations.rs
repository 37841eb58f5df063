//! Certificates that change under load: `rotations [--quick]`.
//!
//! A control plane gives a server and its clients their certificates over SDS, and new ones 100 times a second, each with a
//! new key. A steady load runs over the connections that stand; beside it processes come, one after the other, that must make
//! their handshakes with what is there at that moment. Prints one row of a table, and ends with an error if a request is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mesh_core::bootstrap::{Bootstrap, SdsConfig};
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use mesh_examples::backend::{self, Options};
use mesh_examples::load::{self, Call, Pace, Tally};
use mesh_examples::{Failure, log_to_stderr, say};
use mesh_grpc::control::{ControlPlane, DevCa, Workload};
use mesh_tower::Mesh;
use serde_json::{Value, json};

/// Between two rotations.
const PERIOD: Duration = Duration::from_millis(10);
/// Requests in a second over the connections that stand.
const RPS: u32 = 200;
/// So many processes come at the same time.
const NEWCOMERS: usize = 2;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
const TYPE: &str = "type.googleapis.com/envoy";

/// Rotates certificates under load.
#[derive(Debug, Parser)]
struct Arguments {
    /// For 5 seconds, not for a minute.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    log_to_stderr("error");
    let length = Duration::from_secs(if Arguments::parse().quick { 5 } else { 60 });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(length))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Who gives certificates, and what for.
struct Issuer {
    control: ControlPlane,
    ca: DevCa,
    resources: Vec<EncodedResource>,
}

/// What is counted beside the load.
#[derive(Default)]
struct Counted {
    stop: AtomicBool,
    rotations: AtomicU64,
}

async fn run(length: Duration) -> Result<bool, Failure> {
    let control = ControlPlane::builder().listen("127.0.0.1:0").await?;
    let server = mesh(&control, "server")?;
    let bound = server.bind("127.0.0.1:0").await?;
    let (address, (slot, listener)) = (bound.local_addr(), bound.into_parts());
    let resources = resources(slot.target(), address)?;
    let issuer = Arc::new(Issuer { control, ca: DevCa::new()?, resources });
    issuer.rotate()?;
    let options = Options {
        listen: address,
        name: "server".into(),
        grpc: false,
        busy: None,
        delay: Duration::ZERO,
        is_child: false,
    };
    let serving = slot.clone();
    let served = tokio::spawn(async move { mesh_tower::inbound::serve(slot, listener, backend::app(&options)).await });
    tokio::time::timeout(PATIENCE, serving.serving()).await?;

    let counted = Arc::new(Counted::default());
    let rotating = tokio::spawn(rotate(issuer.clone(), counted.clone()));
    let newcomers: Vec<_> = (0..NEWCOMERS).map(|_| tokio::spawn(come(issuer.clone(), counted.clone()))).collect();
    let steady = mesh(&issuer.control, "client")?;
    let call = Call::http(&steady, "xds:///svc", PATIENCE)?;
    let mut tally = load::run(call, Pace { rps: RPS, duration: length, in_flight: 64 }).await;
    counted.stop.store(true, Ordering::Relaxed);
    rotating.await??;
    let mut seen = BTreeSet::new();
    let mut handshakes = 0;
    for newcomer in newcomers {
        let (came, certificates) = newcomer.await??;
        handshakes += came.ok;
        tally.merge(&came);
        seen.extend(certificates);
    }
    served.abort();
    report(&tally, length, counted.rotations.load(Ordering::Relaxed), handshakes, seen.len())
}

fn report(tally: &Tally, length: Duration, rotations: u64, handshakes: u64, seen: usize) -> Result<bool, Failure> {
    let rate = rotations / length.as_secs().max(1);
    // Of what was asked for a tenth may be missing: the machine may have other things to do.
    let holds = tally.lost == 0 && tally.ok > 0 && rate >= 90 && seen > 1;
    let why: Vec<String> = tally.errors.iter().map(|(error, count)| format!(" {count} {error}")).collect();
    let verdict = if holds { "" } else { " **does not hold**" };
    say(&format!(
        "| {rotations} rotations by SDS of both sides' certificates in {} s ({rate}/s) under load, {handshakes} first requests of \
         new processes with {seen} certificates among them | {} of {} lost{}{verdict} | 0 lost at 100/s |",
        length.as_secs(),
        tally.lost,
        tally.sent,
        why.concat()
    ))?;
    Ok(holds)
}

async fn rotate(issuer: Arc<Issuer>, counted: Arc<Counted>) -> Result<(), Failure> {
    let mut due = tokio::time::interval(PERIOD);
    while !counted.stop.load(Ordering::Relaxed) {
        due.tick().await;
        issuer.rotate()?;
        counted.rotations.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Processes that come, call once and go. Gives what became of the calls, and which certificates the server saw.
async fn come(issuer: Arc<Issuer>, counted: Arc<Counted>) -> Result<(Tally, BTreeSet<u64>), Failure> {
    let (mut tally, mut seen) = (Tally::default(), BTreeSet::new());
    while !counted.stop.load(Ordering::Relaxed) {
        let mesh = mesh(&issuer.control, "client")?;
        let outcome = Call::http(&mesh, "xds:///svc", PATIENCE)?.once(Instant::now()).await;
        seen.extend(outcome.seen_certificate);
        tally.add(outcome);
        mesh.shutdown(PATIENCE).await;
    }
    Ok((tally, seen))
}

impl Issuer {
    /// A new key and a new certificate for both sides.
    fn rotate(&self) -> Result<(), Failure> {
        let issue =
            |secret: &str, id: &str| -> Result<_, Failure> { Ok(self.ca.secret(secret, &Workload::new(id.parse()?))?) };
        let secrets = [issue("server", SERVER)?, issue("client", CLIENT)?, self.ca.root_secret("ROOTCA")];
        self.control.set(self.resources.iter().cloned().chain(secrets));
        Ok(())
    }
}

/// A mesh that has its certificate from the control plane's SDS, under the name of its node.
fn mesh(control: &ControlPlane, node: &str) -> Result<Mesh, Failure> {
    let bootstrap = Bootstrap::from_json(&control.bootstrap(node).to_json())?;
    let sds = SdsConfig::new(control.address().to_string())?.with_names(node, "ROOTCA");
    Ok(Mesh::builder().bootstrap(bootstrap).certificate_provider("default", sds).build()?)
}

fn tls(kind: &str, mut context: Value) -> Value {
    context["@type"] = format!("{TYPE}.extensions.transport_sockets.tls.v3.{kind}").into();
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn manager(routes: &Value) -> Value {
    json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "route_config": {"name": "table", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.router.v3.Router")}}],
    })
}

fn resources(server: &str, address: SocketAddr) -> Result<Vec<EncodedResource>, Failure> {
    let default = json!({"instance_name": "default"});
    let common = |sans: Value| {
        json!({"tls_certificate_provider_instance": default, "validation_context": {
            "ca_certificate_provider_instance": default, "match_subject_alt_names": sans}})
    };
    let socket = json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let downstream =
        json!({"require_client_certificate": true, "common_tls_context": common(json!([{"exact": CLIENT}]))});
    let served = manager(&json!([{"match": {"prefix": ""}, "non_forwarding_action": {}}]));
    let all = [
        json!({
            "@type": format!("{TYPE}.config.listener.v3.Listener"), "name": server, "address": socket,
            "filter_chains": [{"filters": [{"name": "http", "typed_config": served}],
                "transport_socket": tls("DownstreamTlsContext", downstream)}],
        }),
        json!({
            "@type": format!("{TYPE}.config.listener.v3.Listener"), "name": "svc",
            "api_listener": {"api_listener": manager(&json!([{"match": {"prefix": ""}, "route": {"cluster": "blue"}}]))},
        }),
        json!({
            "@type": format!("{TYPE}.config.cluster.v3.Cluster"), "name": "blue", "type": "STATIC",
            "transport_socket": tls("UpstreamTlsContext", json!({"common_tls_context": common(json!([{"exact": SERVER}]))})),
            "load_assignment": {"cluster_name": "blue", "endpoints": [{"locality": {"region": "r"},
                "load_balancing_weight": 1, "lb_endpoints": [{"endpoint": {"address": socket}}]}]},
        }),
    ];
    all.iter().map(|resource| resource_from_json(resource).map_err(|error| error.to_string().into())).collect()
}
