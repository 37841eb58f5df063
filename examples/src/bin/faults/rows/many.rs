//! A hundred thousand endpoints in one response.

use std::time::Duration;

use mesh_core::resource::CLUSTER_LOAD_ASSIGNMENT;
use mesh_examples::Failure;
use mesh_examples::load::Tally;
use mesh_tower::Mesh;
use tokio::time::sleep;

use crate::control::{Answer, Order};
use crate::memory::Memory;
use crate::stage::{Stage, background};
use crate::world::{Discovered, World};
use mesh_examples::row::{Row, lost, ms};

const ENDPOINTS: u32 = 100_000;
/// So long they may take, in microseconds.
const APPLIED: u64 = 1_000_000;
/// So much they may hold in the end, and at most, in MiB.
const KEPT: u64 = 100;
const PEAK: u64 = 250;
/// So much may stay when they are gone, in MiB: a tenth of what they may hold. What is freed is the allocator's to keep.
const STAYS: u64 = KEPT / 10;
/// So long a request may take, in microseconds.
const STALL: u64 = 20_000;
/// How often they come and go.
const ROUNDS: usize = 4;

/// What was measured as they came and went once.
struct Round {
    /// The longest request before and after, when nothing happened, in microseconds.
    quiet: u64,
    /// The longest while they came, and while they went.
    worst: u64,
    applied: u64,
    tally: Tally,
    /// How many endpoints answered.
    used: usize,
    before: Memory,
    with: Memory,
    after: Memory,
}

/// They come and go several times. The load shares this machine with whatever else runs on it, so that of the times the
/// one counts in which the load was least disturbed when nothing happened; that is known without looking at what they did.
pub(crate) async fn many(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let few = World::of(&stage.endpoints());
    let mesh = stage.ready(&few).await?;
    let mut rounds = Vec::new();
    for _ in 0..if stage.quick { 1 } else { ROUNDS } {
        rounds.push(round(&mut stage, &mesh, &few).await?);
    }
    Ok(vec![time(&stage, &rounds)?, memory(&rounds)?])
}

async fn round(stage: &mut Stage, mesh: &Mesh, few: &World) -> Result<Round, Failure> {
    let many = few.clone().with("blue", Discovered::Many(ENDPOINTS, stage.ports.clone()));
    // The allocator and the connections may take a while to settle.
    let settle = stage.seconds(4, 2);
    // Encoded beforehand, as the control plane would be on another machine.
    stage.order(&Order::Prepare(many)).await?;
    let mut quiet = stage.load(mesh, settle).await?.quantile(1.0);
    let before = Memory::look()?;
    Memory::forget_peak()?;
    let (applied, mut tally) = change(stage, mesh, settle).await?;
    let with = Memory::look()?;
    stage.order(&Order::Prepare(few.clone())).await?;
    let (_, went) = change(stage, mesh, settle).await?;
    tally.merge(&went);
    drop(went);
    tally.sort();
    let (worst, used) = (tally.quantile(1.0), tally.endpoints.len());
    let tally = tally.counts();
    quiet = quiet.max(stage.load(mesh, settle).await?.quantile(1.0));
    Ok(Round { quiet, worst, applied, tally, used, before, with, after: Memory::look()? })
}

/// Serves what is prepared, under load.
async fn change(stage: &mut Stage, mesh: &Mesh, settle: Duration) -> Result<(u64, Tally), Failure> {
    let load = background(mesh, settle + Duration::from_secs(1))?;
    sleep(Duration::from_secs(1)).await;
    let Answer::Done(applied) = stage.order(&Order::ServePrepared(CLUSTER_LOAD_ASSIGNMENT.to_owned())).await? else {
        return Err("they were not applied".into());
    };
    Ok((applied, load.await?))
}

fn time(stage: &Stage, rounds: &[Round]) -> Result<Row, Failure> {
    let calmest = rounds.iter().min_by_key(|round| round.quiet).ok_or("there is no round")?;
    let applied = rounds.iter().map(|round| round.applied).max().unwrap_or_default();
    let mut all = Tally::default();
    rounds.iter().for_each(|round| all.merge(&round.tally));
    let each: Vec<String> = rounds.iter().map(|round| format!("{} ({})", ms(round.worst), ms(round.quiet))).collect();
    let measured = format!(
        "applied in {} at most; {}; longest request as they came and went {} (quiet: {}), the calmest of {} times ({}); \
         {} endpoints used",
        ms(applied),
        lost(&all),
        ms(calmest.worst),
        ms(calmest.quiet),
        rounds.len(),
        each.join(", "),
        calmest.used,
    );
    let holds = all.lost == 0 && stage.timed(applied <= APPLIED && calmest.worst <= STALL);
    Ok(Row::new("100,000 endpoints in one response", measured, "1 s, 0 lost, no request over 20 ms", holds))
}

fn memory(rounds: &[Round]) -> Result<Row, Failure> {
    let (Some(first), Some(last)) = (rounds.first(), rounds.last()) else { return Err("there is no round".into()) };
    let before = first.before;
    let most = |of: fn(&Round) -> u64| rounds.iter().map(of).max().unwrap_or_default();
    let kept = most(|round| round.with.now).saturating_sub(before.now);
    let peak = most(|round| round.with.peak).saturating_sub(before.now);
    let held = most(|round| round.with.held).saturating_sub(before.held);
    let stays = most(|round| round.after.held).saturating_sub(before.held);
    let stays_resident = last.after.now.saturating_sub(before.now);
    let measured = format!(
        "{kept} MiB kept, {peak} MiB at the peak, above {} MiB before; {} MiB allocated for them, {} MiB of it after \
         removal; the system's allocator keeps {} MiB resident after the first removal, {} MiB after the last",
        before.now,
        mib(held),
        mib(stays),
        first.after.now.saturating_sub(before.now),
        stays_resident,
    );
    let fits = kept <= KEPT && peak <= PEAK && stays * 10 <= held && stays_resident <= STAYS;
    let bound = "100 MiB kept, 250 MiB at the peak; after removal 10 % of what was allocated, and 10 MiB resident";
    Ok(Row::new("100,000 endpoints: memory", measured, bound, fits))
}

/// Kibibytes as mebibytes.
fn mib(kibibytes: u64) -> String {
    format!("{}.{}", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}
