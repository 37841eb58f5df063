//! Streams: an engine that is told anything in any order, by a server, its fallback, and the server of another authority.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource, ResourceError, ResourceName,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use mesh_core::ads::{Action, Authorities, Engine, ResourceTypes, ServerId, Settings};
use mesh_core::bootstrap::{Bootstrap, Node};
use mesh_core::decode::DecodeResource;
use mesh_core::resource::{ResourceEvent, ResourceKey, TYPE_URL_PREFIX};
use prost::Message;
use serde_json::json;

use super::resource::{TYPES, decoder, spoiled_bytes};
use crate::input;

/// No queue is longer than what one step can cause.
const MOST: usize = 10_000;
/// No request is longer, however long the inputs: a server has a limit for messages, too.
const LONGEST_REQUEST: usize = 1 << 20;

pub(crate) fn sotw(data: &[u8]) {
    run(false, data);
}

pub(crate) fn delta(data: &[u8]) {
    run(true, data);
}

/// Tells the story; how many values a reader was given in it.
pub(crate) fn run(delta: bool, data: &[u8]) -> usize {
    let mut u = Unstructured::new(data);
    // Where the bytes end, the story ends.
    let Ok(mut story) = Story::new(delta, &mut u) else { return 0 };
    story.settle();
    while !u.is_empty() && story.step(&mut u).is_ok() {
        story.settle();
    }
    story.values
}

struct Story {
    engine: Engine,
    delta: bool,
    now: Instant,
    /// What a reader believes it may use.
    believed: BTreeSet<ResourceKey>,
    /// The streams that were asked for and do not stand yet.
    asked: Vec<ServerId>,
    /// Those that do.
    open: Vec<ServerId>,
    /// How many values it was given.
    values: usize,
}

impl Story {
    fn new(delta: bool, u: &mut Unstructured<'_>) -> Result<Self> {
        let authorities = Authorities::from(&bootstrap(delta, u)?);
        let decoder: Arc<dyn DecodeResource> = Arc::new(decoder());
        let types = ResourceTypes::standard(&decoder);
        let mut engine = Engine::new(authorities, &Node::default(), types, Settings::default(), u.arbitrary()?);
        let now = Instant::now();
        for type_url in TYPES {
            engine.subscribe(&ResourceKey::new(type_url, "sample"), now);
        }
        Ok(Self { engine, delta, now, believed: BTreeSet::new(), asked: Vec::new(), open: Vec::new(), values: 0 })
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        // Mostly what makes something happen: a stream that was asked for stands, and answers.
        if !self.asked.is_empty() && u.ratio(1, 2)? {
            let server = self.asked.remove(u.choose_index(self.asked.len())?);
            self.engine.handle_connected(server, self.now);
            self.open.push(server);
            return Ok(());
        }
        let server = match &self.open[..] {
            [] => ServerId(u.int_in_range(0..=3)?),
            open if u.ratio(7, 8)? => *u.choose(open)?,
            _ => ServerId(u.int_in_range(0..=3)?),
        };
        let type_url = *u.choose(&TYPES)?;
        match u.int_in_range(0..=15)? {
            0..=2 => self.engine.subscribe(&ResourceKey::new(type_url, name(u)?), self.now),
            3 => {
                let key = ResourceKey::new(type_url, name(u)?);
                self.engine.unsubscribe(&key, self.now);
                self.believed.remove(&key);
            }
            4 => self.engine.handle_connected(server, self.now),
            5 => {
                self.engine.handle_lost(server, &input::text(u)?, self.now);
                self.open.retain(|open| *open != server);
            }
            6 => self.engine.handle_written(server, self.now),
            7 => self.wait(Duration::from_millis(u.arbitrary::<u16>()?.into())),
            8 => {
                let length = u.int_in_range(0..=64.min(u.len()))?;
                self.engine.handle_message(server, u.bytes(length)?, self.now);
            }
            _ => {
                let mut bytes = if self.delta { delta_response(type_url, u)? } else { response(type_url, u)? };
                if u.ratio(1, 10)? {
                    input::spoil_bytes(&mut bytes, u)?;
                }
                self.engine.handle_message(server, &bytes, self.now);
            }
        }
        Ok(())
    }

    /// Lets time pass; whatever is due is over when it was done.
    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        for turn in 0.. {
            assert!(turn < MOST, "something is due again and again");
            let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Takes what follows, as the driver does, and checks that it holds together.
    fn settle(&mut self) {
        let told: Vec<ResourceEvent> = bounded(|| self.engine.poll_resource());
        for event in told {
            let key = event.key().clone();
            match event {
                ResourceEvent::Changed { .. } => {
                    self.values += 1;
                    self.believed.insert(key);
                }
                ResourceEvent::Unusable { .. } => {
                    self.believed.remove(&key);
                }
                ResourceEvent::Ambient { .. } => assert!(self.believed.contains(&key), "trouble beside nothing: {key}"),
            }
        }
        bounded(|| self.engine.poll_event());
        for action in bounded(|| self.engine.poll_action()) {
            match action {
                Action::Open(server) => self.asked.push(server),
                Action::Close(server) => {
                    self.asked.retain(|asked| *asked != server);
                    self.open.retain(|open| *open != server);
                }
                _ => {}
            }
        }
        for server in (0..4).map(ServerId) {
            if let Some(request) = self.engine.poll_request(server) {
                assert!(request.len() <= LONGEST_REQUEST, "a request of {} bytes", request.len());
            }
        }
        let used = self.engine.resources().filter(|status| status.bytes.is_some()).map(|status| status.key);
        assert_eq!(used.collect::<BTreeSet<_>>(), self.believed, "what a reader believes is what is held");
    }
}

/// A server `a`, its fallback `b`, and `c` for one authority of `xdstp:` names; all with the same features.
fn bootstrap(delta: bool, u: &mut Unstructured<'_>) -> Result<Bootstrap> {
    let optional = ["ignore_resource_deletion", "fail_on_data_errors", "resource_timer_is_transient_error"];
    let mut features = if delta { vec!["delta_grpc"] } else { Vec::new() };
    for feature in optional {
        if u.arbitrary()? {
            features.push(feature);
        }
    }
    let server =
        |uri: &str| json!({"server_uri": uri, "channel_creds": [{"type": "insecure"}], "server_features": features});
    let authority = json!({"xds_servers": [server("c")], "fallback_on_reachability_only": u.arbitrary::<bool>()?});
    let json = json!({"xds_servers": [server("a"), server("b")], "authorities": {"a": authority}});
    Ok(Bootstrap::from_json(&json.to_string()).expect("it is a good one"))
}

/// Everything a queue has.
fn bounded<T>(next: impl FnMut() -> Option<T>) -> Vec<T> {
    let all: Vec<T> = std::iter::from_fn(next).take(MOST).collect();
    assert!(all.len() < MOST, "a queue without end");
    all
}

/// Few names, so that answers meet questions: those of the samples, and some that nobody has.
fn name(u: &mut Unstructured<'_>) -> Result<String> {
    const NAMES: &[&str] = &["sample", "sample-2", "other", "xdstp://a/envoy.config.cluster.v3.Cluster/x", "*", ""];
    Ok((*u.choose(NAMES)?).to_owned())
}

fn version(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(u.int_in_range(0..=3_u8)?.to_string())
}

fn url(type_url: &str) -> String {
    format!("{TYPE_URL_PREFIX}{type_url}")
}

/// A resource as it stands in a response: mostly of the right type.
fn resource(type_url: &str, u: &mut Unstructured<'_>) -> Result<Any> {
    let type_url = if u.ratio(1, 20)? { *u.choose(&TYPES)? } else { type_url };
    Ok(Any { type_url: url(type_url), value: spoiled_bytes(type_url, u)? })
}

fn error(u: &mut Unstructured<'_>) -> Result<ResourceError> {
    let resource_name = Some(ResourceName { name: name(u)?, dynamic_parameter_constraints: None });
    let error_detail = Some(Status { code: u.int_in_range(0..=17)?, message: input::text(u)?, details: Vec::new() });
    Ok(ResourceError { resource_name, error_detail })
}

fn list<T>(u: &mut Unstructured<'_>, one: impl Fn(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
    (0..u.int_in_range(0..=3)?).map(|_| one(u)).collect()
}

fn response(type_url: &str, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let wrapped = |u: &mut Unstructured<'_>| {
        let inner = resource(type_url, u)?;
        if u.ratio(4, 5)? {
            return Ok(inner);
        }
        let wrapper = Resource { name: name(u)?, resource: u.ratio(9, 10)?.then_some(inner), ..Resource::default() };
        Ok(Any { type_url: url("envoy.service.discovery.v3.Resource"), value: wrapper.encode_to_vec() })
    };
    let response = DiscoveryResponse {
        version_info: version(u)?,
        type_url: url(type_url),
        nonce: version(u)?,
        resources: list(u, wrapped)?,
        resource_errors: list(u, error)?,
        ..DiscoveryResponse::default()
    };
    Ok(response.encode_to_vec())
}

fn delta_response(type_url: &str, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let one = |u: &mut Unstructured<'_>| {
        let ttl = if u.ratio(1, 5)? {
            let seconds = input::number(u)?.cast_signed();
            Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos: u.arbitrary()? })
        } else {
            None
        };
        Ok(Resource {
            name: name(u)?,
            version: version(u)?,
            resource: if u.ratio(9, 10)? { Some(resource(type_url, u)?) } else { None },
            ttl,
            ..Resource::default()
        })
    };
    let response = DeltaDiscoveryResponse {
        system_version_info: version(u)?,
        type_url: url(type_url),
        nonce: version(u)?,
        resources: list(u, one)?,
        removed_resources: list(u, name)?,
        resource_errors: list(u, error)?,
        ..DeltaDiscoveryResponse::default()
    };
    Ok(response.encode_to_vec())
}
