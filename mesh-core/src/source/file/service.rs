//! `Service` and `EndpointSlice`: what can be called, and where it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::object::{Meta, ServiceName, must_be, port};
use crate::bootstrap::json::Object;
use crate::decode::Fault;

/// Fields of a Service that say nothing about how a client in the mesh calls it.
const UNRELATED: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "selector",
];

const SERVICE_FIELDS: &[&str] = &["ports", "type", "sessionAffinity", "internalTrafficPolicy"];

/// Which of a Service's slices an EndpointSlice is.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A Service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: ServiceName,
    pub(super) ports: Vec<Port>,
}

/// One of its ports.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) number: u16,
    /// The number of `targetPort`; by default the port itself. None for a port by name: only a slice can say which it is.
    target: Option<u16>,
    http2: bool,
    /// Its servers speak TLS, so that a policy has to say whom to trust.
    pub(super) tls: bool,
}

impl Service {
    pub(super) fn read(document: &Object<'_>) -> Result<Self, Fault> {
        let name = ServiceName::of(document)?;
        let ports = document.object("spec", |spec| {
            spec.only(&[SERVICE_FIELDS, UNRELATED].concat())?;
            must_be(spec, "type", &["ClusterIP", "NodePort", "LoadBalancer"])?;
            must_be(spec, "sessionAffinity", &["None"])?;
            must_be(spec, "internalTrafficPolicy", &["Cluster"])?;
            let ports = spec.objects("ports", Port::read)?.unwrap_or_default();
            if ports.is_empty() {
                return Err(spec.fault("ports", "is empty; give each port that clients call"));
            }
            unique(spec, &ports)?;
            Ok(ports)
        })?;
        Ok(Self { name, ports: ports.ok_or_else(|| document.fault("spec", "is missing"))? })
    }

    pub(super) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port that a name without one means: 80, or the only one.
    pub(super) fn default_port(&self) -> Option<&Port> {
        match self.ports.as_slice() {
            [only] => Some(only),
            _ => self.port(80),
        }
    }
}

/// Each port needs a name of its own, and a number.
fn unique(spec: &Object<'_>, ports: &[Port]) -> Result<(), Fault> {
    for (index, port) in ports.iter().enumerate() {
        let before = &ports[..index];
        if let Some(other) = before.iter().find(|other| other.number == port.number || other.name == port.name) {
            let rule = format!("has port {} twice, or two ports of the name `{}`", other.number, port.name);
            return Err(spec.fault("ports", rule));
        }
    }
    Ok(())
}

impl Port {
    fn read(port_object: &Object<'_>) -> Result<Self, Fault> {
        port_object.only(&["name", "port", "targetPort", "protocol", "appProtocol", "nodePort"])?;
        must_be(port_object, "protocol", &["TCP"])?;
        let number = port(port_object, "port")?.ok_or_else(|| port_object.fault("port", "is missing"))?;
        let target = match port_object.get("targetPort") {
            Some(Value::String(_)) => None,
            _ => Some(port(port_object, "targetPort")?.unwrap_or(number)),
        };
        must_be(port_object, "appProtocol", &["kubernetes.io/h2c", "grpc", "http", "https"])?;
        let protocol = port_object.string("appProtocol")?;
        let http2 = matches!(protocol, Some("kubernetes.io/h2c" | "grpc"));
        let name = port_object.string("name")?.unwrap_or_default().to_owned();
        Ok(Self { name, number, target, http2, tls: protocol == Some("https") })
    }
}

/// An EndpointSlice.
#[derive(Debug)]
pub(super) struct EndpointSlice {
    pub(super) service: ServiceName,
    /// Numbers by name; None: the ports are the Service's own `targetPort`s.
    ports: Option<BTreeMap<String, u16>>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    addresses: Vec<IpAddr>,
    zone: String,
    ready: bool,
}

impl EndpointSlice {
    /// Its fields are at the document's top, not in a `spec`.
    pub(super) fn read(document: &Object<'_>) -> Result<Self, Fault> {
        let meta = Meta::of(document)?;
        document.only(&["apiVersion", "kind", "metadata", "addressType", "ports", "endpoints"])?;
        must_be(document, "addressType", &["IPv4", "IPv6"])?;
        let name = document.object("metadata", |metadata| {
            metadata.object("labels", |labels| labels.required(SERVICE_LABEL).map(str::to_owned)).and_then(|name| {
                name.ok_or_else(|| metadata.fault("labels", format!("must have `{SERVICE_LABEL}`, the Service's name")))
            })
        })?;
        let ports = document.objects("ports", |object| {
            object.only(&["name", "port", "protocol", "appProtocol"])?;
            must_be(object, "protocol", &["TCP"])?;
            let number = port(object, "port")?.ok_or_else(|| object.fault("port", "is missing"))?;
            Ok((object.string("name")?.unwrap_or_default().to_owned(), number))
        })?;
        Ok(Self {
            service: ServiceName { namespace: meta.namespace, name: name.unwrap_or_default() },
            ports: ports.map(|ports| ports.into_iter().collect()),
            endpoints: document.objects("endpoints", Endpoint::read)?.unwrap_or_default(),
        })
    }

    /// Every address at which servers of `port` run, those that are not ready included: they serve while they end.
    pub(super) fn addresses(&self, port: &Port) -> impl Iterator<Item = SocketAddr> {
        let number = self.port(port);
        let all = self.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        all.filter_map(move |address| Some(SocketAddr::new(*address, number?)))
    }

    fn port(&self, port: &Port) -> Option<u16> {
        self.ports.as_ref().map_or(port.target, |ports| ports.get(&port.name).copied())
    }
}

impl Endpoint {
    fn read(object: &Object<'_>) -> Result<Self, Fault> {
        // The node and the object behind it say nothing about traffic; `hints` would.
        object.only(&["addresses", "conditions", "zone", "hostname", "nodeName", "targetRef", "deprecatedTopology"])?;
        let mut addresses = Vec::new();
        for value in object.array("addresses")?.unwrap_or_default() {
            let address = value.as_str().and_then(|text| text.parse().ok());
            addresses.push(
                address.ok_or_else(|| object.fault("addresses", format!("has {value}, which is no IP address")))?,
            );
        }
        // Absent means unknown, which counts as ready.
        let ready = object.object("conditions", |conditions| {
            conditions.only(&["ready", "serving", "terminating"])?;
            Ok(conditions.get("ready").is_none() || conditions.bool("ready")?)
        })?;
        let zone = object.string("zone")?.unwrap_or_default().to_owned();
        Ok(Self { addresses, zone, ready: ready.unwrap_or(true) })
    }
}

/// The cluster of a port. `socket` is the transport socket, if it is to have one.
pub(super) fn cluster(service: &ServiceName, port: &Port, socket: Option<Value>) -> Value {
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": service.cluster(port.number),
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    });
    if port.http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    if let Some(socket) = socket {
        cluster["transport_socket"] = socket;
    }
    cluster
}

/// The endpoints of a port: those of all slices that are ready, by zone. A zone's weight is the number of its endpoints, so
/// that each of them gets the same share.
pub(super) fn endpoints<'a>(
    service: &ServiceName,
    port: &Port,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Value {
    let mut zones: BTreeMap<&str, Vec<(IpAddr, u16)>> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for slice in slices {
        let Some(number) = slice.port(port) else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            // The addresses of one endpoint are the same server: the first is as good as any. One endpoint may be in two
            // slices while Kubernetes moves it.
            let address = endpoint.addresses.first().filter(|address| seen.insert((**address, number)));
            zones.entry(&endpoint.zone).or_default().extend(address.map(|address| (*address, number)));
        }
    }
    zones.retain(|_, addresses| !addresses.is_empty());
    let locality = |(zone, addresses): (&str, Vec<(IpAddr, u16)>)| {
        json!({
            "locality": {"zone": zone},
            "load_balancing_weight": addresses.len(),
            "lb_endpoints": addresses.into_iter().map(endpoint).collect::<Vec<_>>(),
        })
    };
    json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": service.cluster(port.number),
        "endpoints": zones.into_iter().map(locality).collect::<Vec<_>>(),
    })
}

fn endpoint((address, port): (IpAddr, u16)) -> Value {
    json!({"endpoint": {"address": {"socket_address": {"address": address.to_string(), "port_value": port}}}})
}

/// The Listener of one name of a port, for clients.
pub(super) fn listener(name: &str, routes: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "api_listener": {"api_listener": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": routes,
            "rds": {"config_source": {"ads": {}, "resource_api_version": "V3"}, "route_config_name": routes},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        }},
    })
}
