//! Dialogues between the engine and scripted servers, on virtual time. The names carry the gRFC they come from.

mod driver;
mod fallback;
mod federation;
mod grace;
mod incremental;
mod last_good;
mod protocol;
mod robustness;
mod status;
mod timers;
mod watchers;
mod wildcard;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource, ResourceError,
    ResourceName,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use prost::Message;

use super::*;
use crate::bootstrap::{Node, ServerConfig, ServerFeatures};
use crate::decode::{DecodeResource, Decoded, Fault};
use crate::event::Event;
use crate::resource::{
    CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceEvent, ResourceKey, ResourceValue,
    TYPE_URL_PREFIX,
};
use crate::status::State;

/// Resources of these tests are text, `name:content`. The content `bad` is refused, content that starts with `empty` is a set
/// with nothing in it, and text without a colon has no name.
pub(crate) struct TextDecoder;

impl DecodeResource for TextDecoder {
    fn decode(&self, _type_url: &str, bytes: &[u8]) -> Decoded {
        let text = String::from_utf8_lossy(bytes);
        match text.split_once(':') {
            None => Decoded::Err { name: None, faults: vec![Fault::new("", "cannot be decoded")] },
            Some((name, "bad")) => {
                Decoded::Err { name: Some(name.into()), faults: vec![Fault::new("field", "must not be bad")] }
            }
            Some((name, content)) => Decoded::Ok { name: name.into(), value: Arc::new(content.to_owned()) },
        }
    }

    fn is_emptied(&self, value: &ResourceValue) -> bool {
        value.downcast_ref::<String>().is_some_and(|text| text.starts_with("empty"))
    }
}

pub(super) const A: ServerId = ServerId(0);
pub(super) const B: ServerId = ServerId(1);

/// An engine and the one who talks to it.
pub(super) struct Dialogue {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    /// Whether requests count as written as soon as they are given.
    pub(super) writes: bool,
    actions: VecDeque<Action>,
}

pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Dialogue {
    pub(super) fn with(authorities: impl Into<Authorities>, settings: Settings) -> Self {
        let decoder: Arc<dyn DecodeResource> = Arc::new(TextDecoder);
        Self::with_types(authorities, settings, ResourceTypes::standard(&decoder))
    }

    pub(super) fn with_types(authorities: impl Into<Authorities>, settings: Settings, types: ResourceTypes) -> Self {
        let node = Node { id: "node-1".to_owned(), ..Node::default() };
        let engine = Engine::new(authorities, &node, types, settings, 1);
        Self { engine, now: Instant::now(), writes: true, actions: VecDeque::new() }
    }

    /// One server, `a`, with no features.
    pub(super) fn new() -> Self {
        Self::with(vec![ServerConfig::insecure("a")], Settings::default())
    }

    pub(super) fn with_features(features: ServerFeatures) -> Self {
        Self::with(vec![ServerConfig::insecure("a").with_features(features)], Settings::default())
    }

    /// With a stream that is open and `names` of `type_url` asked for.
    pub(super) fn asking(mut self, type_url: &str, names: &[&str]) -> Self {
        for name in names {
            self.subscribe(type_url, name);
        }
        self.connect(A);
        self.requests(A);
        self
    }

    pub(super) fn subscribe(&mut self, type_url: &str, name: &str) {
        self.engine.subscribe(&ResourceKey::new(type_url, name), self.now);
    }

    pub(super) fn unsubscribe(&mut self, type_url: &str, name: &str) {
        self.engine.unsubscribe(&ResourceKey::new(type_url, name), self.now);
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        let taken: Vec<Action> = std::iter::from_fn(|| self.engine.poll_action()).collect();
        self.actions.extend(&taken);
        taken
    }

    /// Opens the stream, which the engine must have asked for.
    #[track_caller]
    pub(super) fn connect(&mut self, server: ServerId) {
        self.actions();
        assert!(self.is_asked(server), "no stream to {server:?} was asked for");
        self.actions.clear();
        self.engine.handle_connected(server, self.now);
    }

    /// Waits until a stream is asked for again, and opens it.
    pub(super) fn reconnect(&mut self, server: ServerId) {
        self.actions();
        while !self.is_asked(server) {
            self.wait(0.1);
            self.actions();
        }
        self.connect(server);
    }

    /// Waits until a stream is asked for again, which fails.
    pub(super) fn reconnect_fails(&mut self, server: ServerId) {
        self.actions();
        while !self.is_asked(server) {
            self.wait(0.1);
            self.actions();
        }
        self.actions.clear();
        self.lose(server);
    }

    fn is_asked(&self, server: ServerId) -> bool {
        let last =
            self.actions.iter().rfind(|action| matches!(action, Action::Open(id) | Action::Close(id) if *id == server));
        last == Some(&Action::Open(server))
    }

    pub(super) fn lose(&mut self, server: ServerId) {
        self.actions();
        self.actions.retain(|action| *action != Action::Open(server));
        self.engine.handle_lost(server, "connection refused", self.now);
    }

    /// `names` as `name:content`, good and bad.
    pub(super) fn respond(&mut self, type_url: &str, version: &str, nonce: &str, resources: &[&str]) {
        self.respond_from(A, &response(type_url, version, nonce, resources));
    }

    pub(super) fn respond_from(&mut self, server: ServerId, response: &DiscoveryResponse) {
        self.engine.handle_message(server, &response.encode_to_vec(), self.now);
    }

    /// An incremental response from `A`; see [`delta`].
    pub(super) fn respond_delta(&mut self, type_url: &str, nonce: &str, resources: &[&str], removed: &[&str]) {
        self.hear_delta(&delta(type_url, nonce, resources, removed));
    }

    pub(super) fn hear_delta(&mut self, response: &DeltaDiscoveryResponse) {
        self.engine.handle_message(A, &response.encode_to_vec(), self.now);
    }

    /// Every request that is due, as text: `Listener a,b version 1 nonce 2`, and `NACK` or `node` if they are in it. Those
    /// of incremental xDS: `Listener +a,b -c has d=1 nonce 2`, of which only what is in them is there.
    pub(super) fn requests(&mut self, server: ServerId) -> Vec<String> {
        let mut requests = Vec::new();
        while let Some(bytes) = self.engine.poll_request(server) {
            requests.push(if self.engine.method(server) == AGGREGATED_RESOURCES {
                describe(&DiscoveryRequest::decode(bytes).unwrap())
            } else {
                describe_delta(&DeltaDiscoveryRequest::decode(bytes).unwrap())
            });
            if !self.writes {
                break;
            }
            self.engine.handle_written(server, self.now);
        }
        requests
    }

    /// The raw requests that are due.
    pub(super) fn raw_requests(&mut self, server: ServerId) -> Vec<DiscoveryRequest> {
        let mut requests = Vec::new();
        while let Some(bytes) = self.engine.poll_request(server) {
            requests.push(DiscoveryRequest::decode(bytes).unwrap());
            self.engine.handle_written(server, self.now);
        }
        requests
    }

    /// What was told about resources, as text: `a=content`, `a unusable MESH-112`, `a ambient MESH-113`,
    /// `a lapsing MESH-112`, `a well`.
    pub(super) fn told(&mut self) -> Vec<String> {
        self.told_events().iter().map(tell).collect()
    }

    pub(super) fn told_events(&mut self) -> Vec<ResourceEvent> {
        std::iter::from_fn(|| self.engine.poll_resource()).collect()
    }

    pub(super) fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.engine.poll_event()).map(|event: Event| event.to_string()).collect()
    }

    /// Lets time pass, doing what is due when it is due.
    pub(super) fn wait(&mut self, duration: f64) {
        let end = self.now + seconds(duration);
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
        }
        self.now = end;
    }

    pub(super) fn state(&self, type_url: &str, name: &str) -> State {
        let key = ResourceKey::new(type_url, name);
        self.engine.resources().find(|status| status.key == key).expect("it is wanted").state
    }
}

pub(super) fn any(type_url: &str, text: &str) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{type_url}"), value: text.as_bytes().to_vec() }
}

pub(super) fn response(type_url: &str, version: &str, nonce: &str, resources: &[&str]) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(|text| any(type_url, text)).collect(),
        ..DiscoveryResponse::default()
    }
}

pub(super) fn resource_error(name: &str, code: i32) -> ResourceError {
    ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned(), dynamic_parameter_constraints: None }),
        error_detail: Some(RpcStatus { code, message: "the server says so".to_owned(), details: Vec::new() }),
    }
}

pub(super) fn wrapped(name: &str, inner: Option<Any>) -> Any {
    let wrapper = Resource { name: name.to_owned(), resource: inner, ..Resource::default() };
    Any { type_url: format!("{TYPE_URL_PREFIX}envoy.service.discovery.v3.Resource"), value: wrapper.encode_to_vec() }
}

fn describe(request: &DiscoveryRequest) -> String {
    let short = request.type_url.rsplit('.').next().unwrap();
    let mut text = format!("{short} {}", request.resource_names.join(","));
    text.push_str(&format!(" version {} nonce {}", request.version_info, request.response_nonce));
    if request.error_detail.is_some() {
        text.push_str(" NACK");
    }
    if request.node.is_some() {
        text.push_str(" node");
    }
    text
}

fn describe_delta(request: &DeltaDiscoveryRequest) -> String {
    let mut text = vec![request.type_url.rsplit('.').next().unwrap().to_owned()];
    let mut add = |sign: &str, mut parts: Vec<String>| {
        parts.sort();
        text.extend((!parts.is_empty()).then(|| format!("{sign}{}", parts.join(","))));
    };
    add("+", request.resource_names_subscribe.clone());
    add("-", request.resource_names_unsubscribe.clone());
    let versions = request.initial_resource_versions.iter();
    add("has ", versions.map(|(name, version)| format!("{name}={version}")).collect());
    add("nonce ", Some(request.response_nonce.clone()).filter(|nonce| !nonce.is_empty()).into_iter().collect());
    add("NACK", request.error_detail.iter().map(|_| String::new()).collect());
    add("node", request.node.iter().map(|_| String::new()).collect());
    text.join(" ")
}

/// An incremental response. Resources are `name@version:content`; one with the content `?` is a heartbeat.
pub(super) fn delta(type_url: &str, nonce: &str, resources: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |text: &&str| {
        let (name, rest) = text.split_once('@').unwrap();
        let (version, content) = rest.split_once(':').unwrap();
        Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            resource: (content != "?").then(|| any(type_url, &format!("{name}:{content}"))),
            ..Resource::default()
        }
    };
    DeltaDiscoveryResponse {
        system_version_info: format!("of {nonce}"),
        type_url: format!("{TYPE_URL_PREFIX}{type_url}"),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn tell(event: &ResourceEvent) -> String {
    let name = &event.key().name;
    match event {
        ResourceEvent::Changed { value, .. } => format!("{name}={}", value.downcast_ref::<String>().unwrap()),
        ResourceEvent::Unusable { error, .. } => format!("{name} unusable {}", error.code()),
        ResourceEvent::Ambient { error: Some(error), lapsing: true, .. } => format!("{name} lapsing {}", error.code()),
        ResourceEvent::Ambient { error: Some(error), .. } => format!("{name} ambient {}", error.code()),
        ResourceEvent::Ambient { error: None, .. } => format!("{name} well"),
    }
}
