//! A control plane that has much to say.

use std::time::Duration;

use mesh_examples::Failure;
use mesh_examples::load::Tally;
use tokio::time::interval;

use crate::control::{Answer, Order};
use crate::memory::Memory;
use crate::stage::{Stage, background};
use crate::world::World;
use mesh_examples::row::{Row, lost, ms};

/// Latency may be so many times that of a quiet control plane.
const SLOWER: u64 = 2;
/// So much more memory at the end than in the middle is flat, in MiB: the load's own record of latencies grows, too.
const FLAT: u64 = 4;
/// Routes in each push of the storm.
const ROUTES: u32 = 100;

pub(crate) async fn storm(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let duration = stage.seconds(60, 3);
    let world = World { routes: ROUTES, ..World::of(&stage.endpoints()) };
    let mesh = stage.ready(&world).await?;
    let quiet = stage.load(&mesh, stage.seconds(10, 2)).await?;
    let load = background(&mesh, duration)?;
    let pushed = stage.order(&Order::Storm(world, 100, duration.as_secs())).await?;
    let tally = load.await?;
    let what = format!("100 pushes/s of {ROUTES} routes for {} s", duration.as_secs());
    Ok(vec![compared(&stage, what, &quiet, &tally, &pushed, None)?])
}

pub(crate) async fn churn(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let duration = stage.seconds(60, 3);
    let world = World::of(&stage.endpoints());
    let mesh = stage.ready(&world).await?;
    let quiet = stage.load(&mesh, stage.seconds(10, 2)).await?;
    let load = background(&mesh, duration)?;
    let watched = tokio::spawn(watch(duration));
    let order = Order::Churn(world, stage.ports[0], 1000, duration.as_secs());
    let pushed = stage.order(&order).await?;
    let (tally, memory) = (load.await?, watched.await??);
    let what = format!("1,000 endpoint changes/s for {} s", duration.as_secs());
    Ok(vec![compared(&stage, what, &quiet, &tally, &pushed, Some(&memory))?])
}

/// Resident memory, each second for so long.
async fn watch(duration: Duration) -> Result<Vec<u64>, Failure> {
    let mut ticks = interval(Duration::from_secs(1));
    let mut samples = Vec::new();
    for _ in 0..=duration.as_secs() {
        ticks.tick().await;
        samples.push(Memory::look()?.now);
    }
    Ok(samples)
}

fn compared(
    stage: &Stage,
    what: String,
    quiet: &Tally,
    tally: &Tally,
    pushed: &Answer,
    memory: Option<&[u64]>,
) -> Result<Row, Failure> {
    let Answer::Pushed(changes, acked) = pushed else { return Err(format!("{pushed:?} is no count").into()) };
    let (calm, busy) = (quiet.quantile(0.99), tally.quantile(0.99));
    let mut measured =
        format!("{}; p99 {} (quiet {}); {changes} changes in {acked} responses", lost(tally), ms(busy), ms(calm));
    let mut holds = tally.lost == 0 && *acked > 0 && stage.timed(busy <= SLOWER * calm);
    let mut bound = "0 lost, p99 2x quiet at most".to_owned();
    if let Some(samples) = memory {
        // The first third is a warm-up.
        let (middle, end) = (samples[samples.len() / 3], samples[samples.len() - 1]);
        measured.push_str(&format!("; {middle} MiB after a third, {end} MiB at the end"));
        holds &= end <= middle + FLAT;
        bound.push_str(", memory flat");
    }
    Ok(Row::new(what, measured, &bound, holds))
}
