//! What is refused: each with file, line and reason.

use super::*;
use crate::error::Code;

#[track_caller]
fn refused(yaml: &str, line: u64, expected: &str) {
    let error = load(yaml, "mesh.yaml").unwrap_err();
    assert_eq!(error.code(), Code::BAD_FILE);
    let text = error.message();
    let place = if line == 0 { "mesh.yaml: ".to_owned() } else { format!("mesh.yaml:{line}: ") };
    assert!(text.starts_with(&place) && text.contains(expected), "{text}, and not {place}... {expected}");
}

#[test]
fn documents_that_are_none_of_ours() {
    refused("", 0, "no documents");
    refused("# nothing\n---\n", 0, "no documents");
    refused("a: [\n", 1, "");
    refused("- a\n", 1, "must be an object");
    refused("a: 1\n", 1, "kind: is missing");
    refused(
        "\n\nkind: Pod\n",
        3,
        "kind: is `Pod`; the kinds are Service, EndpointSlice, HTTPRoute, GRPCRoute, BackendTLSPolicy",
    );
    refused("kind: Service\napiVersion: v2\n", 2, "apiVersion: is `v2`, and must be v1");
    refused("kind: Service\nmetadata: {namespace: a}\n", 2, "metadata.name: is missing");
    refused("kind: Service\nmetadata:\n  name: a.b\n", 3, "no dots");
    refused(&SERVICES.replace("v2", "v1"), 6, "twice");
    refused(
        "certificate_providers: {a: {plugin_name: file_watcher}}\n",
        1,
        "certificate_providers.a.config: is missing",
    );
}

#[test]
fn fields_that_would_change_traffic() {
    let service =
        |spec: &str| format!("kind: Service\nmetadata: {{name: a}}\nspec:\n  ports: [{{port: 1}}]\n  {spec}\n");
    for (spec, expected) in [
        ("sessionAffinity: ClientIP", "spec.sessionAffinity: is `ClientIP`"),
        ("internalTrafficPolicy: Local", "spec.internalTrafficPolicy: is `Local`"),
        ("type: ExternalName", "spec.type: is `ExternalName`"),
        ("trafficDistribution: PreferClose", "spec.trafficDistribution: is not supported"),
    ] {
        refused(&service(spec), 5, expected);
    }
    assert!(load(&service("clusterIP: None"), "f").is_ok());
    refused("kind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 70000\n", 5, "spec.ports[0].port: must be");
    refused("kind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 1\n    protocol: UDP\n", 6, "is `UDP`");
    refused(
        "kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1, appProtocol: https}]}\n",
        3,
        "no BackendTLSPolicy",
    );
    let slice = "kind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: echo}}\n";
    refused(&format!("{SERVICES}{slice}endpoints:\n- addresses: [host]\n"), 11, "endpoints[0].addresses: has \"host\"");
    refused(
        &format!("{SERVICES}{slice}endpoints:\n- hints: {{forZones: [a]}}\n"),
        11,
        "endpoints[0].hints: is not supported",
    );
    refused(&format!("{SERVICES}{}", slice.replace("echo", "gone")), 9, "Service default/gone is not in the file");
    refused(&format!("{SERVICES}kind: EndpointSlice\nmetadata: {{name: a}}\n"), 9, "metadata.labels: must have");
}

fn route(parents: &str, rule: &str) -> String {
    format!(
        "{SERVICES}kind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs: [{parents}]\n  rules:\n  - backendRefs: [{{name: v1, port: 80}}]\n    {rule}\n"
    )
}

#[test]
fn routes_that_cannot_be_honoured() {
    let echo = "{kind: Service, name: echo}";
    for (rule, expected) in [
        (
            "sessionPersistence: {type: Cookie}",
            "HTTPRoute default/r: spec.rules[0].sessionPersistence: is not supported",
        ),
        ("timeouts: {request: 1}", "timeouts.request: must be a string"),
        ("timeouts: {request: 1s, backendRequest: 2s}", "timeouts.backendRequest: is more than request"),
        ("matches: [{path: {type: Glob, value: /x}}]", "matches[0].path.type: is `Glob`"),
        ("matches: [{path: {type: Exact, value: x}}]", "matches[0].path.value: is \"x\""),
        ("matches: [{method: get}]", "matches[0].method: is `get`"),
        ("matches: [{headers: [{name: A, value: '1'}, {name: a, value: '2'}]}]", "another entry has already"),
        ("filters: [{type: ExtensionRef}]", "filters[0].type: is `ExtensionRef`"),
        ("filters: [{type: CORS}]", "filters[0].type: is `CORS`"),
        ("filters: [{type: RequestMirror}]", "filters[0].requestMirror: is missing"),
        ("retry: {codes: [200]}", "retry.codes: must be statuses"),
    ] {
        refused(&route(echo, rule), 14, expected);
    }
    let rewrite =
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}}}]";
    let exact = "matches: [{path: {type: Exact, value: /x}}]";
    refused(&route(echo, &format!("{exact}\n    {rewrite}")), 15, "every match of the rule must be a PathPrefix");
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {}}]";
    refused(&route(echo, redirect), 13, "backendRefs: is given together with a RequestRedirect");
    refused(&route("{kind: Gateway, name: g}", ""), 11, "spec.parentRefs[0].kind: must be Service");
    refused(&route("{kind: Service, name: gone}", ""), 11, "Service default/gone is not in the file");
    refused(&route("{kind: Service, name: echo, port: 81}", ""), 11, "has no port `81`");
    refused(&route("{kind: Service, name: echo, namespace: other}", ""), 11, "must be in its Service's namespace");
    refused(&route(echo, "").replace("spec:\n", "spec:\n  hostnames: [a]\n"), 11, "hostnames: has no meaning");
    refused(
        &format!("{}---\n{}", route(echo, ""), route(echo, "").trim_start_matches(SERVICES).replace("HTTP", "GRPC")),
        19,
        "both HTTPRoutes and GRPCRoutes",
    );
}

#[test]
fn tls_policies_that_would_trust_the_wrong_one() {
    let policy = |spec: &str| format!("{SERVICES}kind: BackendTLSPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n");
    let target = "targetRefs: [{kind: Service, name: echo}]";
    for (spec, expected) in [
        ("validation: {}", "spec.targetRefs: is empty"),
        (
            &*format!("{target}, validation: {{wellKnownCACertificates: System}}"),
            "spec.validation.hostname: is missing",
        ),
        (&*format!("{target}, validation: {{hostname: a}}"), "caCertificateRefs: has 0 entries"),
        (&*format!("{target}, validation: {{hostname: a, wellKnownCACertificates: Mine}}"), "is `Mine`"),
        (
            &*format!(
                "{target}, validation: {{hostname: a, caCertificateRefs: [{{group: '', kind: Secret, name: a}}]}}"
            ),
            "must be ConfigMap",
        ),
        (
            &*format!("{target}, validation: {{hostname: a, wellKnownCACertificates: System}}, options: {{x: y}}"),
            "spec.options.x",
        ),
        (
            &*format!(
                "{}, validation: {{hostname: a, wellKnownCACertificates: System}}",
                target.replace("echo", "gone")
            ),
            "gone",
        ),
        (
            &*format!(
                "{}, validation: {{hostname: a, wellKnownCACertificates: System}}",
                target.replace("echo", "echo, sectionName: x")
            ),
            "no port of the name `x`",
        ),
    ] {
        refused(&policy(spec), 10, expected);
    }
    let good = policy(&format!("{target}, validation: {{hostname: a, wellKnownCACertificates: System}}"));
    let again = good.trim_start_matches(SERVICES).replace("name: p}", "name: q}");
    refused(&format!("{good}---\n{again}"), 14, "has the policy `p` already");
}

#[test]
fn xds_resources_are_refused_at_the_field() {
    let text = "'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: a\ncircuitBreakers:\n  thresholds:\n  - maxRequests: many\n";
    refused(text, 5, "Cluster `a`: circuitBreakers.thresholds[0].maxRequests: cannot be read");
    refused("'@type': type.googleapis.com/a.B\n", 1, "@type: is `a.B`");
}

fn open(yaml: &str) -> Result<FileSource, Error> {
    let folder = super::watching::Folder::new();
    let path = folder.write("mesh.yaml", yaml);
    FileSource::open(path)
}

#[test]
fn what_the_decoder_refuses_is_refused_when_the_file_is_opened() {
    let text = "---\n'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: a\ntype: EDS\neds_cluster_config:\n  eds_config:\n    path: x\n";
    assert!(load(text, "f").is_ok());
    let error = open(text).unwrap_err();
    assert!(
        error.message().contains("mesh.yaml:7: Cluster `a`: eds_cluster_config.eds_config: must be `ads`"),
        "{error}"
    );

    let regex = route("{kind: Service, name: echo}", "matches: [{path: {type: RegularExpression, value: '('}}]");
    let error = open(&regex).unwrap_err();
    assert!(error.message().contains("mesh.yaml:8: HTTPRoute default/r: its RouteConfiguration"), "{error}");

    let policy = "targetRefs: [{kind: Service, name: echo}], validation: {hostname: a, caCertificateRefs: [{kind: ConfigMap, name: nobody}]}";
    let error =
        open(&format!("{SERVICES}{{kind: BackendTLSPolicy, metadata: {{name: p}}, spec: {{{policy}}}}}")).unwrap_err();
    assert!(
        error.message().contains("mesh.yaml:8: BackendTLSPolicy default/p") && error.message().contains("`nobody`"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = FileSource::open("nowhere/mesh.yaml").unwrap_err();
    assert!(
        error.code() == Code::BAD_FILE && error.message().starts_with("nowhere/mesh.yaml: cannot be read"),
        "{error}"
    );
}
