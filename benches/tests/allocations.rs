//! Allocations of a call through the mesh, over those of the same call by the bare client: counted, printed, and bounded.
//!
//! The client has a current-thread runtime, and only its thread is counted: its connections run there, too, while servers and
//! control plane run elsewhere. Metrics and W3C propagation are on, no call is sampled.

use std::io::Write;
use std::sync::OnceLock;

use mesh_benches::Error;
use mesh_benches::calls::{BareHttp, Caller, Grpc, MeshHttp, repeat};
use mesh_benches::config::{AUTHORITY, Policies};
use mesh_benches::server::Listening;
use mesh_benches::telemetry::Telemetry;
use mesh_benches::world::World;
use mesh_core::load::Load;
use mesh_grpc::MeshChannel;
use mesh_grpc::control::What;
use tokio::runtime::{Builder, Runtime};

const WARM_UP: usize = 1000;
/// The numbers are stated of a release build. Without optimization calls are slow, and allocate the same.
const COUNTED: usize = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
const COUNTER: &str = "mesh.client.requests";
const IN_FLIGHT: [usize; 2] = [1, 64];

const PLAIN: Policies = Policies { mtls: false, retry: false, load: false };
const MTLS: Policies = Policies { mtls: true, retry: false, load: false };
const LOAD: Policies = Policies { mtls: false, retry: false, load: true };
const MTLS_AND_RETRY: Policies = Policies { mtls: true, retry: true, load: false };

fn telemetry() -> &'static Telemetry {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    TELEMETRY.get_or_init(Telemetry::install)
}

fn client() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Allocations of one call.
fn count(runtime: &Runtime, caller: &impl Caller, in_flight: usize) -> Result<f64, Error> {
    runtime.block_on(repeat(caller, WARM_UP, in_flight))?;
    let mut calls = Ok(0);
    let counted = allocation_counter::measure(|| calls = runtime.block_on(repeat(caller, COUNTED, in_flight)));
    Ok(counted.count_total as f64 / calls? as f64)
}

/// Prints the numbers of both clients, and fails if the second's are more than `budget` over the first's.
fn compare(what: &str, budget: f64, runtime: &Runtime, bare: &impl Caller, mesh: &impl Caller) -> Result<(), Error> {
    for in_flight in IN_FLIGHT {
        let (bare, mesh) = (count(runtime, bare, in_flight)?, count(runtime, mesh, in_flight)?);
        let difference = mesh - bare;
        // Not by `println!`, which the harness keeps to itself when all is well: these lines are the numbers.
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "| allocations: {what}, {in_flight} in flight | {difference:.2} ({mesh:.2}, bare {bare:.2}) | {budget} at most |"
        )?;
        assert!(difference <= budget, "{what}, {in_flight} in flight: {difference} more, {budget} at most");
    }
    Ok(())
}

/// The mesh's calls are the ones that were traced, and all of them were measured.
fn assert_observed(server: &Listening, before: u64) -> Result<(), Error> {
    let (requests, traced) = (server.seen.requests(), server.seen.traced());
    assert_eq!(traced * 2, requests, "half of the calls came through the mesh, and those are traced");
    let counted = telemetry().counted(COUNTER)? - before;
    assert!(counted >= traced, "{counted} of {traced} calls were counted");
    Ok(())
}

fn grpc(what: &str, budget: f64, policies: Policies) -> Result<(), Error> {
    let before = telemetry().counted(COUNTER)?;
    let world = World::new()?;
    let server = world.grpc(policies)?;
    world.send_to(&server, policies)?;
    let runtime = client()?;
    let bare = Grpc::new(runtime.block_on(world.bare_channel(&server, policies))?);
    let mesh = runtime.block_on(async { world.mesh() })?;
    let through = Grpc::new(MeshChannel::new(&mesh, &format!("xds:///{AUTHORITY}"))?);
    compare(what, budget, &runtime, &bare, &through)?;
    assert_observed(&server, before)
}

#[test]
fn of_a_unary_rpc_over_mtls() -> Result<(), Error> {
    grpc("unary gRPC over mTLS", 4.0, MTLS)
}

#[test]
fn of_a_unary_rpc_under_istiods_retry_policy() -> Result<(), Error> {
    grpc("unary gRPC over mTLS under istiod's retry policy", 8.0, MTLS_AND_RETRY)
}

#[test]
fn of_a_plain_http2_request() -> Result<(), Error> {
    let before = telemetry().counted(COUNTER)?;
    let world = World::new()?;
    let server = world.http2("greeter")?;
    world.send_to(&server, PLAIN)?;
    let runtime = client()?;
    let bare = runtime.block_on(BareHttp::connect(&server))?;
    let mesh = runtime.block_on(async { world.mesh() })?;
    compare("plain HTTP/2", 8.0, &runtime, &bare, &MeshHttp(mesh.http()))?;
    assert_observed(&server, before)
}

/// What is counted, read of the servers' own reports and made of it, over the same requests of a mesh that does none of it.
#[test]
fn of_reporting_load_and_weighing_by_it() -> Result<(), Error> {
    let (without, with) = (World::new()?, World::new()?);
    let named_metrics = [("queue".to_owned(), 2.0), ("threads".to_owned(), 8.0)].into();
    let load = Load { cpu_utilization: 0.5, requests_per_second: 100.0, named_metrics, ..Load::default() };
    let server = without.http2_under("greeter", &load)?;
    without.send_to(&server, PLAIN)?;
    with.send_to(&server, LOAD)?;
    let runtime = client()?;
    let plain = MeshHttp(runtime.block_on(async { without.mesh() })?.http());
    let loaded = MeshHttp(runtime.block_on(async { with.mesh() })?.http());
    compare("reporting load and weighing by it, over plain HTTP/2 through the mesh", 0.05, &runtime, &plain, &loaded)?;
    let told = with.control().log().iter().any(|event| matches!(event.what, What::Load(_)));
    let asked = with.control().streams().iter().any(|stream| stream.variant.is_none());
    assert!(asked || told, "the control plane hears of the load");
    Ok(())
}
