//! Sends load through the mesh and says what became of it: `probe --target URL [--grpc] --rps N --seconds S [--json]`.
//!
//! Takes its configuration from the environment (`GRPC_XDS_BOOTSTRAP` or `MESH_CONFIG`). Exits with 0 whatever is lost: its
//! output says that.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mesh_core::error::Error;
use mesh_examples::admin;
use mesh_examples::load::{self, Call, Pace, Tally};
use mesh_examples::log_to_stderr;
use mesh_tower::Mesh;
use serde_json::json;

/// Sends load through the mesh and says what became of it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Whom to call: `http://host:port/path`, or `xds:///name` as gRPC writes it.
    #[arg(long)]
    target: String,
    /// Send GET requests. The default.
    #[arg(long, conflicts_with = "grpc")]
    http: bool,
    /// Call a gRPC method.
    #[arg(long)]
    grpc: bool,
    /// Which unary method; it is called with an empty message.
    #[arg(long, default_value = "grpc.health.v1.Health/Check", requires = "grpc")]
    method: String,
    /// Requests in a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rps: u32,
    /// For how long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// So many at the same time at most.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// After so many seconds a request is lost.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// For how many seconds to stay when all is sent, so that load reports are told to the end.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600))]
    linger: u64,
    /// Serve the admin services here.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr("warn");
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(tally) => {
            let text = if arguments.json { to_json(&tally) } else { to_text(&tally) };
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<Tally, Error> {
    let mesh = Mesh::from_env()?;
    admin::serve(&mesh, arguments.admin).await?;
    let timeout = Duration::from_secs(arguments.timeout);
    let call = if arguments.grpc {
        Call::grpc(&mesh, &arguments.target, &arguments.method, timeout)?
    } else {
        Call::http(&mesh, &arguments.target, timeout)?
    };
    let duration = Duration::from_secs(arguments.seconds);
    let in_flight = usize::try_from(arguments.in_flight).unwrap_or(usize::MAX);
    let tally = load::run(call, Pace { rps: arguments.rps, duration, in_flight }).await;
    tokio::time::sleep(Duration::from_secs(arguments.linger)).await;
    mesh.shutdown(Duration::from_secs(1)).await;
    Ok(tally)
}

fn to_json(tally: &Tally) -> String {
    json!({
        "sent": tally.sent,
        "ok": tally.ok,
        "lost": tally.lost,
        "retries": tally.retries,
        "p50_us": tally.quantile(0.5),
        "p99_us": tally.quantile(0.99),
        "max_us": tally.quantile(1.0),
        "endpoints": tally.endpoints.iter().map(|(at, count)| (at.to_string(), *count)).collect::<Counts>(),
        "errors": tally.errors,
    })
    .to_string()
}

type Counts = std::collections::BTreeMap<String, u64>;

fn to_text(tally: &Tally) -> String {
    let Tally { sent, ok, lost, retries, .. } = tally;
    let [half, most, all] = [0.5, 0.99, 1.0].map(|share| tally.quantile(share));
    let mut text =
        format!("sent {sent}, ok {ok}, lost {lost}, retries {retries}; p50 {half} us, p99 {most} us, max {all} us");
    for (endpoint, count) in &tally.endpoints {
        text.push_str(&format!("\n{count:>8}  {endpoint}"));
    }
    for (error, count) in &tally.errors {
        text.push_str(&format!("\n{count:>8}  {error}"));
    }
    text
}
