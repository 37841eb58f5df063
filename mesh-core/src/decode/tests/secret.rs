//! Rules 46 and 121: secrets that resources name; and what is in one.

use core::config_source::ConfigSourceSpecifier as From;
use core::data_source::Specifier;
use core::grpc_service::{EnvoyGrpc, GoogleGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use pb::secret::Type;

use super::tls::{down, down_common, downstream, up, up_common, upstream};
use super::*;
use crate::decode::SecretDecoder;
use crate::identity::testing::{Authority, pair};
use crate::identity::{Demands, Roots, Secret, crl_tests};
use crate::model::{CertificatePin, CertificateRef, CrlSource, SanKind, TrustRoots};
use crate::resource::SECRET;

/// A secret of the server that a sidecar of Istio has.
pub(super) fn named(name: &str) -> pb::SdsSecretConfig {
    secret(
        name,
        api(TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..Default::default() })),
    )
}

fn secret(name: &str, from: From) -> pb::SdsSecretConfig {
    let source = core::ConfigSource { config_source_specifier: Some(from), ..Default::default() };
    pb::SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

fn api(target: TargetSpecifier) -> From {
    From::ApiConfigSource(core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        grpc_services: vec![core::GrpcService { target_specifier: Some(target), ..Default::default() }],
        ..Default::default()
    })
}

fn google(uri: &str) -> From {
    api(TargetSpecifier::GoogleGrpc(GoogleGrpc { target_uri: uri.to_owned(), ..Default::default() }))
}

fn show(common: &mut pb::CommonTlsContext, secrets: Vec<pb::SdsSecretConfig>) {
    common.tls_certificate_provider_instance = None;
    common.tls_certificate_sds_secret_configs = secrets;
}

fn trust(common: &mut pb::CommonTlsContext, secret: pb::SdsSecretConfig) {
    common.validation_context_type = Some(ValidationContextType::ValidationContextSdsSecretConfig(secret));
}

fn with_api(change: impl FnOnce(&mut core::ApiConfigSource)) -> pb::SdsSecretConfig {
    let From::ApiConfigSource(mut api) = google("unix:///sds") else { panic!() };
    change(&mut api);
    secret("default", From::ApiConfigSource(api))
}

#[test]
pub(super) fn rules_46_and_121_secrets_of_sds() {
    upstream().refuses(&[
        (121, "common_tls_context.tls_certificate_sds_secret_configs", |context| {
            show(up_common(context), vec![named("a"), named("b")]);
        }),
        (121, "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config", |context| {
            let config = pb::SdsSecretConfig { name: "a".to_owned(), sds_config: None };
            show(up_common(context), vec![config]);
        }),
        // Who may choose the server may choose the identity, and any socket of the machine.
        (
            121,
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config.api_config_source.grpc_services[0].google_grpc.target_uri",
            |context| show(up_common(context), vec![secret("a", google("unix:///var/run/docker.sock"))]),
        ),
        (
            46,
            "common_tls_context.validation_context_sds_secret_config.sds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name",
            |context| {
                let envoy = EnvoyGrpc { cluster_name: "xds".to_owned(), ..Default::default() };
                trust(up_common(context), secret("a", api(TargetSpecifier::EnvoyGrpc(envoy))));
            },
        ),
        (121, "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config", |context| {
            show(up_common(context), vec![secret("a", From::Ads(Default::default()))]);
        }),
        (46, "common_tls_context.validation_context_sds_secret_config.sds_config", |context| {
            trust(up_common(context), secret("a", From::Path("/etc/passwd".to_owned())));
        }),
        (
            121,
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config.api_config_source.api_type",
            |context| show(up_common(context), vec![with_api(|api| api.api_type = 1)]),
        ),
        (
            121,
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config.api_config_source.transport_api_version",
            |context| show(up_common(context), vec![with_api(|api| api.transport_api_version = 1)]),
        ),
        (
            121,
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config.api_config_source.grpc_services",
            |context| show(up_common(context), vec![with_api(|api| api.grpc_services.clear())]),
        ),
        (46, "common_tls_context.validation_context_sds_secret_config.name", |context| {
            trust(up_common(context), named(&"a".repeat(2049)));
        }),
    ]);
    upstream().takes(&[
        (121, "a certificate", |context| show(up_common(context), vec![named("default")])),
        (121, "beside a provider, which has priority", |context| {
            up_common(context).tls_certificate_sds_secret_configs = vec![named("default")];
        }),
        (46, "roots", |context| trust(up_common(context), secret("ROOTCA", google("unix:///sds")))),
    ]);
    downstream().takes(&[
        (121, "a certificate", |context| show(down_common(context), vec![named("default")])),
        (46, "roots", |context| trust(down_common(context), named("ROOTCA"))),
    ]);
}

fn reference(name: &str) -> CertificateRef {
    CertificateRef { instance: "default".into(), certificate: name.into() }
}

/// As istiod has it in the clusters and listeners of sidecars.
#[test]
fn the_secrets_of_a_sidecar_are_certificates_of_its_sds_server() {
    let client = up(|context| {
        let common = up_common(context);
        show(common, vec![named("default")]);
        common.validation_context_type =
            Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(pb::CertificateValidationContext {
                    match_subject_alt_names: vec![envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher {
                        match_pattern: Some(
                            envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact(
                                "spiffe://a/b".to_owned(),
                            ),
                        ),
                        ..Default::default()
                    }],
                    ..Default::default()
                }),
                validation_context_sds_secret_config: Some(named("ROOTCA")),
                ..Default::default()
            }));
    });
    assert_eq!(client.identity, Some(reference("default")));
    assert_eq!(client.roots, TrustRoots::Provider(reference("ROOTCA")));
    assert_eq!(client.sans.len(), 1, "what the resource demands is demanded");
    let server = down(|context| {
        show(down_common(context), vec![named("default")]);
        trust(down_common(context), named("ROOTCA"));
    });
    assert_eq!(server.identity, reference("default"));
    assert!(server.require_client_certificate);
}

fn inline(text: &str) -> Option<core::DataSource> {
    Some(core::DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..Default::default() })
}

fn crl_file() -> Option<core::DataSource> {
    Some(core::DataSource { specifier: Some(Specifier::Filename("/etc/crl".to_owned())), ..Default::default() })
}

fn decode(secret: &pb::Secret) -> Decoded {
    SecretDecoder::new(pair()).decode(SECRET, &secret.encode_to_vec())
}

#[test]
fn a_secret_is_a_certificate_with_its_key_or_roots() {
    let authority = Authority::new();
    let issued = authority.issue("spiffe://a/b", std::time::Duration::from_secs(60));
    let certificate = pb::TlsCertificate {
        certificate_chain: inline(&format!("{}{}", issued.certificate_pem, authority.root_pem())),
        private_key: inline(&issued.key_pem),
        ..Default::default()
    };
    let secret = pb::Secret { name: "default".to_owned(), r#type: Some(Type::TlsCertificate(certificate.clone())) };
    let value: Arc<Secret> = taken(decode(&secret));
    let Secret::Certificate { chain, key } = &*value else { panic!("{value:?}") };
    assert_eq!((&chain[..], key), (&[issued.certificate.clone(), authority.root()][..], &issued.key));
    assert!(!format!("{value:?}").contains("key"), "a key is never printed");

    let context = pb::CertificateValidationContext { trusted_ca: inline(&authority.root_pem()), ..Default::default() };
    let roots = pb::Secret { name: "ROOTCA".to_owned(), r#type: Some(Type::ValidationContext(context.clone())) };
    let value: Arc<Secret> = taken(decode(&roots));
    let Secret::Validation { roots, demands } = &*value else { panic!("{value:?}") };
    assert_eq!((roots, demands), (&Roots::Any(vec![authority.root()]), &Demands::default()));

    let with = |change: fn(&mut pb::TlsCertificate)| {
        let mut certificate = certificate.clone();
        change(&mut certificate);
        pb::Secret { name: "x".to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
    };
    let trusting = |change: fn(&mut pb::CertificateValidationContext)| {
        let mut context = context.clone();
        change(&mut context);
        pb::Secret { name: "x".to_owned(), r#type: Some(Type::ValidationContext(context)) }
    };
    let file =
        || Some(core::DataSource { specifier: Some(Specifier::Filename("/etc/key".to_owned())), ..Default::default() });
    let foreign = authority.issue("spiffe://a/c", std::time::Duration::from_secs(60)).key_pem;
    let mut swapped = with(|_| {});
    if let Some(Type::TlsCertificate(certificate)) = &mut swapped.r#type {
        certificate.private_key = inline(&foreign);
    }
    let mut from_file = with(|_| {});
    if let Some(Type::TlsCertificate(certificate)) = &mut from_file.r#type {
        certificate.private_key = file();
    }
    for (secret, path) in [
        (pb::Secret { name: "x".to_owned(), r#type: None }, ""),
        (pb::Secret { name: "x".to_owned(), r#type: Some(Type::GenericSecret(Default::default())) }, "generic_secret"),
        (swapped, "tls_certificate.private_key"),
        (from_file, "tls_certificate.private_key"),
        (with(|one| one.private_key = inline("-----BEGIN PRIVATE KEY-----")), "tls_certificate.private_key"),
        (with(|one| one.private_key = None), "tls_certificate.private_key"),
        (with(|one| one.certificate_chain = inline("none")), "tls_certificate.certificate_chain"),
        (
            with(|one| {
                one.certificate_chain = inline("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
            }),
            "tls_certificate.certificate_chain",
        ),
        (with(|one| one.password = inline("x")), "tls_certificate.password"),
        (with(|one| one.private_key_provider = Some(Default::default())), "tls_certificate.private_key_provider"),
        (trusting(|one| one.trusted_ca = None), "validation_context.trusted_ca"),
        (trusting(|one| one.crl = inline("x")), "validation_context.crl"),
        (trusting(|one| one.crl = crl_file()), "validation_context.crl"),
        (
            trusting(|one| {
                let matcher = Some(Default::default());
                let empty = pb::SubjectAltNameMatcher { san_type: 2, matcher, ..Default::default() };
                one.match_typed_subject_alt_names.push(empty);
            }),
            "validation_context.match_typed_subject_alt_names[0].matcher",
        ),
        (
            trusting(|one| one.verify_certificate_spki.push("x".to_owned())),
            "validation_context.verify_certificate_spki[0]",
        ),
        (
            trusting(|one| one.custom_validator_config = Some(Default::default())),
            "validation_context.custom_validator_config",
        ),
        (trusting(|one| one.system_root_certs = Some(Default::default())), "validation_context"),
    ] {
        match decode(&secret) {
            Decoded::Ok { .. } => panic!("taken, not refused at {path}"),
            Decoded::Err { name, faults } => {
                let found: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
                assert_eq!((name.as_deref(), found), (Some("x"), vec![path]), "{faults:?}");
                assert!(!faults[0].rule.contains("BEGIN"), "nothing of a secret is quoted: {faults:?}");
            }
        }
    }
}

/// Envoy's: a secret holds a whole validation context. What would trust more is not taken.
#[test]
fn what_a_secret_asks_of_certificates_is_asked() {
    use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
    let authority = Authority::new();
    let name = StringMatcher { match_pattern: Some(MatchPattern::Exact("a.test".to_owned())), ..Default::default() };
    let typed = pb::SubjectAltNameMatcher {
        san_type: pb::subject_alt_name_matcher::SanType::Dns.into(),
        matcher: Some(name),
        ..Default::default()
    };
    let context = pb::CertificateValidationContext {
        trusted_ca: inline(&authority.root_pem()),
        crl: inline(&crl_tests::pem()),
        only_verify_leaf_cert_crl: true,
        match_typed_subject_alt_names: vec![typed],
        verify_certificate_hash: vec!["0f".repeat(32)],
        max_verify_depth: u32_value(2),
        allow_expired_certificate: true,
        trust_chain_verification: 1,
        ..Default::default()
    };
    let secret = pb::Secret { name: "ROOTCA".to_owned(), r#type: Some(Type::ValidationContext(context)) };
    let value: Arc<Secret> = taken(decode(&secret));
    let Secret::Validation { demands: Demands { sans, checks }, .. } = &*value else { panic!("{value:?}") };
    assert_eq!((sans.len(), sans[0].kind.clone()), (1, Some(SanKind::Dns)));
    assert!(matches!(&checks.crl, Some(CrlSource::Inline(lists)) if lists.len() == 1));
    assert_eq!((checks.pins.as_slice(), checks.max_depth), (&[CertificatePin::Certificate([15; 32])][..], Some(2)));
    assert!(checks.crl_of_leaf_only && !checks.allow_expired && !checks.accept_untrusted);
}
