//! The local control plane as a process: `control-plane FILE [--listen ADDR]`.
//!
//! Serves the YAML file over ADS to any xDS client, follows edits of it, and prints what clients say. With `--certificates`
//! it issues development certificates and writes a bootstrap for each identity. Ends on SIGINT and SIGTERM.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use mesh_examples::signal;
use mesh_grpc::control::{ControlPlane, DevCa, DevCertificates, Workload};
use tokio::time::{Instant, interval_at};
use tracing_subscriber::EnvFilter;

/// A certificate is replaced when this part of its life is over, as Istio does.
const ROTATE_AFTER: u32 = 2;

/// Serves a YAML file over ADS to any xDS client, for development.
#[derive(Debug, Parser)]
struct Arguments {
    /// The YAML file: Gateway API kinds, and xDS resources with `@type`.
    file: PathBuf,
    /// Where to listen. Plaintext, and anyone may ask: keep it on loopback.
    #[arg(long, default_value = "127.0.0.1:18000")]
    listen: String,
    /// Issue development certificates to this folder: the CA's file, and for each identity a folder with its files and a
    /// `bootstrap.json`.
    #[arg(long, value_name = "DIR", requires = "identity")]
    certificates: Option<PathBuf>,
    /// Whom to issue one: NAMESPACE/SERVICE-ACCOUNT. May be given several times.
    #[arg(long, value_name = "NS/SA", requires = "certificates")]
    identity: Vec<String>,
    /// The trust domain of the identities.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
    /// How many seconds a certificate is valid; it is replaced after half of them.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(2..))]
    lifetime: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let control = ControlPlane::builder().file(&arguments.file)?.listen(&*arguments.listen).await?;
    let mut ended = std::pin::pin!(signal::ended()?);
    let certificates = issue(&arguments, &control)?;
    // A program that starts this one reads the address, which it may have left to the system.
    writeln!(std::io::stdout(), "listening on {}", control.address())?;
    let period = Duration::from_secs(arguments.lifetime) / ROTATE_AFTER;
    let mut rotation = interval_at(Instant::now() + period, period);

    loop {
        tokio::select! {
            () = &mut ended => break,
            _ = rotation.tick() => rotate(&certificates),
        }
    }
    control.shutdown().await;
    Ok(())
}

/// Issues a certificate and writes a bootstrap for each identity, to `DIR/NAMESPACE/SERVICE-ACCOUNT`.
fn issue(arguments: &Arguments, control: &ControlPlane) -> Result<Vec<DevCertificates>, Box<dyn std::error::Error>> {
    let Some(folder) = &arguments.certificates else { return Ok(Vec::new()) };
    // Bootstraps are read by processes that run elsewhere.
    let folder = std::path::absolute(folder)?;
    let ca = Arc::new(DevCa::load_or_create(&folder)?);
    arguments.identity.iter().map(|identity| issue_one(arguments, control, &ca, &folder, identity)).collect()
}

fn issue_one(
    arguments: &Arguments,
    control: &ControlPlane,
    ca: &Arc<DevCa>,
    folder: &Path,
    identity: &str,
) -> Result<DevCertificates, Box<dyn std::error::Error>> {
    let (namespace, account) =
        identity.split_once('/').ok_or_else(|| format!("--identity {identity} must be NAMESPACE/SERVICE-ACCOUNT"))?;
    let workload = Workload::service_account(&arguments.trust_domain, namespace, account)?
        .dns_name("localhost")
        .lifetime(Duration::from_secs(arguments.lifetime));
    let issued = DevCertificates::write(ca.clone(), workload, folder.join(namespace).join(account))?;
    let bootstrap = control.bootstrap(format!("{namespace}~{account}")).certificates(issued.folder());
    let path = issued.folder().join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_json()).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    writeln!(std::io::stdout(), "GRPC_XDS_BOOTSTRAP={}", path.display())?;
    Ok(issued)
}

/// The certificates in use stay in use if it fails, and the next period tries again.
fn rotate(certificates: &[DevCertificates]) {
    for failed in certificates.iter().filter_map(|certificates| certificates.rotate().err()) {
        tracing::warn!("{failed}");
    }
}
