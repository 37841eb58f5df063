//! A case's configuration as xDS resources.
//!
//! The case describes one sidecar; here its two halves are two Listeners. Routes, and the filters that Envoy runs on the
//! caller's side of a mesh, belong to the client; what needs the downstream connection belongs to the server, whose routes
//! lead to the application, which is the client.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::decode::{DecodeResource, Decoded, Decoder, Dialect, Registry};
use mesh_core::error::Error;
use mesh_core::model::Name;
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Map, Value, json};

use crate::certificates::{self, Provider};

/// The client Listener's name.
pub(crate) const CLIENT_LISTENER: &str = "corpus";

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// Filters that judge the connection or the caller, by the package of their type.
const SERVER_FILTERS: [&str; 3] = [".http.rbac.", ".http.jwt_authn.", ".http.ext_authz."];

/// Fields of a connection manager that speak of the downstream connection, or of how requests are read from it.
const SERVER_FIELDS: [&str; 18] = [
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "strip_any_host_port",
    "strip_matching_host_port",
    "strip_trailing_host_dot",
    "use_remote_address",
    "internal_address_config",
    "xff_num_trusted_hops",
    "skip_xff_append",
    "max_request_headers_kb",
    "http_protocol_options",
    "upgrade_configs",
    "stream_idle_timeout",
    "request_timeout",
    "request_headers_timeout",
    "forward_client_cert_details",
    "set_current_client_cert_details",
];

/// The same, of its `common_http_protocol_options`.
const SERVER_OPTIONS: [&str; 2] = ["headers_with_underscores_action", "max_headers_count"];

const PROTOCOL_OPTIONS: &str = "common_http_protocol_options";

/// Why a configuration is not served.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It breaks a rule.
    Rejected(String),
    /// It asks for something that is not there yet.
    Unsupported(String),
}

/// The `config` of a case.
pub(crate) struct Case(Map<String, Value>, Vec<Provider>);

impl Case {
    /// Reads a case; the certificates in it become providers.
    pub(crate) fn new(config: Map<String, Value>) -> Result<Self, Refusal> {
        let (mut config, mut providers) = (config, Vec::new());
        config.values_mut().try_for_each(|value| certificates::take(value, &mut providers))?;
        Ok(Self(config, providers))
    }

    /// Where the case's certificates come from.
    pub(crate) fn providers(&self) -> &[Provider] {
        &self.1
    }

    /// The resources of a mesh that serves the case on `address`.
    pub(crate) fn resources(&self, address: SocketAddr) -> Result<Vec<EncodedResource>, Refusal> {
        let mut resources = vec![self.client_listener(), self.server_listener(address)];
        resources.extend(self.clusters());
        let instances = self.1.iter().map(|(name, _)| Name::from(name.as_str()));
        let decoder = Decoder::new(Arc::new(Registry::standard()), instances)
            .with_insecure(self.insecure(address))
            .with_dialect(Dialect::Envoy);
        resources.iter().map(|json| checked(json, &decoder)).collect()
    }

    /// Every cluster and the server: the operator of a case has said that what Envoy does of TLS without trust is meant.
    pub(crate) fn insecure(&self, address: SocketAddr) -> Vec<Name> {
        let clusters = self.list("clusters").iter().filter_map(|cluster| cluster.get("name")?.as_str());
        clusters.map(Name::from).chain([server_name(address).into()]).collect()
    }

    /// Whether the case can be a static configuration.
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        self.resources(any).map(drop)
    }

    fn clusters(&self) -> impl Iterator<Item = Value> {
        let given = self.list("clusters").iter();
        given.map(|cluster| with_type(cluster, "type.googleapis.com/envoy.config.cluster.v3.Cluster"))
    }

    fn client_listener(&self) -> Value {
        let routes = self.routes(|routes, names| keep_overrides(routes, names, false));
        let manager = self.manager(&routes, false);
        json!({
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": CLIENT_LISTENER,
            "api_listener": {"api_listener": manager},
        })
    }

    fn server_listener(&self, address: SocketAddr) -> Value {
        let mut chain = json!({
            "filters": [{"name": "http", "typed_config": self.manager(&self.server_routes(), true)}],
        });
        if let Some(socket) = self.0.get("transport_socket") {
            chain["transport_socket"] = socket.clone();
        }
        let mut listener = self.object("listener");
        listener.insert("@type".to_owned(), "type.googleapis.com/envoy.config.listener.v3.Listener".into());
        listener.insert("name".to_owned(), server_name(address).into());
        let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
        listener.insert("address".to_owned(), json!({"socket_address": socket}));
        listener.insert("filter_chains".to_owned(), json!([chain]));
        listener.into()
    }

    /// Every request reaches the application; where filters of the server are overridden, by routes as the case has them.
    fn server_routes(&self) -> Value {
        let everything = json!({"match": {"prefix": ""}, "non_forwarding_action": {}});
        if !self.filters(true).is_empty() {
            return self.routes(|routes, names| {
                keep_overrides(routes, names, true);
                lead_to_the_application(routes);
            });
        }
        json!({"name": "server", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]})
    }

    /// The case's routes, changed; the names are those of the filters of the server.
    fn routes(&self, change: impl FnOnce(&mut Value, &BTreeSet<String>)) -> Value {
        let mut routes = Value::from(self.object("route_config"));
        if routes.get("name").is_none() {
            routes["name"] = "corpus".into();
        }
        let names = self.filters(true).into_iter().filter_map(|filter| Some(filter.get("name")?.as_str()?.to_owned()));
        change(&mut routes, &names.collect());
        routes
    }

    fn filters(&self, server: bool) -> Vec<Value> {
        let all = self.list("http_filters").iter();
        all.filter(|filter| is_of_server(filter) == server).cloned().collect()
    }

    fn manager(&self, routes: &Value, server: bool) -> Value {
        let mut router = json!({"@type": ROUTER});
        if !server {
            merge(&mut router, self.object("router"));
        }
        let mut filters = self.filters(server);
        filters.push(json!({"name": "router", "typed_config": router}));
        let mut manager =
            json!({"@type": MANAGER, "stat_prefix": "corpus", "route_config": routes, "http_filters": filters});
        let fields = self.object("hcm").into_iter();
        merge(&mut manager, fields.filter(|(name, _)| SERVER_FIELDS.contains(&&**name) == server).collect());
        if let Some(Value::Object(mut options)) = self.0.get("hcm").and_then(|hcm| hcm.get(PROTOCOL_OPTIONS)).cloned() {
            // How headers are read from the wire is the server's; how long a stream may live, the client's.
            options.retain(|name, _| SERVER_OPTIONS.contains(&&**name) == server);
            manager[PROTOCOL_OPTIONS] = options.into();
        }
        manager
    }

    fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn object(&self, name: &str) -> Map<String, Value> {
        self.0.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }
}

fn server_name(address: SocketAddr) -> String {
    format!("grpc/server?xds.resource.listening_address={address}")
}

fn is_of_server(filter: &Value) -> bool {
    let kind = filter.pointer("/typed_config/@type").and_then(Value::as_str).unwrap_or_default();
    SERVER_FILTERS.iter().any(|package| kind.contains(package))
}

fn with_type(value: &Value, name: &str) -> Value {
    let mut value = value.clone();
    value["@type"] = name.into();
    value
}

fn merge(into: &mut Value, fields: Map<String, Value>) {
    for (name, value) in fields {
        into[name] = value;
    }
}

/// Leaves only the overrides of the filters `names`, or of all others.
fn keep_overrides(value: &mut Value, names: &BTreeSet<String>, keep: bool) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(overrides)) = fields.get_mut("typed_per_filter_config") {
                overrides.retain(|name, _| names.contains(name) == keep);
            }
            fields.values_mut().for_each(|field| keep_overrides(field, names, keep));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| keep_overrides(item, names, keep)),
        _ => {}
    }
}

/// Routes take what they took; what they do with it is the client's.
fn lead_to_the_application(routes: &mut Value) {
    const KEPT: [&str; 4] = ["name", "match", "metadata", "typed_per_filter_config"];
    const KEPT_OF_HOST: [&str; 4] = ["name", "domains", "routes", "typed_per_filter_config"];
    let hosts = routes.get_mut("virtual_hosts").and_then(Value::as_array_mut);
    for host in hosts.into_iter().flatten().filter_map(Value::as_object_mut) {
        host.retain(|name, _| KEPT_OF_HOST.contains(&&**name));
        let routes = host.get_mut("routes").and_then(Value::as_array_mut);
        for route in routes.into_iter().flatten().filter_map(Value::as_object_mut) {
            route.retain(|name, _| KEPT.contains(&&**name));
            route.insert("non_forwarding_action".to_owned(), json!({}));
        }
    }
}

/// The resource, if the library takes it.
fn checked(json: &Value, decoder: &Decoder) -> Result<EncodedResource, Refusal> {
    let resource = resource_from_json(json).map_err(|error| unread(&error))?;
    match decoder.decode(&resource.key.type_url, &resource.bytes) {
        Decoded::Ok { .. } => Ok(resource),
        Decoded::Err { faults, .. } => {
            let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let why = format!("{}: {}", resource.key, texts.join("; "));
            // A fault beside a gap may follow from it.
            Err(if texts.iter().any(|text| is_gap(text)) { Refusal::Unsupported(why) } else { Refusal::Rejected(why) })
        }
    }
}

/// Whether a fault is the library's gap, and not the configuration's. What says nothing is no gap: in JSON there is no saying
/// what is not known here. Nor is an expression that the compiler does not take.
fn is_gap(fault: &str) -> bool {
    let is_wrong = ["says nothing", "or says it in a way", "is not a regular expression"];
    let is_missing = ["not known here", "is not supported"];
    !is_wrong.iter().any(|words| fault.contains(words)) && is_missing.iter().any(|words| fault.contains(words))
}

fn unread(error: &Error) -> Refusal {
    let text = error.to_string();
    let gap = is_gap(&text) || text.contains("not a message known here");
    if gap { Refusal::Unsupported(text) } else { Refusal::Rejected(text) }
}
