//! The seams of this crate, each with a second implementation that fits: written as an application would, with nothing but
//! what is public.
#![cfg(feature = "file")]

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_core::ads::{ControlStream, ControlTransport, Opening, ResourceType, Subscription, TransportError, Variant};
use mesh_core::balance::{
    Candidate, CandidateState, Observer, Pick, PickGuard, PickInput, Picker, PolicyConfig, WrrLocality, build,
};
use mesh_core::bootstrap::{Node, ServerConfig};
use mesh_core::config::{ConfigThread, Options};
use mesh_core::decode::{
    DecodeResource, Decoded, Decoder, ExtensionValue, Fault, HttpFilterType, PolicyScope, PolicyType, Registry, Side,
};
use mesh_core::error::{Code, Error};
use mesh_core::event::LogSink;
use mesh_core::identity::{CertificateProviders, CertificateSource, Demands, IdentityMaterial, Roots, TrustMaterial};
use mesh_core::load::{LoadReport, Outcome};
use mesh_core::model::{
    CertificateRef, Cluster, Endpoint, FilterConfig, FilterOverride, Health, Listener, Locality, Metadata, Name,
    RouteSource, UpstreamTls,
};
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ResourceEvent, ResourceKey};
use mesh_core::snapshot::{Apply, Children, Snapshot, Update};
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::{EncodedResource, ResourceSet, Responder};
use mesh_core::source::{AdsSource, Feed, Setup, Source};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn encode(type_url: &str, mut json: Value) -> EncodedResource {
    json["@type"] = format!("type.googleapis.com/{type_url}").into();
    resource_from_json(&json).expect("it is proto-JSON")
}

fn decode<T: Send + Sync + 'static>(decoder: &Decoder, resource: &EncodedResource) -> Arc<T> {
    match decoder.decode(&resource.key.type_url, &resource.bytes) {
        Decoded::Ok { value, .. } => value.downcast().expect("the model of another type"),
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    }
}

/// The configuration of a type that has no protobuf.
fn typed_struct(type_url: &str, value: &Value) -> Value {
    let outer = "type.googleapis.com/xds.type.v3.TypedStruct";
    json!({ "@type": outer, "type_url": format!("type.googleapis.com/{type_url}"), "value": value })
}

// -- the registry of HTTP filters --

/// An application's own filter.
struct Greeting;

#[derive(Debug, PartialEq)]
struct GreetingConfig {
    word: String,
}

impl HttpFilterType for Greeting {
    fn type_url(&self) -> &str {
        "example.Greeting"
    }

    fn supports(&self, side: Side) -> bool {
        side == Side::Client
    }

    fn decode(&self, value: ExtensionValue<'_>) -> Result<Arc<dyn FilterConfig>, Vec<Fault>> {
        match value {
            ExtensionValue::Struct(Value::Object(fields)) if fields.contains_key("word") => {
                Ok(Arc::new(GreetingConfig { word: fields["word"].as_str().unwrap_or_default().to_owned() }))
            }
            _ => Err(vec![Fault::new("word", "is missing")]),
        }
    }
}

fn greeting_listener(config: &Value, over: &Value) -> EncodedResource {
    let route = json!({
        "match": { "prefix": "/" },
        "route": { "cluster": "blue" },
        "typed_per_filter_config": { "greeting": over },
    });
    let filters = json!([{ "name": "greeting", "typed_config": config }, { "name": "router", "typed_config": { "@type": ROUTER } }]);
    let table = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
    let manager = json!({ "@type": MANAGER, "route_config": table, "http_filters": filters });
    encode(LISTENER, json!({ "name": "greeter", "api_listener": { "api_listener": manager } }))
}

#[test]
fn an_applications_filter_is_found_by_its_type() {
    let decoder = Decoder::new(Arc::new(Registry::standard().with_filter(Arc::new(Greeting))), []);
    let config = typed_struct("example.Greeting", &json!({ "word": "hello" }));
    let over = typed_struct("example.Greeting", &json!({ "word": "salve" }));
    let listener: Arc<Listener> = decode(&decoder, &greeting_listener(&config, &over));
    let http = listener.connections()[0];
    let found = (&*http.filters[0].config as &dyn Any).downcast_ref::<GreetingConfig>();
    assert_eq!(found, Some(&GreetingConfig { word: "hello".to_owned() }));
    let RouteSource::Inline(table) = &http.routes else { panic!("{http:?}") };
    let FilterOverride::Config { type_url, config } = &table.virtual_hosts[0].routes[0].overrides["greeting"] else {
        panic!("{table:?}")
    };
    let found = (&**config as &dyn Any).downcast_ref::<GreetingConfig>();
    assert_eq!((&**type_url, found), ("example.Greeting", Some(&GreetingConfig { word: "salve".to_owned() })));
}

#[test]
fn its_faults_are_told_with_their_place_and_without_it_the_type_is_refused() {
    let good = typed_struct("example.Greeting", &json!({ "word": "hello" }));
    let resource = greeting_listener(&typed_struct("example.Greeting", &json!({})), &good);
    let decoder = Decoder::new(Arc::new(Registry::standard().with_filter(Arc::new(Greeting))), []);
    let Decoded::Err { faults, .. } = decoder.decode(LISTENER, &resource.bytes) else { panic!("it is taken") };
    assert_eq!(faults[0].path, "api_listener.api_listener.http_filters[0].typed_config.word");

    let decoder = Decoder::new(Arc::new(Registry::standard()), []);
    let Decoded::Err { faults, .. } = decoder.decode(LISTENER, &greeting_listener(&good, &good).bytes) else {
        panic!("it is taken")
    };
    assert!(faults.iter().all(|fault| fault.rule.contains("example.Greeting")), "{faults:?}");
}

// -- the registry of balancing policies, and what a pick takes and gives --

/// An application's own policy: always the candidate at one place, unless the request asks for another.
#[derive(Debug)]
struct Place(usize);

#[derive(Debug)]
struct PlacePicker {
    place: usize,
    candidates: Vec<Arc<Candidate>>,
}

impl PolicyConfig for Place {
    fn build(&self, candidates: &[Arc<Candidate>], _previous: Option<&Arc<dyn Picker>>, _seed: u64) -> Arc<dyn Picker> {
        Arc::new(PlacePicker { place: self.0, candidates: candidates.to_vec() })
    }
}

impl PlacePicker {
    /// The candidate whose metadata is what the request wants, or the one whose place its hash is.
    fn place(&self, input: &PickInput<'_>) -> usize {
        let wanted = |candidate: &Arc<Candidate>| {
            let found = candidate.endpoint.metadata.get("envoy.lb").and_then(Value::as_object);
            input.metadata.is_some_and(|want| {
                want.iter().all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
            })
        };
        let by_hash = input.hash.and_then(|hash| usize::try_from(hash).ok());
        self.candidates.iter().position(wanted).or(by_hash).unwrap_or(self.place)
    }
}

impl Picker for PlacePicker {
    fn pick(&self, input: &PickInput<'_>) -> Pick {
        let place = self.place(input);
        if input.tried.contains(&place) { Pick::Fail } else { Pick::Candidate(place) }
    }
}

struct PlaceType;

impl PolicyType for PlaceType {
    fn type_url(&self) -> &str {
        "example.Place"
    }

    fn decode(&self, value: ExtensionValue<'_>, scope: &PolicyScope<'_>) -> Result<Arc<dyn PolicyConfig>, Vec<Fault>> {
        let ExtensionValue::Struct(value) = value else { return Err(vec![Fault::new("", "must be a struct")]) };
        if value.get("sticky").is_some() {
            scope.left_out("sticky");
        }
        let place = value["place"].as_u64().and_then(|place| usize::try_from(place).ok());
        place
            .map(|place| Arc::new(Place(place)) as Arc<dyn PolicyConfig>)
            .ok_or_else(|| vec![Fault::new("place", "is missing")])
    }
}

fn policies(list: &[Value]) -> Value {
    let entry = |config: &Value| json!({ "typed_extension_config": { "name": "x", "typed_config": config } });
    json!({ "policies": list.iter().map(entry).collect::<Vec<_>>() })
}

fn candidates() -> Vec<Arc<Candidate>> {
    let candidate = |port: u16| {
        let lb = json!({ "colour": if port == 2 { "green" } else { "blue" } });
        let state = Arc::new(CandidateState::default());
        state.set_ready();
        Arc::new(Candidate {
            endpoint: Arc::new(Endpoint {
                address: SocketAddr::from(([127, 0, 0, 1], port)),
                additional: Vec::new(),
                weight: 1,
                health: Health::Healthy,
                hostname: "".into(),
                metadata: Metadata::from([("envoy.lb".to_owned(), lb)]),
            }),
            locality: Arc::new(Locality::default()),
            priority: 0,
            locality_weight: 1,
            state,
            observer: None,
        })
    };
    (1..=3).map(candidate).collect()
}

const PLAIN: PickInput<'static> = PickInput { hash: None, tried: &[], override_host: None, metadata: None, random: 7 };

#[test]
fn an_applications_policy_is_found_by_its_type_and_chooses() {
    let decoder = Decoder::new(Arc::new(Registry::standard().with_policy(Arc::new(PlaceType))), []);
    let place = typed_struct("example.Place", &json!({ "place": 2, "sticky": true }));
    let wrr = "type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality";
    let nested = json!({ "@type": wrr, "endpoint_picking_policy": policies(&[place]) });
    let json = json!({ "name": "blue", "type": "STATIC", "load_balancing_policy": policies(&[nested]) });
    let cluster: Arc<Cluster> = decode(&decoder, &encode(CLUSTER, json));
    let outer = (&*cluster.policy as &dyn Any).downcast_ref::<WrrLocality>().expect("the built-in one is outside");
    assert_eq!((&*outer.child as &dyn Any).downcast_ref::<Place>().expect("ours is inside").0, 2);
    assert!(
        cluster.unsupported[0]
            .field
            .ends_with("endpoint_picking_policy.policies[0].typed_extension_config.typed_config.sticky")
    );

    let candidates = candidates();
    let picker = build(&*cluster.policy, &candidates, None, 1);
    assert_eq!(picker.pick(&PLAIN), Pick::Candidate(2));
    // What a request brings reaches it, through the policies around it.
    assert_eq!(picker.pick(&PickInput { hash: Some(0), ..PLAIN }), Pick::Candidate(0));
    let green = Metadata::from([("colour".to_owned(), json!("green"))]);
    assert_eq!(picker.pick(&PickInput { metadata: Some(&green), ..PLAIN }), Pick::Candidate(1));
    assert_eq!(picker.pick(&PickInput { tried: &[2], ..PLAIN }), Pick::Fail);
    // An address that is asked for stands above every policy.
    let address = Some(candidates[0].endpoint.address);
    assert_eq!(picker.pick(&PickInput { override_host: address, ..PLAIN }), Pick::Candidate(0));
}

/// Counts what it is told.
#[derive(Debug, Default)]
struct Counter {
    heads: AtomicUsize,
    trailers: AtomicUsize,
    failures: AtomicUsize,
    starts: AtomicUsize,
    reports: AtomicUsize,
    successes: AtomicUsize,
    errors: AtomicUsize,
}

impl Observer for Counter {
    fn on_headers(&self, status: http::StatusCode, _headers: &http::HeaderMap) {
        assert_eq!(status, http::StatusCode::OK);
        self.heads.fetch_add(1, Ordering::Relaxed);
    }

    fn on_trailers(&self, trailers: &http::HeaderMap) {
        self.trailers.fetch_add(trailers.len(), Ordering::Relaxed);
    }

    fn on_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn on_start(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    fn wants_reports(&self) -> bool {
        true
    }

    fn on_report(&self, report: &LoadReport<'_>, _now: Instant) {
        assert_eq!(report.cpu_utilization, 0.5);
        self.reports.fetch_add(1, Ordering::Relaxed);
    }

    fn on_end(&self, outcome: Outcome) {
        let counter = if outcome == Outcome::Succeeded { &self.successes } else { &self.errors };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_observer_learns_of_every_request_through_its_guard() {
    let counter = Arc::new(Counter::default());
    let state = Arc::new(CandidateState::default());
    let guard = || PickGuard::new(state.clone(), Some(counter.clone()), false);
    let (mut good, mut bad) = (guard(), guard());
    assert_eq!(state.outstanding(), 2, "attempts of one call count apart");
    good.on_headers(http::StatusCode::OK, &http::HeaderMap::new(), Instant::now);
    let load =
        (http::HeaderName::from_static("endpoint-load-metrics-bin"), http::HeaderValue::from_static("CQAAAAAAAOA/"));
    good.on_trailers(&http::HeaderMap::from_iter([load]), Instant::now);
    bad.on_failure();
    drop((good, bad));
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let told = [&counter.starts, &counter.heads, &counter.trailers, &counter.failures].map(count);
    let meant = [&counter.reports, &counter.successes, &counter.errors].map(count);
    assert_eq!((told, meant, state.outstanding()), ([2, 1, 1, 1], [1, 1, 1], 0));
}

// -- sources, transports and types of the stream --

/// One target: a Listener with its routes, a cluster, and its endpoint.
fn resources() -> Vec<EncodedResource> {
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "blue" } });
    let table = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
    let filters = json!([{ "name": "router", "typed_config": { "@type": ROUTER } }]);
    let manager = json!({ "@type": MANAGER, "route_config": table, "http_filters": filters });
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 8080 } });
    let locality = json!({
        "locality": { "zone": "a" },
        "load_balancing_weight": 1,
        "lb_endpoints": [{ "endpoint": { "address": address } }],
    });
    vec![
        encode(LISTENER, json!({ "name": "greeter", "api_listener": { "api_listener": manager } })),
        encode(
            CLUSTER,
            json!({ "name": "blue", "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } }),
        ),
        encode(CLUSTER_LOAD_ASSIGNMENT, json!({ "cluster_name": "blue", "endpoints": [locality] })),
    ]
}

fn standard() -> Arc<dyn DecodeResource> {
    Arc::new(Decoder::new(Arc::new(Registry::standard()), []))
}

struct Forward(mpsc::UnboundedSender<Update>);

impl Apply for Forward {
    fn apply(&mut self, update: Update) {
        self.0.send(update).expect("the test listens");
    }
}

/// The first snapshot that a source leads to.
async fn first_snapshot(source: Box<dyn Source>) -> Arc<Snapshot> {
    let (sender, mut updates) = mpsc::unbounded_channel();
    let apply = Box::new(move || Box::new(Forward(sender)) as Box<dyn Apply>);
    let config = ConfigThread::spawn(Options::new(source, standard(), apply, Arc::new(LogSink), 1)).expect("it starts");
    config.watch_client("greeter");
    let update = tokio::time::timeout(Duration::from_secs(60), updates.recv()).await.expect("an update");
    match update.expect("the thread lives") {
        Update::Client(snapshot) => snapshot,
        other => panic!("{other:?}"),
    }
}

fn port(snapshot: &Snapshot) -> u16 {
    let cluster = snapshot.clusters["blue"].as_ref().expect("it is there");
    match &cluster.children {
        Children::Endpoints { endpoints, .. } => endpoints.localities[0].endpoints[0].address.port(),
        other => panic!("{other:?}"),
    }
}

/// A source that decodes what it has and speaks no protocol.
struct Table(Vec<EncodedResource>);

struct TableFeed {
    known: BTreeMap<ResourceKey, EncodedResource>,
    decoder: Arc<dyn DecodeResource>,
    events: VecDeque<ResourceEvent>,
}

impl Source for Table {
    fn start(self: Box<Self>, setup: Setup) -> Result<Box<dyn Feed>, Error> {
        let known = self.0.into_iter().map(|resource| (resource.key.clone(), resource)).collect();
        Ok(Box::new(TableFeed { known, decoder: setup.decoder, events: VecDeque::new() }))
    }
}

impl Feed for TableFeed {
    fn subscribe(&mut self, key: &ResourceKey) {
        let decoded = self.known.get(key).map(|resource| self.decoder.decode(&key.type_url, &resource.bytes));
        let key = key.clone();
        self.events.push_back(match decoded {
            Some(Decoded::Ok { value, .. }) => {
                ResourceEvent::Changed { key, value, version: "1".to_owned(), server: None }
            }
            _ => ResourceEvent::Unusable { key, error: Error::new(Code::RESOURCE_NOT_FOUND, "not in the table") },
        });
    }

    fn unsubscribe(&mut self, _key: &ResourceKey) {}

    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<ResourceEvent> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_settled(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        if self.events.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

#[tokio::test]
async fn a_source_of_another_kind_feeds_the_graph() {
    assert_eq!(port(&*first_snapshot(Box::new(Table(resources()))).await), 8080);
}

/// A transport of another kind: to a server in this process, counting the messages.
#[derive(Clone)]
struct Wire {
    set: Arc<ResourceSet>,
    sent: Arc<AtomicUsize>,
}

struct WireStream {
    responder: Responder,
    inbox: VecDeque<Bytes>,
    reader: Option<Waker>,
    sent: Arc<AtomicUsize>,
}

impl Wire {
    fn new(resources: Vec<EncodedResource>) -> Self {
        Self { set: Arc::new(ResourceSet::new(resources)), sent: Arc::default() }
    }

    fn source(&self) -> AdsSource {
        AdsSource::of(vec![ServerConfig::insecure("wire")], Node::default(), Arc::new(self.clone()))
    }
}

impl ControlTransport for Wire {
    fn open(&self, server: &ServerConfig, path: &str) -> Opening {
        assert_eq!((&*server.uri, path), ("wire", mesh_core::ads::AGGREGATED_RESOURCES));
        let responder = Responder::new(self.set.clone());
        let stream = WireStream { responder, inbox: VecDeque::new(), reader: None, sent: self.sent.clone() };
        // Not at once, as a real one is not.
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(Box::new(stream) as Box<dyn ControlStream>)
        })
    }
}

impl ControlStream for WireStream {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, message: Bytes) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.inbox.extend(self.responder.handle_request(&message));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn finish(&mut self) {}

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        if let Some(message) = self.inbox.pop_front() {
            return Poll::Ready(Some(Ok(message)));
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[tokio::test]
async fn a_transport_of_another_kind_carries_the_stream() {
    let wire = Wire::new(resources());
    assert_eq!(port(&*first_snapshot(Box::new(wire.source())).await), 8080);
    assert!(wire.sent.load(Ordering::Relaxed) >= 3, "one request for each type at least");
}

/// A resource of the application's own: its bytes are a name field and nothing else.
struct Notes;

impl DecodeResource for Notes {
    fn decode(&self, type_url: &str, bytes: &[u8]) -> Decoded {
        assert_eq!(type_url, "example.Note");
        match bytes {
            [0x0a, _, name @ ..] => {
                let name: Name = std::str::from_utf8(name).expect("it is text").into();
                let value = Arc::new(format!("a note called {name}"));
                Decoded::Ok { name, value }
            }
            _ => Decoded::Err { name: None, faults: vec![Fault::new("", "is no note")] },
        }
    }
}

#[tokio::test]
async fn a_type_of_the_applications_own_is_a_row() {
    let key = ResourceKey::new("example.Note", "shopping");
    let note = EncodedResource::new(key.clone(), [&[0x0a, 8][..], b"shopping"].concat());
    let row = ResourceType {
        type_url: "example.Note".into(),
        variant: Variant::StateOfTheWorld,
        subscription: Subscription::Named,
        full_state: false,
        decoder: Arc::new(Notes),
    };
    let source = Wire::new(vec![note]).source().with_type(row);
    let setup = Setup { decoder: standard(), events: Arc::new(LogSink), seed: 1 };
    let mut feed = Box::new(source).start(setup).expect("it starts");
    feed.subscribe(&key);
    let event = poll_fn(|cx| {
        loop {
            if let Poll::Ready(event) = feed.poll_event(cx) {
                return Poll::Ready(event);
            }
            if feed.poll_settled(cx).is_pending() {
                return Poll::Pending;
            }
        }
    });
    match tokio::time::timeout(Duration::from_secs(60), event).await.expect("it comes") {
        ResourceEvent::Changed { key: found, value, .. } => {
            assert_eq!(found, key);
            assert_eq!(*value.downcast::<String>().expect("it is text"), "a note called shopping");
        }
        other => panic!("{other:?}"),
    }
}

// -- certificates --

/// Certificates of the application's own origin: one rotation for each question.
#[derive(Debug, Default)]
struct Vault(AtomicUsize);

impl CertificateSource for Vault {
    fn identity(&self) -> Result<Arc<IdentityMaterial>, Error> {
        Err(Error::new(Code::NO_CERTIFICATE, "the vault is locked"))
    }

    fn trust(&self) -> Result<Arc<TrustMaterial>, Error> {
        let generation = u64::try_from(self.0.fetch_add(1, Ordering::Relaxed)).expect("few");
        Ok(Arc::new(TrustMaterial {
            roots: Roots::Any(vec![b"a root".to_vec().into()]),
            demands: Demands::default(),
            generation,
        }))
    }
}

#[test]
fn a_certificate_source_of_another_origin_is_an_instance_like_any() {
    let providers = CertificateProviders::new().with("vault", Arc::new(Vault::default()));
    let decoder = Decoder::new(Arc::new(Registry::standard()), providers.instances());
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let cluster = |instance: &str| {
        let roots = json!({ "ca_certificate_provider_instance": { "instance_name": instance } });
        let context = json!({ "@type": tls, "common_tls_context": { "validation_context": roots } });
        let socket = json!({ "name": "envoy.transport_sockets.tls", "typed_config": context });
        encode(CLUSTER, json!({ "name": "blue", "type": "STATIC", "transport_socket": socket }))
    };
    assert!(matches!(decoder.decode(CLUSTER, &cluster("safe").bytes), Decoded::Err { .. }));
    let cluster: Arc<Cluster> = decode(&decoder, &cluster("vault"));
    let UpstreamTls { roots: mesh_core::model::TrustRoots::Provider(roots), .. } =
        &**cluster.tls.as_ref().expect("it has TLS")
    else {
        panic!("{cluster:?}")
    };
    assert_eq!(*roots, CertificateRef { instance: "vault".into(), certificate: "".into() });
    let (first, second) = (providers.trust(roots).expect("there"), providers.trust(roots).expect("there"));
    assert!(second.generation > first.generation, "asked anew each time");
    assert!(providers.identity(roots).expect_err("it is locked").to_string().contains("the vault is locked"));
}
