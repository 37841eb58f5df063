//! Each field of `spec` section 2.15, taken and refused.

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

/// A minimal bootstrap, changed by `change`.
fn with(change: impl FnOnce(&mut Value)) -> Result<Bootstrap, Error> {
    let mut json = json!({"xds_servers": [{"server_uri": "xds:1", "channel_creds": [{"type": "insecure"}]}]});
    change(&mut json);
    Bootstrap::from_json(&json.to_string())
}

#[track_caller]
fn refused(names: &str, change: impl FnOnce(&mut Value)) {
    let error = with(change).expect_err("must be refused");
    assert_eq!(error.code(), Code::BAD_BOOTSTRAP);
    assert!(error.message().contains(&format!("{names}: ")), "`{names}` is not named by: {error}");
}

fn server(change: impl FnOnce(&mut Value)) -> Result<ServerConfig, Error> {
    with(|json| change(&mut json["xds_servers"][0])).map(|bootstrap| bootstrap.servers[0].clone())
}

#[test]
fn xds_servers_must_be_there_and_keep_their_order() {
    for missing in [json!({}), json!({"xds_servers": []}), json!({"xds_servers": null}), json!({"xds_servers": {}})] {
        refused("xds_servers", |json| *json = missing);
    }
    let second = json!({"server_uri": "two", "channel_creds": [{"type": "insecure"}]});
    let bootstrap = with(|json| json["xds_servers"].as_array_mut().unwrap().push(second)).unwrap();
    let uris: Vec<_> = bootstrap.servers.iter().map(|server| &*server.uri).collect();
    assert_eq!(uris, ["xds:1", "two"]);
}

#[test]
fn server_uri_must_be_a_string_that_is_not_empty() {
    refused("xds_servers[0].server_uri", |json| json["xds_servers"][0]["server_uri"] = json!(""));
    refused("xds_servers[0].server_uri", |json| json["xds_servers"][0]["server_uri"] = json!(null));
    refused("xds_servers[0].server_uri", |json| json["xds_servers"][0]["server_uri"] = json!(7));
}

#[test]
fn the_first_channel_creds_that_we_support_are_used() {
    const FIELD: &str = "xds_servers[0].channel_creds";
    for bad in [json!(null), json!([]), json!([{"type": "google_default"}, {"type": "unheard_of"}])] {
        refused(FIELD, |json| json["xds_servers"][0]["channel_creds"] = bad);
    }
    refused("xds_servers[0].channel_creds[0].type", |json| json["xds_servers"][0]["channel_creds"] = json!([{}]));
    let chosen = |creds: Value| server(|server| server["channel_creds"] = creds).unwrap().credentials;
    assert_eq!(
        chosen(json!([{"type": "google_default"}, {"type": "insecure"}, {"type": "tls"}])),
        ChannelCredentials::Insecure
    );
    assert_eq!(chosen(json!([{"type": "tls"}, {"type": "insecure"}])), ChannelCredentials::Tls(TlsFiles::default()));
    let later_is_bad = json!([{"type": "insecure"}, {"type": "tls", "config": {"certificate_file": "only"}}]);
    assert_eq!(chosen(later_is_bad), ChannelCredentials::Insecure, "only the chosen one's config is read");
}

#[test]
fn a65_tls_channel_creds_name_files() {
    let config = json!({"ca_certificate_file": "ca", "certificate_file": "cert", "private_key_file": "key",
        "refresh_interval": "1.5s", "spiffe_trust_bundle_map_file": "map", "unknown": 1});
    let tls = |config: Value| server(|server| server["channel_creds"] = json!([{"type": "tls", "config": config}]));
    let expected = TlsFiles {
        ca_certificate_file: Some("ca".into()),
        identity: Some(IdentityFiles { certificate_file: "cert".into(), private_key_file: "key".into() }),
        spiffe_trust_bundle_map_file: Some("map".into()),
        refresh_interval: Duration::from_millis(1500),
    };
    assert_eq!(tls(config).unwrap().credentials, ChannelCredentials::Tls(expected));
    assert_eq!(TlsFiles::default().refresh_interval, Duration::from_secs(600));
    for (field, bad) in [
        ("private_key_file", json!({"certificate_file": "cert"})),
        ("certificate_file", json!({"private_key_file": "key"})),
        ("refresh_interval", json!({"refresh_interval": "10 minutes"})),
        ("refresh_interval", json!({"refresh_interval": "0s"})),
        ("ca_certificate_file", json!({"ca_certificate_file": 1})),
    ] {
        let error = tls(bad).unwrap_err();
        assert!(error.message().contains(&format!("xds_servers[0].channel_creds[0].config.{field}: ")), "{error}");
    }
}

#[test]
fn a97_all_call_creds_that_we_support_are_used() {
    let creds = json!([{"type": "unheard_of"}, {"type": "jwt_token_file", "config": {"jwt_token_file": "/token"}}]);
    let server = server(|server| server["call_creds"] = creds).unwrap();
    assert_eq!(server.call_credentials, [CallCredentials::JwtTokenFile("/token".into())]);
    for config in [json!({}), json!(null), json!({"jwt_token_file": ""})] {
        refused("xds_servers[0].call_creds[0].config.jwt_token_file", |json| {
            json["xds_servers"][0]["call_creds"] = json!([{"type": "jwt_token_file", "config": config}]);
        });
    }
}

/// gRFC A30.
#[test]
fn server_features_that_we_do_not_know_are_ignored() {
    let features = |list: Value| server(|server| server["server_features"] = list).unwrap().features;
    assert_eq!(features(json!(["xds_v3", 1, null, {"a": []}, "unheard_of"])), ServerFeatures::default());
    let all = json!([
        "ignore_resource_deletion",
        "trusted_xds_server",
        "fail_on_data_errors",
        "resource_timer_is_transient_error",
        "delta_grpc"
    ]);
    let expected = ServerFeatures {
        ignore_resource_deletion: true,
        trusted_xds_server: true,
        fail_on_data_errors: true,
        resource_timer_is_transient_error: true,
        delta_grpc: true,
    };
    assert_eq!(features(all), expected);
    refused("xds_servers[0].server_features", |json| json["xds_servers"][0]["server_features"] = json!("xds_v3"));
}

#[test]
fn node_is_optional_and_its_agent_fields_are_ignored() {
    assert_eq!(with(|_| {}).unwrap().node, Node::default());
    let node = json!({"id": "n", "cluster": "c", "locality": {"region": "r", "zone": "z", "sub_zone": "s"},
        "metadata": {"GENERATOR": "grpc", "deep": [1, {"x": null}]}, "user_agent_name": 3, "build_version": [], "client_features": {}});
    let node = with(|json| json["node"] = node).unwrap().node;
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("n", "c"));
    assert_eq!(node.locality, Some(Locality { region: "r".into(), zone: "z".into(), sub_zone: "s".into() }));
    assert_eq!(Value::Object(node.metadata), json!({"GENERATOR": "grpc", "deep": [1, {"x": null}]}));
    for (field, bad) in [
        ("node", json!([])),
        ("node.id", json!({"id": 1})),
        ("node.cluster", json!({"cluster": {}})),
        ("node.locality.zone", json!({"locality": {"zone": 1}})),
        ("node.metadata", json!({"metadata": "text"})),
    ] {
        refused(field, |json| json["node"] = bad);
    }
}

#[test]
fn a29_certificate_providers_of_unknown_plugins_are_left_out() {
    let providers = json!({
        "other": {"plugin_name": "unheard_of", "config": 5},
        "files": {"plugin_name": "file_watcher", "config": {"certificate_file": "c", "private_key_file": "k"}},
        "roots": {"plugin_name": "file_watcher", "config": {"ca_certificate_file": "ca", "refresh_interval": "900s"}},
        "map": {"plugin_name": "file_watcher", "config": {"spiffe_trust_bundle_map_file": "m"}},
    });
    let found = with(|json| json["certificate_providers"] = providers).unwrap().certificate_providers;
    assert_eq!(found.keys().map(|name| &**name).collect::<Vec<_>>(), ["files", "map", "roots"]);
    let CertificateProvider::FileWatcher(files) = &found["files"] else { panic!() };
    assert_eq!(files.identity.as_ref().unwrap().private_key_file, PathBuf::from("k"));
    assert_eq!(files.refresh_interval, Duration::from_secs(600));
    let CertificateProvider::FileWatcher(roots) = &found["roots"] else { panic!() };
    assert_eq!((roots.ca_certificate_file.as_deref(), roots.refresh_interval.as_secs()), (Some(Path::new("ca")), 900));
    let CertificateProvider::FileWatcher(map) = &found["map"] else { panic!() };
    assert_eq!(map.spiffe_trust_bundle_map_file.as_deref(), Some(Path::new("m")));
}

#[test]
fn a29_a_file_watcher_needs_an_identity_or_roots() {
    for (field, provider) in [
        ("plugin_name", json!({"config": {}})),
        ("config", json!({"plugin_name": "file_watcher"})),
        ("config.ca_certificate_file", json!({"plugin_name": "file_watcher", "config": {}})),
        (
            "config.private_key_file",
            json!({"plugin_name": "file_watcher", "config": {"certificate_file": "c", "ca_certificate_file": "x"}}),
        ),
        ("config.certificate_file", json!({"plugin_name": "file_watcher", "config": {"private_key_file": "c"}})),
        (
            "config.refresh_interval",
            json!({"plugin_name": "file_watcher", "config": {"ca_certificate_file": "x", "refresh_interval": 5}}),
        ),
    ] {
        refused(&format!("certificate_providers.p.{field}"), |json| {
            json["certificate_providers"] = json!({"p": provider});
        });
    }
}

#[test]
fn a36_a47_templates_of_listener_names() {
    let bootstrap = with(|json| {
        json["server_listener_resource_name_template"] = json!("server/%s");
        json["client_default_listener_resource_name_template"] = json!("client/%s");
    });
    let names = bootstrap.unwrap().listener_names;
    assert_eq!(&*names.for_target("xds:///a").unwrap(), "client/a");
    assert_eq!(&*names.for_server("127.0.0.1:80".parse().unwrap()).unwrap(), "server/127.0.0.1:80");
    let plain = with(|_| {}).unwrap().listener_names;
    assert_eq!(&*plain.for_target("xds:///a").unwrap(), "a");
    assert!(plain.for_server("127.0.0.1:80".parse().unwrap()).is_err(), "there is no default for servers");
    refused("server_listener_resource_name_template", |json| json["server_listener_resource_name_template"] = json!(1));
}

#[test]
fn a47_a95_authorities() {
    let authorities = json!({
        "plain.example": {},
        "full.example": {
            "client_listener_resource_name_template": "xdstp://full.example/envoy.config.listener.v3.Listener/x/%s",
            "xds_servers": [{"server_uri": "other", "channel_creds": [{"type": "insecure"}]}],
            "fallback_on_reachability_only": true,
        },
    });
    let bootstrap = with(|json| json["authorities"] = authorities).unwrap();
    assert_eq!(bootstrap.authorities["plain.example"].servers, []);
    let full = &bootstrap.authorities["full.example"];
    assert_eq!((&*full.servers[0].uri, full.fallback_on_reachability_only), ("other", true));
    let name = |target| bootstrap.listener_names.for_target(target).unwrap().to_string();
    assert_eq!(name("xds://full.example/s"), "xdstp://full.example/envoy.config.listener.v3.Listener/x/s");
    assert_eq!(name("xds://plain.example/s"), "xdstp://plain.example/envoy.config.listener.v3.Listener/s");
    let foreign =
        json!({"a": {"client_listener_resource_name_template": "xdstp://b/envoy.config.listener.v3.Listener/%s"}});
    refused("authorities.a.client_listener_resource_name_template", |json| json["authorities"] = foreign);
    let bad = json!({"a": {"xds_servers": [{"server_uri": "x"}]}});
    refused("authorities.a.xds_servers[0].channel_creds", |json| json["authorities"] = bad);
    let bad = json!({"a": {"fallback_on_reachability_only": "yes"}});
    refused("authorities.a.fallback_on_reachability_only", |json| json["authorities"] = bad);
}

#[test]
fn a102_allowed_grpc_services() {
    let services = json!({"dns:///auth:1": {"channel_creds": [{"type": "tls"}], "call_creds": []}});
    let found = with(|json| json["allowed_grpc_services"] = services).unwrap().allowed_grpc_services;
    assert_eq!(found["dns:///auth:1"].credentials, ChannelCredentials::Tls(TlsFiles::default()));
    let bad = json!({"x": {"channel_creds": [{"type": "unheard_of"}]}});
    refused("allowed_grpc_services.x.channel_creds", |json| json["allowed_grpc_services"] = bad);
}

#[test]
fn what_is_not_json_says_where() {
    let error = Bootstrap::from_json("{\"xds_servers\": [}").unwrap_err();
    assert_eq!(error.code(), Code::BAD_BOOTSTRAP);
    assert!(error.message().contains("line 1 column 18"), "{error}");
    assert!(Bootstrap::from_json("[]").is_err());
}

/// What istiod's agent writes (`spec/istio.md` section 2.1), with the nulls of its sample.
const ISTIO: &str = r#"{
  "xds_servers": [
    {"server_uri": "unix:///etc/istio/proxy/XDS", "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
  ],
  "node": {
    "id": "sidecar~127.0.0.1~pod1.fake-namespace~fake-namespace.svc.cluster.local",
    "locality": {},
    "metadata": {"GENERATOR": "grpc", "INSTANCE_IPS": "127.0.0.1", "LABELS": {"app": "a"}, "PROXY_CONFIG": {"statusPort": 15020}},
    "UserAgentVersionType": null
  },
  "certificate_providers": {
    "default": {
      "plugin_name": "file_watcher",
      "config": {
        "certificate_file": "/certs/cert-chain.pem", "private_key_file": "/certs/key.pem",
        "ca_certificate_file": "/certs/root-cert.pem", "refresh_interval": "900s"
      }
    }
  },
  "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s"
}"#;

#[test]
fn istiods_own_file_is_taken() {
    let bootstrap = Bootstrap::from_json(ISTIO).unwrap();
    assert_eq!(bootstrap.servers, [ServerConfig::insecure("unix:///etc/istio/proxy/XDS")]);
    assert_eq!(bootstrap.node.metadata["GENERATOR"], "grpc");
    let CertificateProvider::FileWatcher(files) = &bootstrap.certificate_providers["default"] else { panic!() };
    assert_eq!(files.refresh_interval, Duration::from_secs(900));
    let listener = bootstrap.listener_names.for_server("0.0.0.0:7070".parse().unwrap()).unwrap();
    assert_eq!(&*listener, "xds.istio.io/grpc/lds/inbound/0.0.0.0:7070");
}

/// An environment of these variables.
fn env(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + use<> {
    let variables: BTreeMap<String, OsString> = variables.iter().map(|(k, v)| ((*k).to_owned(), v.into())).collect();
    move |name| variables.get(name).cloned()
}

#[test]
fn the_path_beats_the_inline_text() {
    let path = std::env::temp_dir().join(format!("mesh-bootstrap-{}.json", std::process::id()));
    std::fs::write(&path, ISTIO).unwrap();
    let inline = r#"{"xds_servers": [{"server_uri": "inline", "channel_creds": [{"type": "insecure"}]}]}"#;
    let both = env(&[(BOOTSTRAP_VARIABLE, path.to_str().unwrap()), (BOOTSTRAP_CONFIG_VARIABLE, inline)]);
    assert_eq!(&*Bootstrap::from_lookup(&both).unwrap().servers[0].uri, "unix:///etc/istio/proxy/XDS");
    std::fs::remove_file(&path).unwrap();
    let error = Bootstrap::from_lookup(&both).unwrap_err();
    assert_eq!(error.code(), Code::BAD_BOOTSTRAP, "a path that cannot be read does not fall back to the text");
    assert!(error.message().contains(path.to_str().unwrap()));
    let text = env(&[(BOOTSTRAP_CONFIG_VARIABLE, inline)]);
    assert_eq!(&*Bootstrap::from_lookup(&text).unwrap().servers[0].uri, "inline");
    assert_eq!(Bootstrap::from_lookup(&env(&[])).unwrap_err().code(), Code::NO_BOOTSTRAP);
}

#[test]
fn the_environment_selects_one_source() {
    let select = |variables: &[(&str, &str)]| Selection::from_lookup(&env(variables)).map_err(|error| error.code());
    assert!(
        matches!(select(&[(FILE_VARIABLE, "mesh.yaml")]), Ok(Selection::File(path)) if path == Path::new("mesh.yaml"))
    );
    assert!(matches!(select(&[(BOOTSTRAP_CONFIG_VARIABLE, ISTIO)]), Ok(Selection::Bootstrap(_))));
    assert_eq!(select(&[]).unwrap_err(), Code::NO_BOOTSTRAP);
    for other in [BOOTSTRAP_VARIABLE, BOOTSTRAP_CONFIG_VARIABLE] {
        assert_eq!(select(&[(FILE_VARIABLE, "mesh.yaml"), (other, "x")]).unwrap_err(), Code::TWO_SOURCES);
    }
}

fn provider(plugin: &str, config: &Value) -> Result<CertificateProvider, String> {
    let provider = json!({"p": {"plugin_name": plugin, "config": config}});
    let parsed = with(|json| json["certificate_providers"] = provider);
    parsed.map(|bootstrap| bootstrap.certificate_providers["p"].clone()).map_err(|error| error.to_string())
}

#[test]
fn an_sds_provider_is_a_server_and_two_names_and_keeps_keys_private() {
    let insecure = json!([{"type": "insecure"}]);
    let config = json!({"server_uri": "unix:///sds", "channel_creds": insecure});
    let CertificateProvider::Sds(sds) = provider("sds", &config).unwrap() else { panic!() };
    assert_eq!(*sds, SdsConfig::new("unix:///sds").unwrap());
    assert_eq!((&*sds.certificate_name, &*sds.validation_context_name), ("default", "ROOTCA"));
    let config = json!({"server_uri": "sds.test:1", "channel_creds": [{"type": "tls"}], "certificate_name": "a", "validation_context_name": "b"});
    let CertificateProvider::Sds(sds) = provider("sds", &config).unwrap() else { panic!() };
    assert_eq!((&*sds.certificate_name, &*sds.validation_context_name), ("a", "b"));
    for uri in ["unix:sds", "127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "[::1]:1"] {
        assert!(provider("sds", &json!({"server_uri": uri, "channel_creds": insecure})).is_ok(), "{uri}");
    }
    for uri in ["sds.test:1", "localhost:1", "10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "dns:///localhost:1"] {
        let error = provider("sds", &json!({"server_uri": uri, "channel_creds": insecure})).unwrap_err();
        assert!(error.contains("config.channel_creds") && error.contains("private keys"), "{error}");
        assert!(SdsConfig::new(uri).is_err(), "{uri}");
    }
}

#[test]
fn a_spiffe_provider_is_the_address_of_an_agent_on_this_machine() {
    let uri = |endpoint: &str| {
        let provider = provider("spiffe", &json!({"endpoint_socket": endpoint}))?;
        let CertificateProvider::Spiffe(spiffe) = provider else { panic!() };
        Ok::<_, String>(spiffe.server.uri.to_string())
    };
    assert_eq!(uri("unix:///run/agent.sock").unwrap(), "unix:///run/agent.sock");
    assert_eq!(uri("unix:/run/agent.sock").unwrap(), "unix:///run/agent.sock");
    assert_eq!(uri("tcp://127.0.0.1:80").unwrap(), "ipv4:127.0.0.1:80");
    assert_eq!(uri("tcp://[::1]:80").unwrap(), "ipv6:[::1]:80");
    for bad in [
        "/run/agent.sock",
        "unix://run/agent.sock",
        "unix:///a?b",
        "tcp://localhost:80",
        "tcp://10.0.0.1:80",
        "http://a",
        "",
    ] {
        assert!(uri(bad).unwrap_err().contains("config.endpoint_socket"), "{bad}");
    }
}

#[test]
fn istios_ca_has_the_defaults_of_a_pod() {
    let CertificateProvider::IstioCa(ca) = provider("istio_ca", &json!({})).unwrap() else { panic!() };
    assert_eq!(*ca, IstioCaConfig::default());
    assert_eq!(&*ca.server.uri, "istiod.istio-system.svc:15012");
    let ChannelCredentials::Tls(files) = &ca.server.credentials else { panic!("a token is never sent in plaintext") };
    assert_eq!(files.ca_certificate_file.as_deref(), Some(Path::new("/var/run/secrets/istio/root-cert.pem")));
    let token = CallCredentials::JwtTokenFile("/var/run/secrets/tokens/istio-token".into());
    assert_eq!(ca.server.call_credentials, [token]);
    let config = json!({"ca_address": "ca:1", "ca_root_file": "r", "token_file": "t", "cluster_id": "east",
        "trust_domain": "td", "certificate_ttl": "3600s"});
    let CertificateProvider::IstioCa(ca) = provider("istio_ca", &config).unwrap() else { panic!() };
    assert_eq!(ca.server.initial_metadata, [("clusterid".into(), "east".into())]);
    assert_eq!((&*ca.server.uri, &*ca.trust_domain, ca.certificate_ttl.as_secs()), ("ca:1", "td", 3600));
    assert!(provider("istio_ca", &json!({"certificate_ttl": "1s"})).unwrap_err().contains("config.certificate_ttl"));
}

#[test]
fn the_environment_chooses_a_provider_by_one_variable() {
    let of = |pairs: &'static [(&str, &str)]| {
        let lookup = move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        CertificateProvider::of_environment(&lookup).map_err(|error| error.to_string())
    };
    assert_eq!(of(&[("SPIFFE_ENDPOINT_SOCKET", "unix:///a")]), Ok(None), "an agent alone is no choice");
    let spiffe = Ok(Some(SpiffeConfig::new("unix:///a").unwrap().into()));
    assert_eq!(of(&[("MESH_IDENTITY", "spiffe"), ("SPIFFE_ENDPOINT_SOCKET", "unix:///a")]), spiffe);
    assert_eq!(of(&[("MESH_IDENTITY", "spiffe:unix:///a")]), spiffe);
    assert_eq!(of(&[("MESH_IDENTITY", "sds:unix:///s")]), Ok(Some(SdsConfig::new("unix:///s").unwrap().into())));
    let ca = of(&[
        ("MESH_IDENTITY", "istio-ca"),
        ("CA_ADDR", "ca:1"),
        ("ISTIO_META_CLUSTER_ID", "east"),
        ("TRUST_DOMAIN", "td"),
    ]);
    let Ok(Some(CertificateProvider::IstioCa(ca))) = ca else { panic!("{ca:?}") };
    assert_eq!((&*ca.server.uri, &*ca.trust_domain), ("ca:1", "td"));
    assert_eq!(ca.server.initial_metadata, [("clusterid".into(), "east".into())]);
    assert!(
        matches!(of(&[("MESH_IDENTITY", "istio-ca:other:2")]), Ok(Some(CertificateProvider::IstioCa(ca))) if &*ca.server.uri == "other:2")
    );
    for bad in [
        &[("MESH_IDENTITY", "spiffe")],
        &[("MESH_IDENTITY", "sds")],
        &[("MESH_IDENTITY", "sds:10.0.0.1:1")],
        &[("MESH_IDENTITY", "vault")],
    ] {
        assert!(of(bad).unwrap_err().contains("MESH_IDENTITY"), "{bad:?}");
    }
}
