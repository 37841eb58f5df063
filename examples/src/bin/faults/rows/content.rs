//! A control plane that says what it should not: what is broken, too early, or nothing at all.

use std::time::{Duration, Instant};

use mesh_core::resource::CLUSTER_LOAD_ASSIGNMENT;
use mesh_examples::Failure;
use mesh_examples::backend::BACKEND;
use mesh_tower::Mesh;
use tokio::time::{sleep, timeout};

use crate::control::{Answer, Order, Spoil};
use crate::stage::{Stage, background, call};
use crate::world::{Discovered, TARGET, World};
use mesh_examples::row::{Row, lost, ms};

/// Clusters besides the one that the load goes to.
const CLUSTERS: usize = 20;
/// The one that is spoiled.
const SPOILED: &str = "cluster-7";
/// Within so long a broken resource must be refused.
const NACK: u64 = 100_000;
/// How long each half-said configuration is left alone.
const HALF: Duration = Duration::from_secs(1);
/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One resource of many is broken, and all the others change with it.
pub(crate) async fn bad(stage: Stage) -> Result<Vec<Row>, Failure> {
    spoilt(stage, Spoil::Invalid, format!("one bad resource among {CLUSTERS}")).await
}

/// One resource of many is no message. An incremental server says its name.
pub(crate) async fn scrambled(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    stage.incremental = true;
    spoilt(stage, Spoil::Garbage, format!("garbage in the place of one resource among {CLUSTERS}, incrementally")).await
}

async fn spoilt(mut stage: Stage, how: Spoil, what: String) -> Result<Vec<Row>, Failure> {
    let endpoints = stage.endpoints();
    let clusters = |backend: usize| {
        (0..CLUSTERS).fold(World::of(&endpoints), |world, number| {
            world.with(&format!("cluster-{number}"), Discovered::At(vec![endpoints[backend]]))
        })
    };
    let mesh = stage.ready(&clusters(0)).await?;
    let load = background(&mesh, stage.seconds(5, 2))?;
    let Answer::Refused(took, text) = stage.order(&Order::Spoil(SPOILED.to_owned(), how, clusters(1))).await? else {
        return Err("the broken resource was not refused".into());
    };
    let (mut applied, mut kept) = (0, false);
    for number in 0..CLUSTERS {
        let name = format!("cluster-{number}");
        let expected = if name == SPOILED { "0" } else { "1" };
        let found = answers(&mesh, &format!("/{name}/"), expected).await?;
        applied += usize::from(found && name != SPOILED);
        kept |= found && name == SPOILED;
    }
    let tally = load.await?;
    let measured = format!(
        "{}; refused by name after {}; {applied} of {} others applied{}",
        lost(&tally),
        ms(took),
        CLUSTERS - 1,
        if kept { "" } else { "; the last good one was not kept" }
    );
    let named = text.contains(SPOILED) && text.matches("cluster-").count() == text.matches(SPOILED).count();
    let holds = tally.lost == 0 && kept && named && applied == CLUSTERS - 1 && stage.timed(took <= NACK);
    let bound = "0 lost, NACK in 100 ms, the others applied";
    Ok(vec![Row::new(what, measured, bound, holds)])
}

/// Whether requests for `path` come to be answered by `backend`. What fails before that is the old configuration's.
pub(super) async fn answers(mesh: &Mesh, path: &str, backend: &str) -> Result<bool, Failure> {
    let client = mesh.client(TARGET)?;
    let found = async {
        loop {
            let response = client.get(path).await;
            if response.is_ok_and(|response| response.headers().get(BACKEND).is_some_and(|name| name == backend)) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(timeout(PATIENCE, found).await.is_ok())
}

pub(crate) async fn garbage(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let endpoints = stage.endpoints();
    let mesh = stage.ready(&World::of(&endpoints)).await?;
    let load = background(&mesh, stage.seconds(5, 2))?;
    for _ in 0..3 {
        stage.order(&Order::Garbage).await?;
        sleep(Duration::from_millis(200)).await;
    }
    stage.serve(&World::of(&endpoints[..1])).await?;
    let taken = answers(&mesh, "/", "0").await?;
    let tally = load.await?;
    let measured = format!("{}; the next update is {}taken", lost(&tally), if taken { "" } else { "not " });
    Ok(vec![Row::new("bytes that are no message", measured, "0 lost", tally.lost == 0 && taken)])
}

/// Where Envoy lost 491 of 911.
pub(crate) async fn order(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let endpoints = stage.endpoints();
    let old = World::of(&endpoints[..1]);
    let mesh = stage.ready(&old).await?;
    let load = background(&mesh, HALF * 4)?;
    // First a route to nowhere, then its cluster without endpoints, then those.
    let half = old.to("green");
    stage.serve(&half).await?;
    sleep(HALF).await;
    stage.serve(&half.clone().with("green", Discovered::Unknown)).await?;
    sleep(HALF).await;
    stage.serve(&half.with("green", Discovered::At(vec![endpoints[1]]))).await?;
    let taken = answers(&mesh, "/", "1").await?;
    let tally = load.await?;
    let measured =
        format!("{}; in use in the end: {}", lost(&tally), if taken { "the new route" } else { "the old one" });
    Ok(vec![Row::new("route 1 s before its cluster, 2 s before its endpoints", measured, "0 lost", {
        tally.lost == 0 && taken
    })])
}

pub(crate) async fn emptied(mut stage: Stage) -> Result<Vec<Row>, Failure> {
    let endpoints = stage.endpoints();
    let grace = stage.seconds(30, 2);
    let whole = World::of(&endpoints);
    let empty = whole.clone().with("blue", Discovered::At(Vec::new()));
    let deleted = whole.clone().with("blue", Discovered::Deleted(endpoints));
    let mut rows = Vec::new();
    for (what, taken, then) in [("EDS", empty, "MESH-401"), ("CDS", deleted, "HTTP-503")] {
        stage.serve(&whole).await?;
        let mesh = stage.mesh(what)?.deletion_grace(grace).build()?;
        mesh.ready(TARGET).await?;
        stage.load(&mesh, Duration::from_secs(1)).await?;
        stage.order(&Order::Serve(taken, (what == "EDS").then(|| CLUSTER_LOAD_ASSIGNMENT.to_owned()))).await?;
        // Long enough before its end that the last request is over by then.
        let tally = stage.load(&mesh, grace.saturating_sub(Duration::from_secs(1))).await?;
        let failed = fails(&mesh).await?;
        stage.serve(&whole).await?;
        let back = answers(&mesh, "/", "0").await?;
        let measured = format!(
            "{}; then {failed}; told anew, it is {}",
            lost(&tally),
            if back { "used again" } else { "not used" }
        );
        let holds = tally.lost == 0 && tally.ok > 0 && failed == then && back;
        let bound = "0 lost for the grace, then the reason";
        rows.push(Row::new(format!("{what} emptied, with a grace of {} s", grace.as_secs()), measured, bound, holds));
    }
    Ok(rows)
}

/// How requests fail when they come to.
async fn fails(mesh: &Mesh) -> Result<String, Failure> {
    let call = call(mesh)?;
    let failed = async {
        loop {
            if let Some(error) = call.once(Instant::now()).await.error {
                return error;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(timeout(PATIENCE, failed).await.unwrap_or_else(|_| "nothing fails".to_owned()))
}
