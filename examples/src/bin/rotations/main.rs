//! Certificates that change under load: `rotations [--quick]`.
//!
//! A control plane gives a server and its clients their certificates over SDS, and new ones 100 times a second, each with a
//! new key. A steady load runs over the connections that stand; beside it processes come, one after the other, that must make
//! their handshakes with what is there at that moment. Then one of two clients is revoked, with its connection in use. Prints a
//! row of a table for each, and ends with an error if a request is lost, or the revoked client is not out in time.

mod resources;
mod revocation;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mesh_core::bootstrap::{Bootstrap, SdsConfig};
use mesh_core::source::responder::EncodedResource;
use mesh_examples::backend::{self, Options};
use mesh_examples::load::{self, Call, Pace, Tally};
use mesh_examples::{Failure, log_to_stderr, say};
use mesh_grpc::control::{ControlPlane, DevCa, Workload};
use mesh_tower::Mesh;
use mesh_tower::inbound::Bound;
use tokio::task::JoinHandle;

use resources::{CLIENTS, SERVER, resources};

/// Between two rotations.
const PERIOD: Duration = Duration::from_millis(10);
/// Requests in a second over the connections that stand.
const RPS: u32 = 200;
/// So many processes come at the same time.
const NEWCOMERS: usize = 2;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

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
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(all(length))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether both hold.
async fn all(length: Duration) -> Result<bool, Failure> {
    let lossless = run(length).await?;
    Ok(revocation::run().await? && lossless)
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
    let resources = resources(bound.slot().target(), bound.local_addr(), None)?;
    let issuer = Arc::new(Issuer { control, ca: DevCa::new()?, resources });
    issuer.rotate()?;
    let served = serve(bound).await?;

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

/// Serves, once it may.
async fn serve(bound: Bound) -> Result<JoinHandle<()>, Failure> {
    let (address, (slot, listener)) = (bound.local_addr(), bound.into_parts());
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
    Ok(served)
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
        let secrets = [issue("server", SERVER)?, issue("client", CLIENTS)?, self.ca.root_secret("ROOTCA")];
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
