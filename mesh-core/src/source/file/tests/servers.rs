//! The Listeners of the servers at a file's endpoints.

use http::HeaderMap;

use super::*;
use crate::model::{Action, Listener, ListenerKind, RouteSource, ServerListener};
use crate::policy::origin::client_address;
use crate::resource::LISTENER;

const ADDRESS: &str = "127.0.0.1:50051";

/// A Service at [`ADDRESS`] with a provider, and this document.
fn with(document: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{name: greeter}}, spec: {{ports: [{{port: 80, targetPort: 50051}}]}}}}
---
{{kind: EndpointSlice, metadata: {{name: greeter, labels: {{kubernetes.io/service-name: greeter}}}}, endpoints: [{{addresses: [127.0.0.1]}}]}}
---
certificate_providers: {{mesh: {{plugin_name: file_watcher, config: {{certificate_file: c, private_key_file: k, ca_certificate_file: r}}}}}}
---
{document}"
    )
}

fn policy(name: &str, roots: &str, options: &str) -> String {
    format!(
        "{{kind: BackendTLSPolicy, metadata: {{name: {name}}}, spec: {{targetRefs: [{{name: {name}}}],
          validation: {{hostname: greeter.example, {roots}}}{options}}}}}"
    )
}

const ROOTS: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: mesh}]";
const IDENTITY: &str = ", options: {mesh/identity: mesh}";

fn servers(yaml: &str) -> Vec<(String, Arc<ServerListener>)> {
    let config = load(yaml, "f").unwrap();
    let listeners = config.resources.iter().filter(|resource| &*resource.key.type_url == LISTENER);
    let decoded = listeners.map(|resource| value::<Listener>(&config, LISTENER, &resource.key.name));
    decoded
        .filter_map(|listener| match &listener.kind {
            ListenerKind::Server(server) => Some((listener.name.to_string(), server.clone())),
            ListenerKind::Client(_) => None,
        })
        .collect()
}

#[test]
fn every_address_of_an_endpoint_may_be_served() {
    let all = servers(
        "{kind: Service, metadata: {name: greeter}, spec: {ports: [{name: a, port: 80}, {name: b, port: 81, targetPort: web}]}}
---
{kind: EndpointSlice, metadata: {name: one, labels: {kubernetes.io/service-name: greeter}}, ports: [{name: a, port: 7000}],
 endpoints: [{addresses: ['::1', 127.0.0.1]}, {addresses: [127.0.0.2], conditions: {ready: false}}]}
---
{kind: EndpointSlice, metadata: {name: two, labels: {kubernetes.io/service-name: greeter}}, endpoints: [{addresses: [127.0.0.3]}]}",
    );
    let names: Vec<&str> =
        all.iter().filter_map(|(name, _)| name.rsplit_once('=')).map(|(_, address)| address).collect();
    assert_eq!(names, ["127.0.0.1:7000", "127.0.0.2:7000", "127.0.0.3:80", "[::1]:7000"]);
    for (name, server) in &all {
        assert_eq!(*name, format!("grpc/server?xds.resource.listening_address={}", server.address));
        let [chain] = &*server.chains else { panic!("{server:?}") };
        assert!(chain.tls.is_none() && server.default_chain.is_none());
        assert_eq!(chain.http.upgrades.join(" "), "websocket");
        assert!(chain.http.normalize_path, "one spelling of each path, as in Istio");
        let claims =
            HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), "10.1.1.1, 10.2.2.2".parse().unwrap())]);
        let peer = "192.0.2.9".parse().unwrap();
        assert_eq!(client_address(&chain.http.origin, &claims, peer), peer, "nobody says itself where it is");
        let RouteSource::Inline(table) = &chain.http.routes else { panic!("{chain:?}") };
        assert_eq!(table.virtual_hosts.len(), 1);
        let [route] = &*table.virtual_hosts[0].routes else { panic!("{table:?}") };
        assert!(matches!(route.action, Action::NonForwarding), "{route:?}");
    }
}

#[test]
fn a_policy_with_an_identity_makes_it_mutual_tls() {
    let all = servers(&with(&policy("greeter", ROOTS, IDENTITY)));
    let [(_, server)] = &*all else { panic!("{all:?}") };
    let tls = server.chains[0].tls.as_ref().unwrap();
    let Some(crate::model::TrustRoots::Provider(roots)) = &tls.client_roots else { panic!("{tls:?}") };
    assert_eq!((&*tls.identity.instance, &*roots.instance), ("mesh", "mesh"));
    assert!(tls.require_client_certificate);
    assert_eq!(server.address, ADDRESS.parse().unwrap());
}

/// STRICT is what is meant where nothing is said.
#[test]
fn a_permissive_server_takes_plaintext_too() {
    let mode = |mode: &str| format!(", options: {{mesh/identity: mesh, mesh/mode: {mode}}}");
    let all = servers(&with(&policy("greeter", ROOTS, &mode("PERMISSIVE"))));
    let [(_, server)] = &*all else { panic!("{all:?}") };
    assert!(server.inspection.as_ref().is_some_and(|inspection| inspection.tls), "the first bytes tell");
    let chains: Vec<_> =
        server.chains.iter().map(|chain| (&*chain.matches.transport_protocol, chain.tls.is_some())).collect();
    assert_eq!(chains, [("tls", true), ("raw_buffer", false)]);
    let tls = server.chains[0].tls.as_ref().unwrap();
    assert!(tls.require_client_certificate, "who speaks TLS shows who it is");
    let strict = servers(&with(&policy("greeter", ROOTS, &mode("STRICT"))));
    let [(_, server)] = &*strict else { panic!("{strict:?}") };
    assert_eq!((server.chains.len(), server.chains[0].tls.is_some()), (1, true));
    let wrong = load(&with(&policy("greeter", ROOTS, &mode("permissive"))), "f").unwrap_err();
    assert!(wrong.to_string().contains("must be STRICT or PERMISSIVE"), "{wrong}");
}

#[test]
fn a_policy_that_does_not_say_what_a_server_shows_makes_none() {
    assert!(servers(&with(&policy("greeter", ROOTS, ""))).is_empty());
    assert!(servers(&with(&policy("greeter", "wellKnownCACertificates: System", IDENTITY))).is_empty());
}

#[test]
fn services_that_do_not_agree_make_none() {
    let other = "{kind: Service, metadata: {name: other}, spec: {ports: [{port: 50051}]}}
---
{kind: EndpointSlice, metadata: {name: other, labels: {kubernetes.io/service-name: other}}, endpoints: [{addresses: [127.0.0.1]}]}";
    assert_eq!(servers(&with(other)).len(), 1, "both are plaintext");
    assert!(servers(&with(&format!("{other}\n---\n{}", policy("greeter", ROOTS, IDENTITY)))).is_empty());
}

#[test]
fn a_listener_of_the_file_goes_first() {
    let own = format!(
        "\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener
name: grpc/server?xds.resource.listening_address={ADDRESS}
address: {{socket_address: {{address: 127.0.0.1, port_value: 50051}}}}
filter_chains:
- name: mine
  filters:
  - name: http
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      route_config: {{virtual_hosts: [{{name: a, domains: ['*'], routes: [{{match: {{prefix: /}}, non_forwarding_action: {{}}}}]}}]}}
      http_filters: [{{name: r, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
"
    );
    let all = servers(&with(&own));
    assert_eq!(all.iter().map(|(_, server)| &*server.chains[0].name).collect::<Vec<_>>(), ["mine"]);
}
