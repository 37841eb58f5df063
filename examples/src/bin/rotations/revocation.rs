//! One of two clients is revoked while its connection is in use.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mesh_examples::Failure;
use mesh_examples::load::{self, Call, Pace};
use mesh_examples::row::{Row, lost};
use mesh_examples::say;
use mesh_grpc::control::{ControlPlane, DevCa, Workload};

use crate::resources::{CLIENTS, SERVER, resources};
use crate::{PATIENCE, RPS, mesh, serve};

/// How soon the revoked client must be out.
const OUT: Duration = Duration::from_secs(5);
/// How long it is watched, before and after.
const WATCHED: Duration = Duration::from_secs(2);
/// The serial number of its certificate.
const REVOKED: u64 = 4711;

/// The list of who is revoked, which goes with its owner.
struct List(PathBuf);

impl List {
    /// In one step, as an operator should.
    fn write(&self, pem: &str) -> Result<(), Failure> {
        let half = self.0.with_extension("half");
        std::fs::write(&half, pem)?;
        Ok(std::fs::rename(half, &self.0)?)
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether it holds.
pub(crate) async fn run() -> Result<bool, Failure> {
    let (control, ca) = (ControlPlane::builder().listen("127.0.0.1:0").await?, DevCa::new()?);
    let list = List(std::env::temp_dir().join(format!("mesh-rotations-{}.pem", std::process::id())));
    list.write(&ca.revocation_list(&[])?)?;
    let server = mesh(&control, "server")?;
    let bound = server.bind("127.0.0.1:0").await?;
    let mut all = resources(bound.slot().target(), bound.local_addr(), Some(&list.0))?;
    all.push(ca.secret("server", &Workload::new(SERVER.parse()?))?);
    for (name, serial) in [("revoked", REVOKED), ("good", REVOKED + 1)] {
        let workload = Workload::new(format!("{CLIENTS}-{name}").parse()?).serial(serial);
        all.push(ca.secret(name, &workload)?);
    }
    all.push(ca.root_secret("ROOTCA"));
    control.set(all);
    let served = serve(bound).await?;

    let (good, revoked) = (mesh(&control, "good")?, mesh(&control, "revoked")?);
    let good = Call::http(&good, "xds:///svc", PATIENCE)?;
    let duration = WATCHED + OUT + WATCHED;
    let load = tokio::spawn(load::run(good, Pace { rps: RPS, duration, in_flight: 64 }));
    let revoked = Call::http(&revoked, "xds:///svc", PATIENCE)?;
    let before = last_good(&revoked, WATCHED).await;
    let written = Instant::now();
    list.write(&ca.revocation_list(&[REVOKED])?)?;
    let last = last_good(&revoked, OUT + WATCHED).await;
    let good = load.await?;
    served.abort();
    let out = last.map_or(Duration::ZERO, |last| last.duration_since(written));
    let holds = before.is_some() && out <= OUT && good.lost == 0 && good.ok > 0;
    let measured = format!(
        "its last request that was answered came {:.2} s later; another client: {}",
        out.as_secs_f64(),
        lost(&good)
    );
    let row =
        Row::new("a client revoked by a list in a file, its connection in use", measured, "out in 5 s, 0 lost", holds);
    say(&row.to_string())?;
    Ok(holds)
}

/// When the last request was sent that was answered, of those that are sent for so long, one after the other.
async fn last_good(call: &Call, duration: Duration) -> Option<Instant> {
    let (began, mut last) = (Instant::now(), None);
    while began.elapsed() < duration {
        let sent = Instant::now();
        if call.once(sent).await.error.is_none() {
            last = Some(sent);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    last
}
