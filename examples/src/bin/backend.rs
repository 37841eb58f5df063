//! A server of the mesh for experiments: `backend --listen ADDR --name v1 [--grpc]`.
//!
//! Takes its configuration from the environment (`GRPC_XDS_BOOTSTRAP` or `MESH_CONFIG`). Answers HTTP with its name, the path
//! and who asked; with `--grpc` also `grpc.health.v1.Health`, and any other unary method with an empty message. Prints
//! `serving on ADDR` when it serves, and ends on SIGINT and SIGTERM.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mesh_examples::backend::{self, Options, Saying};
use mesh_examples::log_to_stderr;
use mesh_tower::Mesh;

/// A server of the mesh that says who it is and who asked.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen. The mesh's configuration names the same address.
    #[arg(long)]
    listen: SocketAddr,
    /// What it calls itself.
    #[arg(long, default_value = "backend", value_parser = word)]
    name: String,
    /// Take gRPC too.
    #[arg(long)]
    grpc: bool,
    /// Serve the admin services here.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// How busy to say that it is, from 0 to 1 and beyond, with 100 requests a second.
    #[arg(long, requires = "saying")]
    load: Option<f64>,
    /// How to say it.
    #[arg(long, value_enum, requires = "load")]
    saying: Option<Saying>,
    /// How many milliseconds an answer takes.
    #[arg(long, default_value_t = 0)]
    delay: u64,
}

fn word(text: &str) -> Result<String, String> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then(|| text.to_owned()).ok_or_else(|| "must be a word of ASCII characters".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr("info");
    let Arguments { listen, name, grpc, admin, load, saying, delay } = Arguments::parse();
    let busy = load.zip(saying);
    let options = Options { listen, name, grpc, busy, delay: Duration::from_millis(delay), is_child: false };
    let served = async {
        let mesh = Mesh::builder().server_options(options.server_options()).build()?;
        mesh_examples::admin::serve(&mesh, admin).await?;
        backend::run(&mesh, options).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
