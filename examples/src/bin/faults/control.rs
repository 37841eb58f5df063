//! The control plane, as a process that takes orders: one line of JSON in, one line out.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_core::resource::{CLUSTER_LOAD_ASSIGNMENT, ROUTE_CONFIGURATION};
use mesh_core::source::responder::EncodedResource;
use mesh_examples::Failure;
use mesh_grpc::control::{ControlPlane, Event};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::broadcast::{self, Receiver, error::RecvError};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::world::{Discovered, World, loopback};

/// How long a client may take to say what it thinks.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that may wait to be looked at.
const EVENTS: usize = 100_000;

/// What it is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Serve this; the answer says how long a client took to take it, if it is to be waited for: the type to be ACKed.
    Serve(World, Option<String>),
    /// Encode this, to be served when it is asked for: what it costs is over then.
    Prepare(World),
    /// Serve what is prepared; the answer says how long a client took to take it: the type to be ACKed.
    ServePrepared(String),
    /// Spoil this resource in this way and serve this besides; the answer is the NACK.
    Spoil(String, Spoil, World),
    /// Serve whole what was spoiled.
    Heal,
    /// Send what is no message.
    Garbage,
    /// Close everything.
    Vanish,
    /// Listen again.
    ComeBack,
    /// Change every route so many times a second, for so many seconds.
    Storm(World, u32, u64),
    /// Add or remove an endpoint at this port so many times a second, for so many seconds.
    Churn(World, u16, u32, u64),
}

/// What is served in a resource's place.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Spoil {
    /// One that decodes and breaks a rule.
    Invalid,
    /// Bytes that are no message.
    Garbage,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It listens there.
    Listening(SocketAddr),
    /// It is done, and took so many microseconds.
    Done(u64),
    /// The client refused it after so many microseconds, with this text.
    Refused(u64, String),
    /// So many changes were made, in responses of which so many were taken.
    Pushed(u64, u64),
    /// It cannot be done.
    Failed(String),
}

/// Takes orders until stdin ends.
pub(crate) async fn run() -> Result<(), Failure> {
    // Like most servers it is silent about what it has not: a route may name a cluster that comes later.
    let plane = ControlPlane::builder().without_resource_errors().listen("127.0.0.1:0").await?;
    let (heard, _) = broadcast::channel(EVENTS);
    let mut events = plane.events();
    let tell = heard.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let _ = tell.send((Instant::now(), event));
        }
    });
    answer(&Answer::Listening(plane.address()))?;
    let mut prepared = Vec::new();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let done = match serde_json::from_str(&order) {
            Ok(order) => obey(&plane, heard.subscribe(), &mut prepared, order).await,
            Err(error) => Err(error.into()),
        };
        answer(&done.unwrap_or_else(|error| Answer::Failed(error.to_string())))?;
    }
    Ok(())
}

fn answer(answer: &Answer) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

type Heard = Receiver<(Instant, Event)>;

async fn obey(
    plane: &ControlPlane,
    mut heard: Heard,
    prepared: &mut Vec<EncodedResource>,
    order: Order,
) -> Result<Answer, Failure> {
    let faults = plane.faults();
    match order {
        Order::Serve(world, acked) => {
            let resources = world.encode()?;
            match acked {
                Some(type_url) => return serve(plane, &mut heard, resources, &type_url).await,
                None => plane.set(resources),
            }
        }
        Order::Prepare(world) => *prepared = world.encode()?,
        Order::ServePrepared(type_url) => {
            return serve(plane, &mut heard, std::mem::take(prepared), &type_url).await;
        }
        Order::Spoil(name, how, world) => {
            let resources = world.encode()?;
            let began = Instant::now();
            match how {
                Spoil::Invalid => faults.spoil(name.clone()),
                Spoil::Garbage => faults.scramble(name.clone()),
            }
            plane.set(resources);
            let nack = |event: &Event| event.nack().filter(|text| text.contains(&name)).map(str::to_owned);
            let (at, text) = find(&mut heard, nack).await?;
            return Ok(Answer::Refused(micros(at - began), text));
        }
        Order::Storm(world, per_second, seconds) => {
            return repeat(plane, heard, ROUTE_CONFIGURATION, per_second, seconds, {
                let mut world = world;
                move || {
                    world.edition += 1;
                    world.encode()
                }
            })
            .await;
        }
        Order::Churn(world, port, per_second, seconds) => {
            let mut number = 0_u32;
            let base = world.clone();
            return repeat(plane, heard, CLUSTER_LOAD_ASSIGNMENT, per_second, seconds, move || {
                number += 1;
                let mut world = base.clone();
                // Every other change takes away what the one before added; each that comes has an address of its own.
                if number % 2 == 1
                    && let Some(Discovered::At(endpoints)) = world.clusters.get_mut(&base.to)
                {
                    endpoints.push(loopback(number / 2 % 1000, port));
                }
                world.encode()
            })
            .await;
        }
        Order::Heal => faults.heal(),
        Order::Garbage => {
            faults.garbage();
        }
        Order::Vanish => faults.vanish().await,
        Order::ComeBack => faults.come_back().await?,
    }
    Ok(Answer::Done(0))
}

/// Serves this, and waits until a client has taken it.
async fn serve(
    plane: &ControlPlane,
    heard: &mut Heard,
    resources: Vec<EncodedResource>,
    type_url: &str,
) -> Result<Answer, Failure> {
    let began = Instant::now();
    plane.set(resources);
    let (at, ()) = find(heard, |event| event.ack(type_url).map(|_| ())).await?;
    Ok(Answer::Done(micros(at - began)))
}

/// Serves something else so many times a second.
async fn repeat(
    plane: &ControlPlane,
    mut heard: Heard,
    type_url: &str,
    per_second: u32,
    seconds: u64,
    mut next: impl FnMut() -> Result<Vec<EncodedResource>, Failure>,
) -> Result<Answer, Failure> {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let changes = u64::from(per_second) * seconds;
    let mut acked = 0;
    for _ in 0..changes {
        ticks.tick().await;
        plane.set(next()?);
        while let Ok((_, event)) = heard.try_recv() {
            acked += u64::from(event.ack(type_url).is_some());
        }
    }
    Ok(Answer::Pushed(changes, acked))
}

async fn find<T>(heard: &mut Heard, mut wanted: impl FnMut(&Event) -> Option<T>) -> Result<(Instant, T), Failure> {
    let found = async {
        loop {
            match heard.recv().await {
                Ok((at, event)) => {
                    if let Some(found) = wanted(&event) {
                        return Ok((at, found));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Failure::from("the control plane is gone")),
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| Err("no client said what was waited for".into()))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
