//! The mesh in a minute: `cargo run --release --bin quickstart`.
//!
//! It starts a control plane on a copy of `examples/mesh.yaml`, two versions of a server as processes, and clients under
//! steady load, HTTP and gRPC, all over mTLS. While they run it tries what the servers' policy denies, shifts traffic by editing
//! the file, rotates the certificates, kills a server and brings it back, and stops the control plane and starts it again. It
//! exits with 1 if a request was lost, a version's share is not what the file says, or a call was not denied for the reason
//! that the file gives. It needs no argument, no network and no privilege.

mod crowd;
mod table;
mod town;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{Request, StatusCode};
use http_body_util::Full;
use mesh_core::error::Code;
use mesh_examples::backend::{self, Options};
use mesh_examples::load::{Call, Outcome};
use mesh_examples::{Failure, log_to_stderr};
use mesh_tower::Mesh;
use mesh_tower::outbound::HttpClient;
use mesh_tower::reply::ERROR_HEADER;

use crowd::Crowd;
use table::{Table, share};
use town::{Audited, Server, Town, patient};

/// Whom clients call.
const TARGET: &str = "http://greeter:8080/hello";
/// The rule of `authorization.yaml` that denies.
const RULE: &str = "nobody-deletes";
/// The servers, each with the place of its port in the file.
const SERVERS: [(&str, &str); 4] =
    [("v1-a", "port: 9101"), ("v1-b", "port: 9102"), ("v2-a", "port: 9201"), ("v2-b", "port: 9202")];
/// Clients of each protocol. One request each is in flight: 20 in all.
const CLIENTS: usize = 10;
/// How long a server takes to answer.
const WORK: Duration = Duration::from_millis(15);
/// After that a request is lost.
const TIMEOUT: Duration = Duration::from_secs(10);
/// From a configuration that was taken to requests that are all under it.
const SETTLE: Duration = Duration::from_millis(300);
/// How far a share may be from what was asked for, in standard deviations: chance alone exceeds it once in 100,000 runs.
const DEVIATIONS: f64 = 4.5;

/// The mesh in a minute, on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// One server. The quickstart starts itself as that.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        name: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr("error");
    let done = match Arguments::parse().role {
        Some(Role::Serve { listen, name }) => serve(listen, name).await,
        None => show().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: SocketAddr, name: String) -> Result<(), Failure> {
    let mesh = Mesh::from_env()?;
    Ok(backend::run(&mesh, Options { listen, name, grpc: true, busy: None, delay: WORK, is_child: true }).await?)
}

async fn show() -> Result<(), Failure> {
    let mut town = Town::found().await?;
    let mut servers = Vec::new();
    for (name, placeholder) in SERVERS {
        servers.push(town.build(name, placeholder).await?);
    }
    town.write([100, 0])?;
    for server in &mut servers {
        server.serving().await?;
    }
    let mesh = Mesh::builder().bootstrap(town.client()?).build()?;
    let http = Call::http(&mesh, TARGET, TIMEOUT)?;
    let grpc = Call::grpc(&mesh, "xds:///greeter:8080", "grpc.health.v1.Health/Check", TIMEOUT)?;
    mesh.ready("xds:///greeter:8080").await?;
    town.routes_taken().await?;

    let crowd = Crowd::gather(&[http.clone(), grpc], CLIENTS);
    let client = mesh.http();
    let mut show = Show { town, crowd, table: Table::new(), client, http, servers, denied: 0, wrong: Vec::new() };
    let played = show.play().await;
    show.crowd.go_home().await;
    mesh.shutdown(Duration::from_secs(1)).await;
    let verdict = show.end();
    played.and(verdict)
}

/// The show: what there is, and what went wrong so far.
struct Show {
    town: Town,
    crowd: Crowd,
    table: Table,
    client: HttpClient,
    http: Call,
    servers: Vec<Server>,
    denied: u64,
    wrong: Vec<String>,
}

impl Show {
    async fn play(&mut self) -> Result<(), Failure> {
        let before = self.certificate_seen_by("v1").await?;
        self.watch("all traffic to v1", [100, 0], 3).await;
        self.try_what_is_denied().await?;
        for weights in [[90, 10], [50, 50]] {
            self.shift(weights).await?;
            self.watch(&format!("the file says {}/{}", weights[0], weights[1]), weights, 4).await;
        }
        self.town.rotate()?;
        self.watch("new certificates for everyone", [50, 50], 3).await;
        self.servers[3].kill().await?;
        self.watch("v2-b is killed (SIGKILL)", [50, 50], 3).await;
        self.servers[3].restart().await?;
        // Both made their handshake again, and so with what they have now.
        let after = self.certificate_seen_by("v2-b").await?;
        if before == after {
            self.wrong.push("the certificate of the client is still the first one".to_owned());
        }
        self.watch("v2-b is back, rotated", [50, 50], 3).await;
        self.town.close().await;
        self.town.write([0, 100])?;
        self.watch("the control plane is gone", [50, 50], 3).await;
        self.town.reopen().await?;
        self.town.routes_taken().await?;
        tokio::time::sleep(SETTLE).await;
        self.watch("it is back, and says 0/100", [0, 100], 3).await;
        Ok(())
    }

    /// One call that the servers' policy denies. Its client is told a code, and the server's audit log has the rule.
    async fn try_what_is_denied(&mut self) -> Result<(), Failure> {
        let response = self.client.send(Request::delete(TARGET).body(Full::<Bytes>::default())?).await?;
        let (status, endpoint) = (response.status(), response.body().endpoint_address());
        let code =
            response.headers().get(ERROR_HEADER).and_then(|code| code.to_str().ok()).unwrap_or("no code").to_owned();
        let server = self.servers.iter_mut().find(|server| Some(server.address) == endpoint);
        let server = server.ok_or_else(|| format!("DELETE was answered with {status} by {endpoint:?}"))?;
        if (status, code.as_str()) != (StatusCode::FORBIDDEN, &Code::ACCESS_DENIED.to_string()) {
            self.wrong.push(format!("DELETE was answered with {status} and {code}"));
            return Ok(());
        }
        let Audited { principal, rule } = server.audited().await?;
        if rule != RULE {
            self.wrong.push(format!("DELETE was denied by the rule `{rule}`"));
        }
        self.denied += 1;
        self.table.line(&format!("DELETE is denied: {status}, {code}"));
        self.table.line(&format!("  {} denies it to {principal} by the rule `{rule}`", server.name));
        Ok(())
    }

    /// Edits the file, and waits until the client has taken it. What is sent until then counts, but for no share.
    async fn shift(&mut self, weights: [u32; 2]) -> Result<(), Failure> {
        self.crowd.count();
        self.town.write(weights)?;
        self.town.routes_taken().await?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Lets `seconds` go by, and compares the shares with the file's.
    async fn watch(&mut self, step: &str, weights: [u32; 2], seconds: u64) {
        let number = self.crowd.count();
        for _ in 0..seconds * 4 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.table.progress(step, &self.crowd.counted(number..=number));
        }
        let tally = self.crowd.counted(number..=number);
        self.table.row(step, &tally);
        let (expected, seen) = (f64::from(weights[1]) / 100.0, share(&tally, "v2"));
        // Counts of a minute are exact.
        #[allow(clippy::cast_precision_loss)]
        let deviation = (expected * (1.0 - expected) / tally.ok.max(1) as f64).sqrt();
        if tally.ok == 0 || (seen - expected).abs() > DEVIATIONS * deviation {
            let count = tally.ok;
            self.wrong.push(format!("{step}: v2 answered {seen:.4} of {count} requests, and must {expected:.4}"));
        }
    }

    /// Which certificate of the client a server of this name sees, as soon as one answers.
    async fn certificate_seen_by(&self, name: &str) -> Result<u64, Failure> {
        let seen = async {
            loop {
                let Outcome { backend, seen_certificate, .. } = self.http.once(std::time::Instant::now()).await;
                if backend.is_some_and(|backend| backend.starts_with(name)) {
                    return Ok(seen_certificate.ok_or("a server saw no certificate")?);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        patient(&format!("{name} answers"), seen).await
    }

    /// The summary.
    fn end(mut self) -> Result<(), Failure> {
        let total = self.crowd.total();
        if total.lost > 0 {
            self.wrong.push(format!("requests were lost: {:?}", total.errors));
        }
        self.table.line(&format!("sent {}, lost {}; denied, as it must be: {}", total.sent, total.lost, self.denied));
        if self.wrong.is_empty() { Ok(()) } else { Err(self.wrong.join("; ").into()) }
    }
}
