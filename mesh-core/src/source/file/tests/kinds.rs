//! Services, slices, TLS policies, certificate providers, and xDS resources.

use std::path::Path;

use super::*;
use crate::bootstrap::{CertificateProvider, ListenerNames};
use crate::model::matcher::Pattern;
use crate::model::{DiscoveryKind, HttpProtocol, SanKind, TrustRoots};
use crate::resource::LISTENER;
use crate::target::Target;

const GREETER: &str = "outbound|50051||greeter.shop.svc.cluster.local";

fn listeners(config: &FileConfig) -> Vec<&str> {
    let listeners = config.resources.iter().filter(|resource| &*resource.key.type_url == LISTENER);
    listeners.map(|resource| &*resource.key.name).collect()
}

#[test]
fn every_name_of_a_service_is_a_target() {
    let config = load(SERVICES, "f").unwrap();
    let names = ListenerNames::local();
    for target in [
        "xds:///echo",
        "xds:///echo:80",
        "echo",
        "Echo:80",
        "http://echo.default/x",
        "echo.default.svc",
        "echo.default.svc.cluster.local.",
    ] {
        let name = Target::parse(target).unwrap().listener_name(&names).unwrap();
        assert!(listeners(&config).contains(&&*name), "{target} is {name}");
    }
    let other = "{kind: Service, metadata: {name: greeter, namespace: shop}, spec: {ports: [{port: 50051}, {name: b, port: 1}]}}";
    assert_eq!(
        listeners(&load(other, "f").unwrap()),
        [
            "greeter.shop.svc.cluster.local:1",
            "greeter.shop.svc.cluster.local:50051",
            "greeter.shop.svc:1",
            "greeter.shop.svc:50051",
            "greeter.shop:1",
            "greeter.shop:50051",
        ]
    );
}

#[test]
fn a_slice_gives_the_endpoints_that_are_ready_by_zone() {
    let config = load(
        "{kind: Service, metadata: {name: greeter, namespace: shop}, spec: {ports: [{name: grpc, port: 50051, targetPort: 9}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: a, namespace: shop, labels: {kubernetes.io/service-name: greeter}},
 ports: [{name: grpc, port: 7000}, {name: other, port: 7001}],
 endpoints: [{addresses: [127.0.0.1], zone: x}, {addresses: [127.0.0.2], zone: x, conditions: {ready: true}},
             {addresses: [127.0.0.3], zone: y}, {addresses: [127.0.0.4], conditions: {ready: false}}]}
---
{kind: EndpointSlice, metadata: {name: b, namespace: shop, labels: {kubernetes.io/service-name: greeter}},
 addressType: IPv6, endpoints: [{addresses: ['::1']}, {addresses: [127.0.0.1], zone: x}]}
---
{kind: EndpointSlice, metadata: {name: c, namespace: shop, labels: {kubernetes.io/service-name: greeter}},
 ports: [{name: other, port: 1}], endpoints: [{addresses: [127.0.0.9]}]}",
        "f",
    )
    .unwrap();
    let found = endpoints(&config, GREETER);
    let zones: Vec<(&str, u32, Vec<String>)> = found
        .localities
        .iter()
        .map(|zone| {
            let addresses = zone.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            (&*zone.locality.zone, zone.weight, addresses)
        })
        .collect();
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        zones,
        [
            ("", 1, owned(&["[::1]:9"])),
            ("x", 3, owned(&["127.0.0.1:7000", "127.0.0.2:7000", "127.0.0.1:9"])),
            ("y", 1, owned(&["127.0.0.3:7000"])),
        ]
    );
}

#[test]
fn a_service_without_a_slice_has_no_endpoints() {
    let config = load(SERVICES, "f").unwrap();
    let name = "outbound|80||echo.default.svc.cluster.local";
    assert!(endpoints(&config, name).is_empty());
    let DiscoveryKind::Eds { .. } = &cluster(&config, name).discovery else { panic!() };
}

#[test]
fn the_protocol_follows_app_protocol() {
    for (protocol, expected) in [
        ("", HttpProtocol::Default),
        (", appProtocol: http", HttpProtocol::Default),
        (", appProtocol: grpc", HttpProtocol::Http2),
        (", appProtocol: kubernetes.io/h2c", HttpProtocol::Http2),
    ] {
        let yaml = format!(
            "{{kind: Service, metadata: {{name: greeter, namespace: shop}}, spec: {{ports: [{{port: 50051{protocol}}}]}}}}"
        );
        assert_eq!(cluster(&load(&yaml, "f").unwrap(), GREETER).protocol, expected, "{protocol}");
    }
}

/// A Service with two ports, a provider, and a policy with this `spec`.
fn secured(spec: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{name: greeter, namespace: shop}}, spec: {{ports: [
            {{name: grpc, port: 50051, appProtocol: https}}, {{name: web, port: 80}}]}}}}
---
{{kind: BackendTLSPolicy, metadata: {{name: tls, namespace: shop}}, spec: {spec}}}
---
certificate_providers:
  mesh:
    plugin_name: file_watcher
    config: {{certificate_file: certs/cert.pem, private_key_file: /abs/key.pem, ca_certificate_file: roots.pem}}
"
    )
}

const ROOTS: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: mesh}]";
const TARGET: &str = "targetRefs: [{group: '', kind: Service, name: greeter}]";

#[test]
fn a_tls_policy_says_whom_to_trust_and_what_to_show() {
    let uri = "subjectAltNames: [{type: URI, uri: 'spiffe://mesh/ns/shop/sa/greeter'}]";
    let yaml = secured(&format!(
        "{{{TARGET}, validation: {{hostname: greeter.example, {ROOTS}, {uri}}}, options: {{mesh/identity: mesh}}}}"
    ));
    let tls = cluster(&load(&yaml, "f").unwrap(), GREETER).tls.clone().unwrap();
    assert_eq!(tls.sni.as_deref(), Some("greeter.example"));
    assert_eq!(&*tls.identity.as_ref().unwrap().instance, "mesh");
    let TrustRoots::Provider(roots) = &tls.roots else { panic!("{tls:?}") };
    assert_eq!((&*roots.instance, tls.sans.len(), tls.sans[0].kind.clone()), ("mesh", 1, Some(SanKind::Uri)));
    assert_eq!(tls.sans[0].matcher.pattern, Pattern::Exact("spiffe://mesh/ns/shop/sa/greeter".to_owned()));
}

#[test]
fn without_names_the_certificate_must_be_for_the_host() {
    let yaml =
        secured(&format!("{{{TARGET}, validation: {{hostname: greeter.example, wellKnownCACertificates: System}}}}"));
    let tls = cluster(&load(&yaml, "f").unwrap(), GREETER).tls.clone().unwrap();
    assert!(matches!(tls.roots, TrustRoots::System) && tls.identity.is_none());
    assert_eq!((tls.sans.len(), tls.sans[0].kind.clone()), (1, Some(SanKind::Dns)));
    assert_eq!(tls.sans[0].matcher.pattern, Pattern::Exact("greeter.example".to_owned()));
}

#[test]
fn a_policy_for_a_port_leaves_the_others_alone() {
    let target = TARGET.replace("name: greeter", "name: greeter, sectionName: grpc");
    let yaml = secured(&format!("{{{target}, validation: {{hostname: greeter.example, {ROOTS}}}}}"));
    let config = load(&yaml, "f").unwrap();
    assert!(cluster(&config, GREETER).tls.is_some());
    assert!(cluster(&config, "outbound|80||greeter.shop.svc.cluster.local").tls.is_none());
}

#[test]
fn paths_of_certificates_start_at_the_files_folder() {
    let yaml = secured(&format!("{{{TARGET}, validation: {{hostname: a, {ROOTS}}}}}"));
    let config = load(&yaml, "/etc/mesh/mesh.yaml").unwrap();
    let CertificateProvider::FileWatcher(files) = &config.certificate_providers["mesh"] else { panic!() };
    let identity = files.identity.as_ref().unwrap();
    assert_eq!(identity.certificate_file, Path::new("/etc/mesh/certs/cert.pem"));
    assert_eq!(identity.private_key_file, Path::new("/abs/key.pem"));
    assert_eq!(files.ca_certificate_file.as_deref(), Some(Path::new("/etc/mesh/roots.pem")));
}

#[test]
fn an_xds_resource_is_taken_as_it_is_and_in_the_place_of_a_made_one() {
    let name = "outbound|80||echo.default.svc.cluster.local";
    let yaml = format!(
        "{SERVICES}\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: {name}
type: EDS
edsClusterConfig: {{edsConfig: {{ads: {{}}}}}}
circuit_breakers: {{thresholds: [{{max_requests: 7}}]}}
"
    );
    assert_eq!(cluster(&load(&yaml, "f").unwrap(), name).circuit_breakers.max_requests, 7);
}
