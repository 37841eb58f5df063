//! `instructions bare|mesh CALLS`: a client that makes so many unary RPCs over mTLS, one after the other, and ends.
//!
//! Run it under an instrument that counts the instructions of one process, twice: the difference of two runs is what the
//! calls between them cost, without start and end. Servers and control plane are a child process, `instructions serve`, that
//! is not counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use mesh_benches::Error;
use mesh_benches::calls::{Grpc, repeat};
use mesh_benches::config::{AUTHORITY, Policies};
use mesh_benches::telemetry::Telemetry;
use mesh_benches::world::{World, bare_channel};
use mesh_grpc::{Bootstrap, Mesh, MeshChannel};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

const POLICIES: Policies = Policies { mtls: true, retry: false, load: false };

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve(),
        ["bare", calls] => bare(&Served::start()?, calls.parse()?),
        ["mesh", calls] => mesh(&Served::start()?, calls.parse()?),
        _ => Err("usage: instructions bare|mesh CALLS".into()),
    }
}

fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn bare(served: &Served, calls: usize) -> Result<(), Error> {
    let runtime = runtime()?;
    let channel = runtime.block_on(bare_channel(served.address, Some(&served.certificates)))?;
    runtime.block_on(repeat(&Grpc::new(channel), calls, 1))?;
    Ok(())
}

fn mesh(served: &Served, calls: usize) -> Result<(), Error> {
    let telemetry = Telemetry::install();
    let runtime = runtime()?;
    let mesh = runtime.block_on(async { Mesh::builder().bootstrap(served.bootstrap.clone()).build() })?;
    let channel = MeshChannel::new(&mesh, &format!("xds:///{AUTHORITY}"))?;
    runtime.block_on(repeat(&Grpc::new(channel), calls, 1))?;
    match telemetry.counted("mesh.client.requests")? {
        counted if counted == calls as u64 => Ok(()),
        counted => Err(format!("{counted} of {calls} calls were counted").into()),
    }
}

/// Servers and control plane, until standard input ends.
fn serve() -> Result<(), Error> {
    let world = World::new()?;
    let server = world.grpc(POLICIES)?;
    world.send_to(&server, POLICIES)?;
    let served = json!({
        "address": server.address.to_string(),
        "certificates": world.client_certificates(),
        "bootstrap": world.bootstrap().to_json(),
    });
    writeln!(std::io::stdout(), "{served}")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The child process. It ends with its standard input.
struct Served {
    address: SocketAddr,
    certificates: PathBuf,
    bootstrap: Bootstrap,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Served {
    fn start() -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("the child has no output")?).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)?;
        let text = |name: &str| said[name].as_str().ok_or_else(|| format!("the child said no {name}"));
        Ok(Self {
            address: text("address")?.parse()?,
            certificates: text("certificates")?.into(),
            bootstrap: Bootstrap::from_json(text("bootstrap")?)?,
            child,
            stdin,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has nothing left to say.
        let _ = self.child.wait();
    }
}
