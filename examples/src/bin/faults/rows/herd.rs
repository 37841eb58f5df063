//! A thousand clients that lose one control plane together, simulated: engines on virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::ads::{Action, Engine, ResourceTypes, ServerId, Settings};
use mesh_core::bootstrap::{Node, ServerConfig};
use mesh_core::decode::{DecodeResource, Decoder, Registry};
use mesh_core::resource::{LISTENER, ResourceKey};
use mesh_core::source::responder::{ResourceSet, Responder};
use mesh_examples::Failure;

use crate::world::{self, World};
use mesh_examples::row::Row;

const CLIENTS: usize = 1000;
/// No more than so many in a hundred may come back within the window.
const SHARE: usize = 15;
const WINDOW: Duration = Duration::from_millis(100);
/// How long the server is away, in seconds: a restart, an outage in its first minute, and one beyond.
const AWAY: [u64; 3] = [0, 5, 90];
/// The one server.
const SERVER: ServerId = ServerId(0);
/// Nobody takes so long.
const LONGEST: Duration = Duration::from_secs(600);

pub(crate) fn herd() -> Result<Vec<Row>, Failure> {
    let resources = Arc::new(ResourceSet::new(World::of(&[]).encode()?));
    let mut measured = Vec::new();
    let mut holds = true;
    for away in AWAY {
        let returns: Option<Vec<Duration>> = (0..CLIENTS)
            .map(|seed| returns(&resources, Duration::from_secs(away), u64::try_from(seed).unwrap_or(0)))
            .collect();
        let mut returns = returns.ok_or("a client never came back")?;
        returns.sort_unstable();
        let most = most_within(&returns, WINDOW);
        holds &= most * 100 <= SHARE * CLIENTS;
        let percent = most as f64 * 100.0 / CLIENTS as f64;
        measured.push(format!("{percent:.1} % after {away} s away"));
    }
    let what = "1,000 clients reconnecting (simulated), the most in any 100 ms";
    Ok(vec![Row::new(what, measured.join(", "), "15 %", holds)])
}

/// The most of these that lie within one window.
fn most_within(sorted: &[Duration], window: Duration) -> usize {
    let within = |(first, from): (usize, &Duration)| sorted[first..].partition_point(|at| *at < *from + window);
    sorted.iter().enumerate().map(within).max().unwrap_or(0)
}

/// When a client, lost at time zero, is connected again to a server that is back after `away`.
fn returns(resources: &Arc<ResourceSet>, away: Duration, seed: u64) -> Option<Duration> {
    let decoder: Arc<dyn DecodeResource> = Arc::new(Decoder::new(Arc::new(Registry::standard()), []));
    let servers = vec![ServerConfig::insecure("server")];
    let types = ResourceTypes::standard(&decoder);
    let mut engine = Engine::new(servers, &Node::default(), types, Settings::default(), seed);
    let began = Instant::now();
    engine.subscribe(&ResourceKey::new(LISTENER, world::LISTENER), began);
    connect(&mut engine, resources, began);
    engine.handle_lost(SERVER, "the server ended the stream", began);
    loop {
        while engine.poll_event().is_some() || engine.poll_resource().is_some() {}
        let now = engine.poll_timeout().filter(|at| *at < began + LONGEST)?;
        engine.handle_timeout(now);
        while let Some(action) = engine.poll_action() {
            if !matches!(action, Action::Open(_)) {
                continue;
            }
            if now >= began + away {
                return Some(now - began);
            }
            engine.handle_lost(SERVER, "connection refused", now);
        }
    }
}

/// The stream stands, and what was asked is answered.
fn connect(engine: &mut Engine, resources: &Arc<ResourceSet>, now: Instant) {
    while engine.poll_action().is_some() {}
    engine.handle_connected(SERVER, now);
    let mut responder = Responder::new(resources.clone());
    while let Some(request) = engine.poll_request(SERVER) {
        engine.handle_written(SERVER, now);
        for response in responder.handle_request(&request) {
            engine.handle_message(SERVER, &response, now);
        }
    }
}
