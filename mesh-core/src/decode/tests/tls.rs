//! Rules 40 to 51, 117 to 122 and 147 to 150: TLS.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
pub(super) use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use matcher::string_matcher::MatchPattern;
use pb::common_tls_context::{
    CertificateProviderInstance as Older, CombinedCertificateValidationContext, ValidationContextType,
};
use pb::{CertificateProviderPluginInstance as Newer, CertificateValidationContext, CommonTlsContext};

use super::cluster::eds;
use super::listener::{chain, server};
use super::*;
use crate::model::{
    CertificateRef, Cluster, DownstreamTls, Listener, ListenerKind, Pattern, SanKind, SanMatch, StringMatch,
    TrustRoots, UpstreamTls,
};
use crate::resource::{CLUSTER, LISTENER};

const TLS: &str = "envoy.transport_sockets.tls";

fn named(name: &str, config: Any) -> core::TransportSocket {
    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(config));
    core::TransportSocket { name: name.to_owned(), config_type }
}

pub(super) fn upstream_socket(context: &pb::UpstreamTlsContext) -> core::TransportSocket {
    named(TLS, any(context))
}

fn newer(instance: &str) -> Option<Newer> {
    Some(Newer { instance_name: instance.to_owned(), certificate_name: "c".to_owned() })
}

fn older(instance: &str) -> Option<Older> {
    Some(Older { instance_name: instance.to_owned(), certificate_name: "old".to_owned() })
}

fn roots(instance: &str) -> CertificateValidationContext {
    CertificateValidationContext { ca_certificate_provider_instance: newer(instance), ..Default::default() }
}

fn common() -> CommonTlsContext {
    CommonTlsContext {
        tls_certificate_provider_instance: newer("default"),
        validation_context_type: Some(ValidationContextType::ValidationContext(roots("default"))),
        ..Default::default()
    }
}

pub(super) fn upstream() -> Part<pb::UpstreamTlsContext> {
    let wrap = |context| {
        let mut cluster = eds();
        cluster.transport_socket = Some(upstream_socket(&context));
        cluster.encode_to_vec()
    };
    let base = pb::UpstreamTlsContext { common_tls_context: Some(common()), ..Default::default() };
    Part { type_url: CLUSTER, base, wrap, path: "transport_socket.typed_config" }
}

pub(super) fn downstream() -> Part<pb::DownstreamTlsContext> {
    let wrap = |context: pb::DownstreamTlsContext| {
        let mut listener = server(chain(&manager()));
        listener.filter_chains[0].transport_socket = Some(named(TLS, any(&context)));
        listener.encode_to_vec()
    };
    let base = pb::DownstreamTlsContext {
        common_tls_context: Some(common()),
        require_client_certificate: bool_value(true),
        ..Default::default()
    };
    Part { type_url: LISTENER, base, wrap, path: "filter_chains[0].transport_socket.typed_config" }
}

/// The rules that hold for both sides, on a context that both have.
pub(super) fn both() -> [Part<CommonTlsContext>; 2] {
    let up = Part {
        type_url: CLUSTER,
        base: common(),
        wrap: |common| {
            (upstream().wrap)(pb::UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() })
        },
        path: "transport_socket.typed_config.common_tls_context",
    };
    let down = Part {
        type_url: LISTENER,
        base: common(),
        wrap: |common| {
            (downstream().wrap)(pb::DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() })
        },
        path: "filter_chains[0].transport_socket.typed_config.common_tls_context",
    };
    [up, down]
}

pub(super) fn validation(common: &mut CommonTlsContext) -> &mut CertificateValidationContext {
    match &mut common.validation_context_type {
        Some(ValidationContextType::ValidationContext(context)) => context,
        _ => panic!("the base has one"),
    }
}

pub(super) fn down_common(context: &mut pb::DownstreamTlsContext) -> &mut CommonTlsContext {
    context.common_tls_context.as_mut().expect("the base has one")
}

pub(super) fn up_common(context: &mut pb::UpstreamTlsContext) -> &mut CommonTlsContext {
    context.common_tls_context.as_mut().expect("the base has one")
}

fn socket_of_chain() -> Part<core::TransportSocket> {
    let wrap = |socket| {
        let mut listener = server(chain(&manager()));
        listener.filter_chains[0].transport_socket = Some(socket);
        listener.encode_to_vec()
    };
    let base = named(TLS, any(&downstream().base));
    Part { type_url: LISTENER, base, wrap, path: "filter_chains[0].transport_socket" }
}

fn socket_of_cluster() -> Part<core::TransportSocket> {
    let wrap = |socket| {
        let mut cluster = eds();
        cluster.transport_socket = Some(socket);
        cluster.encode_to_vec()
    };
    Part { type_url: CLUSTER, base: upstream_socket(&upstream().base), wrap, path: "transport_socket" }
}

#[test]
pub(super) fn rules_40_and_117_what_a_transport_socket_is() {
    socket_of_chain().refuses(&[
        (40, "typed_config", |socket| socket.config_type = None),
        (40, "typed_config", |socket| *socket = named(TLS, any(&upstream().base))),
        (40, "typed_config", |socket| {
            *socket = named(TLS, garbage("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"));
        }),
        (40, "name", |socket| socket.name = "mine".to_owned()),
    ]);
    socket_of_cluster().refuses(&[
        (117, "typed_config", |socket| socket.config_type = None),
        (117, "typed_config", |socket| *socket = named(TLS, any(&downstream().base))),
        // Wrapped, which we can't.
        (117, "typed_config", |socket| {
            let proxy = "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport";
            *socket = named(TLS, garbage(proxy));
        }),
    ]);
}

#[test]
fn plaintext_said_explicitly_is_plaintext() {
    let plain = |socket: &mut core::TransportSocket| {
        *socket = named("envoy.transport_sockets.raw_buffer", any(&RawBuffer::default()));
    };
    assert!(socket_of_cluster().value::<Cluster>(plain).tls.is_none());
    let listener = socket_of_chain().value::<Listener>(plain);
    let ListenerKind::Server(server) = &listener.kind else { panic!("{listener:?}") };
    assert!(server.chains[0].tls.is_none());
}

/// gRFC A29.
#[test]
pub(super) fn rules_41_to_51_a_servers_tls() {
    downstream().refuses(&[
        (41, "common_tls_context", |context| {
            context.common_tls_context = None;
            context.require_client_certificate = None;
        }),
        (41, "common_tls_context.tls_certificate_provider_instance", |context| {
            down_common(context).tls_certificate_provider_instance = None;
        }),
        (42, "common_tls_context.tls_certificate_provider_instance.instance_name", |context| {
            down_common(context).tls_certificate_provider_instance = newer("nobody");
        }),
        (43, "require_client_certificate", |context| down_common(context).validation_context_type = None),
        (44, "common_tls_context.validation_context.ca_certificate_provider_instance.instance_name", |context| {
            *validation(down_common(context)) = roots("nobody");
        }),
        (45, "common_tls_context.validation_context", |context| {
            context.require_client_certificate = None;
            *validation(down_common(context)) = CertificateValidationContext::default();
        }),
        (46, "common_tls_context.validation_context_sds_secret_config.name", |context| {
            context.require_client_certificate = None;
            down_common(context).validation_context_type =
                Some(ValidationContextType::ValidationContextSdsSecretConfig(pb::SdsSecretConfig::default()));
        }),
        (47, "require_sni", |context| context.require_sni = bool_value(true)),
        (48, "ocsp_staple_policy", |context| context.ocsp_staple_policy = 1),
        (50, "common_tls_context.validation_context", |context| {
            context.require_client_certificate = None;
            *validation(down_common(context)) =
                CertificateValidationContext { system_root_certs: Some(Default::default()), ..Default::default() };
        }),
    ]);
    downstream().takes(&[
        (43, "no client certificate asked for", |context| {
            context.require_client_certificate = bool_value(false);
            down_common(context).validation_context_type = None;
        }),
        (47, "false is the default", |context| context.require_sni = bool_value(false)),
        (49, "names of clients, which gRPC can't", |context| {
            validation(down_common(context)).match_subject_alt_names = vec![exact("spiffe://a/b")];
        }),
        (51, "sessions are not read", |context| {
            context.disable_stateful_session_resumption = true;
            context.session_timeout = seconds(1);
            down_common(context).alpn_protocols = vec!["h2".to_owned()];
        }),
    ]);
}

pub(super) fn exact(name: &str) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(MatchPattern::Exact(name.to_owned())), ..Default::default() }
}

/// gRFCs A29, A82 and A101.
#[test]
pub(super) fn rules_118_to_122_a_clients_tls() {
    upstream().refuses(&[
        (118, "common_tls_context", |context| context.common_tls_context = None),
        (118, "common_tls_context", |context| up_common(context).validation_context_type = None),
        (119, "common_tls_context.validation_context", |context| {
            *validation(up_common(context)) = CertificateValidationContext::default();
        }),
        (120, "common_tls_context.validation_context.ca_certificate_provider_instance.instance_name", |context| {
            *validation(up_common(context)) = roots("nobody");
        }),
        (120, "common_tls_context.tls_certificate_provider_instance.instance_name", |context| {
            up_common(context).tls_certificate_provider_instance = newer("nobody");
        }),
        (121, "common_tls_context.tls_certificates", |context| {
            up_common(context).tls_certificate_provider_instance = None;
            up_common(context).tls_certificates.push(pb::TlsCertificate::default());
        }),
        (121, "common_tls_context.tls_certificate_sds_secret_configs[0].name", |context| {
            up_common(context).tls_certificate_provider_instance = None;
            up_common(context).tls_certificate_sds_secret_configs.push(pb::SdsSecretConfig::default());
        }),
        (122, "sni", |context| context.sni = "a".repeat(256)),
    ]);
    upstream().takes(&[
        (119, "the system's roots", |context| {
            *validation(up_common(context)) =
                CertificateValidationContext { system_root_certs: Some(Default::default()), ..Default::default() };
        }),
        (120, "no client certificate", |context| up_common(context).tls_certificate_provider_instance = None),
        (122, "the longest", |context| context.sni = "a".repeat(255)),
    ]);
}

#[test]
pub(super) fn rules_147_to_149_on_both_sides() {
    for part in both() {
        part.refuses(&[
            (147, "custom_handshaker", |common| common.custom_handshaker = Some(Default::default())),
            (148, "validation_context.verify_certificate_spki[0]", |common| {
                validation(common).verify_certificate_spki.push("x".to_owned());
            }),
            (148, "validation_context.verify_certificate_hash[0]", |common| {
                validation(common).verify_certificate_hash.push("x".to_owned());
            }),
            (148, "validation_context.require_signed_certificate_timestamp", |common| {
                validation(common).require_signed_certificate_timestamp = bool_value(true);
            }),
            (148, "validation_context.crl", |common| validation(common).crl = Some(core::DataSource::default())),
            (148, "validation_context.custom_validator_config.typed_config", |common| {
                validation(common).custom_validator_config = Some(Default::default());
            }),
            (148, "validation_context.match_subject_alt_names[0].prefix", |common| {
                let empty = MatchPattern::Prefix(String::new());
                validation(common).match_subject_alt_names =
                    vec![matcher::StringMatcher { match_pattern: Some(empty), ..Default::default() }];
            }),
            (148, "validation_context.match_subject_alt_names[0].safe_regex.regex", |common| {
                let bad = matcher::RegexMatcher { regex: "(".to_owned(), ..Default::default() };
                validation(common).match_subject_alt_names = vec![matcher::StringMatcher {
                    match_pattern: Some(MatchPattern::SafeRegex(bad)),
                    ..Default::default()
                }];
            }),
            (148, "validation_context.match_subject_alt_names[0]", |common| {
                validation(common).match_subject_alt_names = vec![matcher::StringMatcher::default()];
            }),
            // Envoy's.
            (148, "validation_context.match_typed_subject_alt_names[0].oid", |common| {
                let matcher = Some(exact("alice@corp.test"));
                let san = pb::SubjectAltNameMatcher { san_type: 5, matcher, oid: "1.02".to_owned() };
                validation(common).match_typed_subject_alt_names = vec![san];
            }),
            (148, "validation_context.match_typed_subject_alt_names[0].san_type", |common| {
                let matcher = Some(exact("x"));
                let san = pb::SubjectAltNameMatcher { san_type: 0, matcher, ..Default::default() };
                validation(common).match_typed_subject_alt_names = vec![san];
            }),
            (148, "validation_context.match_typed_subject_alt_names[0].matcher", |common| {
                let san = pb::SubjectAltNameMatcher { san_type: 3, matcher: None, ..Default::default() };
                validation(common).match_typed_subject_alt_names = vec![san];
            }),
        ]);
        part.takes(&[
            (148, "false is the default", |common| {
                validation(common).require_signed_certificate_timestamp = bool_value(false);
            }),
            (149, "not read, as none of them can make us trust more", |common| {
                let context = validation(common);
                context.trusted_ca = Some(core::DataSource::default());
                context.allow_expired_certificate = true;
                context.watched_directory = Some(core::WatchedDirectory { path: "x".to_owned(), ..Default::default() });
                context.trust_chain_verification = 1;
            }),
        ]);
    }
}

fn reference(certificate: &str) -> CertificateRef {
    CertificateRef { instance: "default".into(), certificate: certificate.into() }
}

pub(super) fn up(change: fn(&mut pb::UpstreamTlsContext)) -> UpstreamTls {
    let cluster: Arc<Cluster> = upstream().value(change);
    cluster.tls.as_deref().expect("it has TLS").clone()
}

pub(super) fn down(change: fn(&mut pb::DownstreamTlsContext)) -> DownstreamTls {
    let listener: Arc<Listener> = downstream().value(change);
    let ListenerKind::Server(server) = &listener.kind else { panic!("{listener:?}") };
    server.chains[0].tls.as_deref().expect("it has TLS").clone()
}

fn combined(roots: Option<Older>, default: CertificateValidationContext) -> Option<ValidationContextType> {
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(default),
        validation_context_certificate_provider_instance: roots,
        ..Default::default()
    };
    Some(ValidationContextType::CombinedValidationContext(combined))
}

#[test]
pub(super) fn rule_150_newer_and_older_spellings_mean_the_same() {
    upstream().takes(&[
        (150, "the older fields", |context| {
            let common = up_common(context);
            common.tls_certificate_provider_instance = None;
            common.tls_certificate_certificate_provider_instance = older("default");
            common.validation_context_type = combined(older("default"), CertificateValidationContext::default());
        }),
        (150, "the newer ones, combined", |context| {
            up_common(context).validation_context_type = combined(None, roots("default"));
        }),
    ]);
    let new = up(|_| {});
    assert_eq!((new.identity, new.roots), (Some(reference("c")), TrustRoots::Provider(reference("c"))));
    let old = up(|context| {
        let common = up_common(context);
        common.tls_certificate_provider_instance = None;
        common.tls_certificate_certificate_provider_instance = older("default");
        let sans = vec![exact("spiffe://a/b")];
        let default = CertificateValidationContext { match_subject_alt_names: sans, ..Default::default() };
        common.validation_context_type = combined(older("default"), default);
    });
    assert_eq!((old.identity, old.roots), (Some(reference("old")), TrustRoots::Provider(reference("old"))));
    let matcher = StringMatch { pattern: Pattern::Exact("spiffe://a/b".to_owned()), ignore_case: false };
    assert_eq!(old.sans, [SanMatch { kind: None, matcher }]);
    let plain = up(|context| {
        let older = older("default").expect("it is one");
        up_common(context).validation_context_type =
            Some(ValidationContextType::ValidationContextCertificateProviderInstance(older));
    });
    assert_eq!(plain.roots, TrustRoots::Provider(reference("old")));
    // The newer one has priority.
    let both = up(|context| {
        up_common(context).tls_certificate_certificate_provider_instance = older("default");
        up_common(context).validation_context_type = combined(older("default"), roots("default"));
    });
    assert_eq!((both.identity, both.roots), (Some(reference("c")), TrustRoots::Provider(reference("c"))));
    let server = down(|context| {
        let common = down_common(context);
        common.tls_certificate_provider_instance = None;
        common.tls_certificate_certificate_provider_instance = older("default");
        common.validation_context_type = combined(older("default"), CertificateValidationContext::default());
    });
    assert_eq!(
        (server.identity, server.client_roots),
        (reference("old"), Some(TrustRoots::Provider(reference("old"))))
    );
}

#[test]
fn an_older_instance_must_exist_too() {
    upstream().refuses(&[
        (120, "common_tls_context.tls_certificate_certificate_provider_instance.instance_name", |context| {
            up_common(context).tls_certificate_provider_instance = None;
            up_common(context).tls_certificate_certificate_provider_instance = older("nobody");
        }),
        (
            120,
            "common_tls_context.combined_validation_context.validation_context_certificate_provider_instance.instance_name",
            |context| {
                up_common(context).validation_context_type =
                    combined(older("nobody"), CertificateValidationContext::default());
            },
        ),
        (46, "common_tls_context.combined_validation_context.validation_context_sds_secret_config", |context| {
            up_common(context).validation_context_type = combined(None, roots("default"));
            if let Some(ValidationContextType::CombinedValidationContext(combined)) =
                &mut up_common(context).validation_context_type
            {
                combined.validation_context_sds_secret_config = Some(super::secret::named("ROOTCA"));
            }
        }),
    ]);
}

#[test]
fn tls_becomes_what_it_says() {
    let client = up(|context| {
        context.sni = "blue.test".to_owned();
        context.auto_sni_san_validation = true;
        up_common(context).alpn_protocols = vec!["h2".to_owned()];
        *validation(up_common(context)) = CertificateValidationContext {
            system_root_certs: Some(Default::default()),
            match_typed_subject_alt_names: vec![pb::SubjectAltNameMatcher {
                san_type: 3,
                matcher: Some(exact("spiffe://a/b")),
                ..Default::default()
            }],
            ..Default::default()
        };
    });
    assert_eq!((client.sni.as_deref(), client.roots), (Some("blue.test"), TrustRoots::System));
    assert!(client.auto_sni_san_validation && !client.auto_host_sni);
    assert_eq!((client.alpn.len(), client.sans[0].kind.clone()), (1, Some(SanKind::Uri)));

    let server = down(|_| {});
    assert!(server.require_client_certificate && server.sans.is_empty());
    assert_eq!((server.identity, server.client_roots), (reference("c"), Some(TrustRoots::Provider(reference("c")))));
    let open = down(|context| {
        context.require_client_certificate = None;
        down_common(context).validation_context_type = None;
    });
    assert!(!open.require_client_certificate && open.client_roots.is_none());
    let named = down(|context| {
        context.require_client_certificate = None;
        validation(down_common(context)).match_subject_alt_names = vec![exact("spiffe://a/b")];
    });
    assert!(named.require_client_certificate, "nobody has that name without one");
}
