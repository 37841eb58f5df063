//! A control plane that is away, and one that comes back.

use std::time::{Duration, Instant};

use mesh_core::resource::ROUTE_CONFIGURATION;
use mesh_examples::Failure;
use mesh_examples::load::Call;
use mesh_tower::Mesh;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::content::answers;
use crate::control::Order;
use crate::stage::{Stage, background, call};
use crate::world::{Discovered, TARGET, World};
use mesh_examples::row::{Row, lost, ms};

/// Clients that lose the control plane together.
const CLIENTS: usize = 20;
/// How often each client looks which configuration is in use.
const LOOK: Duration = Duration::from_millis(5);
/// Within so long the new one must be in use.
const SOON: Duration = Duration::from_secs(2);
/// And within so long at all.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn killed(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let away = stage.seconds(60, 3);
    let world = World::of(&stage.endpoints());
    let mesh = stage.ready(&world).await?;
    let load = background(&mesh, away + Duration::from_secs(1))?;
    stage.order(&Order::Vanish).await?;
    let tally = load.await?;
    Ok(vec![Row::lossless(format!("control plane killed for {} s", away.as_secs()), &tally)])
}

/// A route to a cluster that the control plane has not told of when it dies.
pub(crate) async fn halfway(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let endpoints = stage.endpoints();
    let away = stage.seconds(10, 3);
    let mesh = stage.ready(&World::of(&endpoints[..1])).await?;
    let load = background(&mesh, away + Duration::from_secs(3))?;
    let half = World::of(&endpoints[..1]).to("green");
    stage.order(&Order::Serve(half.clone(), Some(ROUTE_CONFIGURATION.to_owned()))).await?;
    stage.order(&Order::Vanish).await?;
    sleep(away).await;
    stage.serve(&half.with("green", Discovered::At(vec![endpoints[1]]))).await?;
    stage.order(&Order::ComeBack).await?;
    let taken = answers(&mesh, "/", "1").await?;
    let tally = load.await?;
    let measured =
        format!("{}; in use in the end: {}", lost(&tally), if taken { "the new route" } else { "the old one" });
    let what = "control plane killed between a route and its cluster";
    Ok(vec![Row::new(what, measured, "0 lost", tally.lost == 0 && taken)])
}

/// New configuration after an outage, told by who answers.
pub(crate) async fn back(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let endpoints = stage.endpoints();
    let (one, other) = (World::of(&endpoints[..1]), World::of(&endpoints[1..2]));
    let mesh = stage.ready(&one).await?;
    let mut others = Vec::new();
    for number in 0..CLIENTS {
        let mesh = stage.mesh(&format!("client-{number}"))?.build()?;
        mesh.ready(TARGET).await?;
        others.push(mesh);
    }
    let mut waits = Vec::new();
    let mut tally = mesh_examples::load::Tally::default();
    let away = stage.seconds(5, 2);
    let rounds = if stage.quick { 1 } else { 5 };
    for round in 0..rounds {
        let world = if round % 2 == 0 { &other } else { &one };
        let load = background(&mesh, away + Duration::from_secs(4))?;
        stage.order(&Order::Vanish).await?;
        stage.serve(world).await?;
        sleep(away).await;
        let began = Instant::now();
        stage.order(&Order::ComeBack).await?;
        waits.extend(in_use(&others, if round % 2 == 0 { "1" } else { "0" }, began).await?);
        tally.merge(&load.await?);
    }
    waits.sort_unstable();
    let p95 = waits[(waits.len() * 95).div_ceil(100) - 1];
    let measured = format!(
        "{} at p95, {} at most, of {} times; {}",
        ms(micros(p95)),
        ms(micros(waits[waits.len() - 1])),
        waits.len(),
        lost(&tally)
    );
    let holds = tally.lost == 0 && stage.timed(p95 <= SOON);
    let what = format!("control plane back after {} s: new configuration in use", away.as_secs());
    Ok(vec![Row::new(what, measured, "2 s at p95, 0 lost", holds)])
}

/// How long after `began` each client's requests are answered by `backend`.
async fn in_use(meshes: &[Mesh], backend: &'static str, began: Instant) -> Result<Vec<Duration>, Failure> {
    let mut looking = JoinSet::new();
    for mesh in meshes {
        let call: Call = call(mesh)?;
        looking.spawn(timeout(PATIENCE, async move {
            while call.once(Instant::now()).await.backend.as_deref() != Some(backend) {
                sleep(LOOK).await;
            }
            began.elapsed()
        }));
    }
    let mut waits = Vec::new();
    while let Some(found) = looking.join_next().await {
        waits.push(found?.map_err(|_| format!("a client had no new configuration after {PATIENCE:?}"))?);
    }
    Ok(waits)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
