//! How long a route change takes: from the control plane's write to the first response of a request under it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use mesh_grpc::HttpClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval_at};

use crate::Error;
use crate::config::{self, AUTHORITY, Policies};
use crate::world::World;

/// Clients that call in turn: together once a millisecond, which is what timers tell apart. More load would measure how the
/// machine's cores are shared out.
const CLIENTS: u32 = 16;
/// From one call of a client to its next.
const PERIOD: Duration = Duration::from_millis(16);
/// From one change to the next.
const REST: Duration = Duration::from_millis(20);
/// A change that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

const NAMES: [&str; 2] = ["blue", "green"];

/// Who answered, and when.
type Answers = mpsc::UnboundedReceiver<(Bytes, Instant)>;

/// Sends all requests of a client under load from one server to the other and back, `changes` times, and says how long each
/// change took. Call it in the client's runtime.
///
/// # Errors
///
/// A request failed, or a change did not come.
pub async fn measure(world: &World, changes: usize) -> Result<Vec<Duration>, Error> {
    let [blue, green] = NAMES;
    let policies = Policies::default();
    let servers = [world.http2(blue)?, world.http2(green)?];
    let mut kept = vec![config::listener()?];
    for (name, server) in NAMES.iter().zip(&servers) {
        kept.extend(config::cluster(name, &[server.address], policies)?);
    }
    // Both clusters are known all the time: a change of routes is what is measured.
    let to_blue = config::routes(&[(blue, 100), (green, 0)], policies)?;
    let to_green = config::routes(&[(blue, 0), (green, 100)], policies)?;
    let set = |routes: &_| world.set(kept.iter().chain([routes]).cloned());
    set(&to_blue);

    let mesh = world.mesh()?;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    let began = tokio::time::Instant::now();
    for number in 0..CLIENTS {
        let calls = interval_at(began + PERIOD / CLIENTS * number, PERIOD);
        clients.spawn(call(mesh.http(), calls, sender.clone()));
    }
    drop(sender);
    first(&mut answers, blue, &mut clients).await?;
    let mut took = Vec::with_capacity(changes);
    for (name, routes) in [(green, &to_green), (blue, &to_blue)].into_iter().cycle().take(changes) {
        tokio::time::sleep(REST).await;
        while answers.try_recv().is_ok() {}
        let written = Instant::now();
        set(routes);
        took.push(first(&mut answers, name, &mut clients).await?.saturating_duration_since(written));
    }
    Ok(took)
}

/// Calls for ever.
async fn call(
    client: HttpClient,
    mut calls: Interval,
    answers: mpsc::UnboundedSender<(Bytes, Instant)>,
) -> Result<(), Error> {
    loop {
        calls.tick().await;
        let request = Request::get(format!("http://{AUTHORITY}/")).body(Empty::<Bytes>::new())?;
        let name = client.send(request).await?.into_body().collect().await?.to_bytes();
        if answers.send((name, Instant::now())).is_err() {
            return Ok(());
        }
    }
}

/// When `name` answered first.
async fn first(answers: &mut Answers, name: &str, clients: &mut JoinSet<Result<(), Error>>) -> Result<Instant, Error> {
    let answered = async {
        while let Some((by, at)) = answers.recv().await {
            if by == name {
                return Some(at);
            }
        }
        None
    };
    tokio::select! {
        answered = tokio::time::timeout(PATIENCE, answered) => match answered {
            Ok(Some(at)) => Ok(at),
            _ => Err(format!("the change to {name} did not come").into()),
        },
        // No request may be lost, so no client ends.
        Some(ended) = clients.join_next() => match ended? {
            Err(error) => Err(error),
            Ok(()) => Err("a client ended".into()),
        },
    }
}
