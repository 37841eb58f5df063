//! A stream with a real decoder behind it: what became of a response's resources, one by one.

use std::collections::BTreeMap;
use std::time::Instant;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::*;
use crate::ads::{Authorities, Engine, ResourceTypes, ServerId, Settings};
use crate::bootstrap::{Authority, Node, ServerConfig};
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceEvent, ResourceKey};

/// Resources that are good whatever stands beside them.
const SIBLINGS: [&str; 2] = ["sibling-before", "sibling-after"];

/// What was told about a resource last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It has a new value.
    Changed,
    /// Its new value was refused and its old one is used on.
    Kept,
    /// Its value was refused, and there was none before.
    Unusable,
}

/// A client of one server that asks for one type of resource.
pub(super) struct Exchange {
    engine: Engine,
    type_url: &'static str,
    now: Instant,
    responses: u32,
}

impl Exchange {
    /// Asks for `names` of `type_url`.
    pub(super) fn of(type_url: &'static str, names: &[&str]) -> Self {
        let decoder: Arc<dyn DecodeResource> = Arc::new(decoder());
        let types = ResourceTypes::standard(&decoder);
        // The authority `a` of `xdstp:` names has the same server.
        let same = Authority { servers: Vec::new(), fallback_on_reachability_only: false };
        let servers = Authorities::from(vec![ServerConfig::insecure("a")]).with("a", &same);
        let engine = Engine::new(servers, &Node::default(), types, Settings::default(), 1);
        let mut it = Self { engine, type_url, now: Instant::now(), responses: 0 };
        for name in names {
            it.engine.subscribe(&ResourceKey::new(type_url, *name), it.now);
        }
        it.engine.handle_connected(ServerId(0), it.now);
        it.request();
        it
    }

    /// Sends `resources` in one response: what was told of each name, and the text of the NACK.
    pub(super) fn respond(&mut self, resources: Vec<Any>) -> (BTreeMap<String, Told>, Option<String>) {
        self.responses += 1;
        let response = DiscoveryResponse {
            version_info: self.responses.to_string(),
            nonce: self.responses.to_string(),
            type_url: format!("{TYPE_URL_PREFIX}{}", self.type_url),
            resources,
            ..Default::default()
        };
        self.engine.handle_message(ServerId(0), &response.encode_to_vec(), self.now);
        let told = std::iter::from_fn(|| self.engine.poll_resource()).map(|event| {
            let what = match &event {
                ResourceEvent::Changed { .. } => Told::Changed,
                ResourceEvent::Ambient { .. } => Told::Kept,
                ResourceEvent::Unusable { .. } => Told::Unusable,
            };
            (event.key().name.to_string(), what)
        });
        (told.collect(), self.request().error_detail.map(|status| status.message))
    }

    fn request(&mut self) -> DiscoveryRequest {
        let bytes = self.engine.poll_request(ServerId(0)).expect("a request is due");
        self.engine.handle_written(ServerId(0), self.now);
        DiscoveryRequest::decode(bytes).expect("the engine writes requests")
    }
}

/// A resource as it stands in a response.
pub(super) fn resource(type_url: &str, bytes: Vec<u8>) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{type_url}"), value: bytes }
}

/// A good resource of this type and name.
pub(super) fn good(type_url: &str, name: &str) -> Any {
    let name = name.to_owned();
    let bytes = match type_url {
        LISTENER => {
            let api_listener = Some(ApiListener { api_listener: Some(any(&manager())) });
            Listener { name, api_listener, ..Default::default() }.encode_to_vec()
        }
        ROUTE_CONFIGURATION => RouteConfiguration { name, ..super::route::routes() }.encode_to_vec(),
        CLUSTER => Cluster { name, ..super::cluster::eds() }.encode_to_vec(),
        CLUSTER_LOAD_ASSIGNMENT => ClusterLoadAssignment { cluster_name: name, ..Default::default() }.encode_to_vec(),
        other => panic!("{other} has no good one"),
    };
    resource(type_url, bytes)
}

/// A resource that becomes bad between good ones: it alone is refused, by a NACK that says all of `says`, and its last
/// value stays (gRFC A46). `before` is what was in force, if anything; None for `name`: so bad that nobody can tell whose
/// value it was.
pub(super) fn is_refused_alone(
    what: &str,
    type_url: &'static str,
    before: Option<Any>,
    bad: Vec<Any>,
    name: Option<&str>,
    says: &[String],
) {
    let base = "the-changed-one";
    let asked = name.unwrap_or(base);
    let mut exchange = Exchange::of(type_url, &[SIBLINGS[0], asked, SIBLINGS[1]]);
    if let Some(before) = before {
        let (told, nack) = exchange.respond(vec![before]);
        assert_eq!(nack, None, "{what}: the one it starts from is refused");
        assert!(name.is_none() || told.get(asked) == Some(&Told::Changed), "{what}: {told:?}");
    }

    let (told, nack) =
        exchange.respond([vec![good(type_url, SIBLINGS[0])], bad, vec![good(type_url, SIBLINGS[1])]].concat());
    let mut expected = BTreeMap::from(SIBLINGS.map(|name| (name.to_owned(), Told::Changed)));
    expected.extend(name.map(|name| (name.to_owned(), Told::Kept)));
    assert_eq!(told, expected, "{what}");
    let nack = nack.unwrap_or_else(|| panic!("{what}: the response is acknowledged"));
    for part in says {
        assert!(nack.contains(part.as_str()), "{what}: `{part}` is not in `{nack}`");
    }
    for sibling in SIBLINGS {
        assert!(!nack.contains(sibling), "{what}: `{nack}` blames a sibling");
    }
}
