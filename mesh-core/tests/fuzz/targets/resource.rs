//! Resources: a good one spoiled by its fields, and any bytes. What is taken is put to use, as a request would.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arbitrary::{Result, Unstructured};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use mesh_core::balance::{self, Candidate, CandidateState, Pick, PickInput, PolicyConfig, RoundRobinConfig};
use mesh_core::chain::{ChainIndex, ConnectionFacts, FirstBytes};
use mesh_core::decode::{DecodeResource, Decoded, Decoder, Dialect, Registry};
use mesh_core::model::{Action, Cluster, Endpoints, Forward, Listener, ListenerKind, Name, RouteSource, RouteTable};
use mesh_core::policy::deadline;
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};
use mesh_core::route::format::FormatFacts;
use mesh_core::route::{Decision, NoDecision, RequestFacts, RouteIndex, hash, mutate, redirect, rewrite};
use mesh_core::source::file;
use prost_reflect::DynamicMessage;
use prost_reflect::prost::Message;

use crate::{generate, input};

pub(crate) const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

/// Good resources, written down as a file would have them.
static SAMPLES: LazyLock<Vec<(Name, Vec<u8>)>> = LazyLock::new(|| {
    let config = file::load(include_str!("../samples/resources.yaml"), "resources.yaml").expect("the samples are good");
    config.resources.into_iter().map(|resource| (resource.key.type_url, resource.bytes.to_vec())).collect()
});

pub(crate) fn decoder() -> Decoder {
    Decoder::new(Arc::new(Registry::standard()), [Name::from("default")])
}

pub(crate) fn listener(data: &[u8]) {
    spoiled(LISTENER, data);
}

pub(crate) fn routes(data: &[u8]) {
    spoiled(ROUTE_CONFIGURATION, data);
}

pub(crate) fn cluster(data: &[u8]) {
    spoiled(CLUSTER, data);
}

pub(crate) fn endpoints(data: &[u8]) {
    spoiled(CLUSTER_LOAD_ASSIGNMENT, data);
}

/// Any bytes as each type, and any message of each.
pub(crate) fn any(data: &[u8]) {
    let mut u = Unstructured::new(data);
    for type_url in TYPES {
        judge(type_url, data, data);
        if let Ok(message) = generate::message(&generate::descriptor(type_url), &mut u) {
            judge(type_url, &message.encode_to_vec(), data);
        }
    }
}

fn spoiled(type_url: &str, data: &[u8]) {
    let mut u = Unstructured::new(data);
    if let Ok(bytes) = spoiled_bytes(type_url, &mut u) {
        judge(type_url, &bytes, u.take_rest());
    }
}

/// One of the samples of this type, changed in a few places.
pub(crate) fn spoiled_bytes(type_url: &str, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let samples: Vec<&Vec<u8>> = SAMPLES.iter().filter(|(of, _)| &**of == type_url).map(|(_, bytes)| bytes).collect();
    let sample = u.choose(&samples)?;
    let of = generate::descriptor(type_url);
    let mut message = DynamicMessage::decode(of, sample.as_slice()).expect("the samples are messages");
    generate::spoil(&mut message, u)?;
    let mut bytes = message.encode_to_vec();
    if u.ratio(1, 10)? {
        input::spoil_bytes(&mut bytes, u)?;
    }
    Ok(bytes)
}

/// Whether the resource that these bytes make is taken.
pub(crate) fn is_taken(type_url: &str, data: &[u8]) -> bool {
    let bytes = spoiled_bytes(type_url, &mut Unstructured::new(data));
    bytes.is_ok_and(|bytes| matches!(decoder().decode(type_url, &bytes), Decoded::Ok { .. }))
}

/// By the rules of either, a resource is taken or refused for a reason, and twice alike; what is taken can be used.
fn judge(type_url: &str, bytes: &[u8], request: &[u8]) {
    judge_by(Dialect::Grpc, type_url, bytes, request);
    judge_by(Dialect::Envoy, type_url, bytes, request);
}

fn judge_by(dialect: Dialect, type_url: &str, bytes: &[u8], request: &[u8]) {
    let decode = || decoder().with_dialect(dialect).decode(type_url, bytes);
    match (decode(), decode()) {
        (Decoded::Err { faults, .. }, Decoded::Err { faults: again, .. }) => {
            assert!(!faults.is_empty() && faults.len() <= 100);
            assert!(faults.iter().all(|fault| !fault.rule.is_empty()));
            assert_eq!(faults, again, "the same faults in the same order");
        }
        (Decoded::Ok { name, value }, Decoded::Ok { .. }) => {
            assert!(!name.is_empty());
            use_value(&*value, request);
        }
        (first, second) => panic!("{first:?}, and then {second:?}"),
    }
}

fn use_value(value: &(dyn Any + Send + Sync), request: &[u8]) {
    if let Some(table) = value.downcast_ref::<RouteTable>() {
        use_routes(&Arc::new(table.clone()), request);
    } else if let Some(endpoints) = value.downcast_ref::<Endpoints>() {
        use_endpoints(endpoints, &RoundRobinConfig);
    } else if let Some(cluster) = value.downcast_ref::<Cluster>() {
        use_endpoints(&some_endpoints(), &*cluster.policy);
    } else if let Some(listener) = value.downcast_ref::<Listener>() {
        use_listener(listener, request);
    } else {
        panic!("a model that nobody knows");
    }
}

// ---- routes ----

fn use_routes(table: &Arc<RouteTable>, request: &[u8]) {
    let index = RouteIndex::new(table.clone());
    let mut u = Unstructured::new(request);
    for _ in 0..4 {
        let Ok((authority, path, headers)) = request_of(&mut u) else { return };
        for is_grpc in [false, true] {
            let facts = RequestFacts { is_grpc, is_internal: is_grpc, ..facts(&authority, &path, &headers) };
            use_decision(&index, &facts, u.arbitrary().unwrap_or_default());
        }
    }
}

pub(crate) fn facts<'a>(authority: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestFacts<'a> {
    RequestFacts {
        method: &Method::POST,
        scheme: "https",
        authority,
        path,
        headers,
        is_grpc: false,
        tls: None,
        source_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        channel_id: 7,
        metadata: None,
        is_internal: false,
    }
}

pub(crate) fn request_of(u: &mut Unstructured<'_>) -> Result<(String, String, HeaderMap)> {
    let mut headers = HeaderMap::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let name = HeaderName::from_bytes(input::text(u)?.as_bytes());
        let value = HeaderValue::from_bytes(input::text(u)?.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    Ok((input::text(u)?, input::text(u)?, headers))
}

fn use_decision(index: &RouteIndex, facts: &RequestFacts<'_>, random: u64) {
    let decision = index.decide(facts.authority, facts, random);
    // The index finds what trying every route in order finds.
    let explained = index.explain(facts.authority, facts, random).decision;
    let route = |decision: &Result<Decision, NoDecision>| decision.as_ref().ok().map(|found| Arc::as_ptr(&found.route));
    assert_eq!(route(&decision), route(&explained), "{} {}", facts.authority, facts.path);
    let Ok(decision) = decision else { return };
    match &decision.route.action {
        Action::Forward(forward) => use_forward(&decision, forward, facts),
        Action::Redirect(redirect) => {
            redirect::location(redirect, &decision.route.matches, facts);
        }
        _ => assert!(decision.cluster.is_none()),
    }
    let all =
        FormatFacts { request: *facts, version: Version::HTTP_2, remote: None, local: None, peer: None, status: None };
    let mut headers = facts.headers.clone();
    for level in decision.mutations(index.table()) {
        mutate::mutate_request(level, &mut headers, &all);
        mutate::mutate_response(level, &mut headers, &all);
    }
}

fn use_forward(decision: &Decision, forward: &Forward, facts: &RequestFacts<'_>) {
    let cluster = decision.cluster.as_ref().expect("what is forwarded has a cluster");
    if let Some(weighted) = cluster.weighted {
        assert!(weighted.drawn < weighted.total);
        assert_eq!(decision.weighted_cluster().map(|entry| &entry.name), Some(&cluster.name));
    }
    hash::request_hash(&forward.hash, facts);
    if let Some(path) = &forward.path_rewrite
        && let Ok(Some(path)) = rewrite::rewrite_path(path, &decision.route.matches, facts.path)
    {
        assert!(path.as_str().starts_with('/'));
    }
    let all =
        FormatFacts { request: *facts, version: Version::HTTP_2, remote: None, local: None, peer: None, status: None };
    // What cannot be an authority is an error, and nothing else is asked of it.
    let _ = rewrite::rewrite_authority(forward, decision.weighted_cluster(), &all, "host.test");
    let timeouts = deadline::http_timeouts(forward, None);
    assert!(!format!("{timeouts:?}").is_empty());
    deadline::deadline(Instant::now(), forward.timeout);
}

// ---- endpoints ----

fn some_endpoints() -> Endpoints {
    let bytes = SAMPLES.iter().find(|(of, _)| &**of == CLUSTER_LOAD_ASSIGNMENT).expect("there is a sample");
    match decoder().decode(CLUSTER_LOAD_ASSIGNMENT, &bytes.1) {
        Decoded::Ok { value, .. } => value.downcast_ref::<Endpoints>().expect("the model").clone(),
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    }
}

fn use_endpoints(endpoints: &Endpoints, policy: &dyn PolicyConfig) {
    let mut candidates = Vec::new();
    for locality in &endpoints.localities {
        assert!(locality.weight > 0);
        for endpoint in &locality.endpoints {
            assert!(endpoint.weight > 0);
            candidates.push(Arc::new(Candidate {
                endpoint: std::sync::Arc::new(endpoint.clone()),
                locality: locality.locality.clone(),
                priority: locality.priority,
                locality_weight: locality.weight,
                state: Arc::new(CandidateState::default()),
                observer: None,
            }));
        }
    }
    candidates.iter().filter(|it| !it.endpoint.address.port().is_multiple_of(2)).for_each(|it| it.state.set_ready());
    let first = balance::build(policy, &candidates, None, 1);
    let picker = balance::build(policy, &candidates, Some(&first), 1);
    for random in 0..20 {
        let input = PickInput { hash: None, tried: &[0], override_host: None, metadata: None, random };
        if let Pick::Candidate(index) = picker.pick(&input) {
            assert!(candidates[index].state.is_ready());
        }
    }
}

// ---- listeners ----

fn use_listener(listener: &Listener, request: &[u8]) {
    for connection in listener.connections() {
        if let RouteSource::Inline(table) = &connection.routes {
            use_routes(table, request);
        }
    }
    let ListenerKind::Server(server) = &listener.kind else { return };
    for bound in [server.address.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED)] {
        let index = ChainIndex::new(server, bound);
        for port in [0, 1, 80, 65535] {
            let client = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), port));
            let first =
                FirstBytes { tls: true, server_name: Some("a.test".to_owned()), protocols: vec!["h2".to_owned()] };
            let facts = ConnectionFacts { destination: server.address, source: client, first: &first };
            if let Ok(chain) = index.select(&facts) {
                assert!(chain < index.chains().len());
            }
        }
    }
}
