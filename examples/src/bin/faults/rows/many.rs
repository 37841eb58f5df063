//! A hundred thousand endpoints in one response.

use std::time::Duration;

use mesh_core::resource::CLUSTER_LOAD_ASSIGNMENT;
use mesh_examples::Failure;
use tokio::time::sleep;

use crate::control::{Answer, Order};
use crate::memory::Memory;
use crate::row::{Row, lost, ms};
use crate::stage::{Stage, background};
use crate::world::{Discovered, World};

const ENDPOINTS: u32 = 100_000;
/// So long they may take, in microseconds.
const APPLIED: u64 = 1_000_000;
/// So much they may hold in the end, and at most, in MiB.
const KEPT: u64 = 100;
const PEAK: u64 = 250;
/// So long a request may take, in microseconds.
const STALL: u64 = 20_000;

pub(crate) async fn many(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let few = World::of(&stage.endpoints());
    let many = few.clone().with("blue", Discovered::Many(ENDPOINTS, stage.ports.clone()));
    let mesh = stage.ready(&few).await?;
    let quiet = stage.load(&mesh, stage.seconds(10, 3)).await?;
    let before = Memory::look()?;
    Memory::forget_peak()?;
    // The allocator and the connections may take a while to settle.
    let settle = stage.seconds(5, 2);
    let load = background(&mesh, settle * 2)?;
    sleep(Duration::from_secs(1)).await;
    let applied = stage.order(&Order::Serve(many, Some(CLUSTER_LOAD_ASSIGNMENT.to_owned()))).await?;
    let Answer::Done(applied) = applied else { return Err("they were not applied".into()) };
    let tally = load.await?;
    let with = Memory::look()?;
    stage.order(&Order::Serve(few, Some(CLUSTER_LOAD_ASSIGNMENT.to_owned()))).await?;
    let after_load = stage.load(&mesh, settle).await?;
    let after = Memory::look()?;

    let endpoints = tally.endpoints.len();
    let (kept, peak) = (with.now.saturating_sub(before.now), with.peak.saturating_sub(before.now));
    let stays = after.now.saturating_sub(before.now);
    let worst = tally.quantile(1.0);
    let lossless = tally.lost + after_load.lost == 0;
    let timing = format!(
        "applied in {}; {}; longest request {} (quiet {}); {endpoints} endpoints used",
        ms(applied),
        lost(&tally),
        ms(worst),
        ms(quiet.quantile(1.0))
    );
    let memory = format!(
        "{kept} MiB kept, {peak} MiB at the peak, above {} MiB before; {stays} MiB of it after removal",
        before.now
    );
    let holds = lossless && stage.timed(applied <= APPLIED && worst <= STALL);
    // What the allocator gives back, and when, is like a time: not asked when it is to be quick.
    let fits = kept <= KEPT && peak <= PEAK && stage.timed(stays * 10 <= before.now.max(kept));
    Ok(vec![
        Row::new("100,000 endpoints in one response", timing, "1 s, 0 lost, no request over 20 ms", holds),
        Row::new("100,000 endpoints: memory", memory, "100 MiB kept, 250 MiB at the peak, 10 % after removal", fits),
    ])
}
