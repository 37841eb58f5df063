//! A control plane and backends in processes of their own, and the client that is measured.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::bootstrap::Bootstrap;
use mesh_examples::Failure;
use mesh_examples::load::{self, Call, Pace, Tally};
use mesh_tower::{Mesh, MeshBuilder};
use serde_json::json;
use tokio::task::JoinHandle;

use mesh_examples::part::Part;

use crate::control::{Answer, Order};
use crate::world::{TARGET, World};

/// Requests in a second.
const RPS: u32 = 1000;
/// Requests at a time, at most.
const IN_FLIGHT: usize = 1000;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything around the client.
pub(crate) struct Stage {
    pub(crate) quick: bool,
    control: Part,
    address: SocketAddr,
    _backends: Part,
    pub(crate) ports: Vec<u16>,
    /// Whether its clients ask incrementally.
    pub(crate) incremental: bool,
}

impl Stage {
    /// Starts the processes.
    pub(crate) async fn set(quick: bool) -> Result<Self, Failure> {
        let mut backends = Part::start(&["backends"]).await?;
        let ports = serde_json::from_str(&backends.line().await?)?;
        let mut control = Part::start(&["control"]).await?;
        let Answer::Listening(address) = serde_json::from_str(&control.line().await?)? else {
            return Err("the control plane does not say where it listens".into());
        };
        Ok(Self { quick, control, address, _backends: backends, ports, incremental: false })
    }

    /// The backends.
    pub(crate) fn endpoints(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    /// So long in full, and so long when it is to be quick.
    pub(crate) fn seconds(&self, full: u64, quick: u64) -> Duration {
        Duration::from_secs(if self.quick { quick } else { full })
    }

    /// Whether a time is within its bound. It is not asked when it is to be quick: other programs run then.
    pub(crate) fn timed(&self, holds: bool) -> bool {
        self.quick || holds
    }

    /// A client of the control plane.
    pub(crate) fn mesh(&self, node: &str) -> Result<MeshBuilder, Failure> {
        let features: &[&str] = if self.incremental { &["delta_grpc"] } else { &[] };
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": self.address.to_string(),
                "channel_creds": [{"type": "insecure"}],
                "server_features": features,
            }],
            "node": {"id": node},
        });
        Ok(Mesh::builder().bootstrap(Bootstrap::from_json(&bootstrap.to_string())?))
    }

    /// A client of a control plane that serves `world`, ready.
    pub(crate) async fn ready(&mut self, world: &World) -> Result<Mesh, Failure> {
        self.order(&Order::Serve(world.clone(), None)).await?;
        let mesh = self.mesh("client")?.build()?;
        mesh.ready(TARGET).await?;
        // Connections stand and allocators are warm before anything is measured.
        self.load(&mesh, Duration::from_secs(1)).await?;
        Ok(mesh)
    }

    /// Has the control plane do something.
    pub(crate) async fn order(&mut self, order: &Order) -> Result<Answer, Failure> {
        self.control.say(&serde_json::to_string(order)?).await?;
        match serde_json::from_str(&self.control.line().await?)? {
            Answer::Failed(why) => Err(format!("the control plane failed: {why}").into()),
            answer => Ok(answer),
        }
    }

    /// Has it serve `world`.
    pub(crate) async fn serve(&mut self, world: &World) -> Result<(), Failure> {
        self.order(&Order::Serve(world.clone(), None)).await.map(drop)
    }

    /// The load, for so long.
    pub(crate) async fn load(&self, mesh: &Mesh, duration: Duration) -> Result<Tally, Failure> {
        Ok(load::run(call(mesh)?, pace(duration)).await)
    }
}

/// The load in the background, for so long.
pub(crate) fn background(mesh: &Mesh, duration: Duration) -> Result<JoinHandle<Tally>, Failure> {
    Ok(tokio::spawn(load::run(call(mesh)?, pace(duration))))
}

/// One kind of request for everything.
pub(crate) fn call(mesh: &Mesh) -> Result<Call, Failure> {
    Ok(Call::http(mesh, TARGET, PATIENCE)?)
}

fn pace(duration: Duration) -> Pace {
    Pace { rps: RPS, duration, in_flight: IN_FLIGHT }
}
