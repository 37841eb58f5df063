//! Rules 146, 148 and 149: what else of certificates and TLS a resource may ask for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use pb::SpiffeCertValidatorConfig as Spiffe;
use pb::spiffe_cert_validator_config::TrustDomain;

use super::tls::*;
use super::*;
use crate::identity::crl_tests::pem;
use crate::model::{CertificateChecks, CertificatePin, CipherSuite, CrlSource, Curve, TlsParams, TrustRoots};

fn source(text: &str) -> Option<core::DataSource> {
    let specifier = Some(Specifier::InlineString(text.to_owned()));
    Some(core::DataSource { specifier, ..Default::default() })
}

fn file(path: &str) -> Option<core::DataSource> {
    let specifier = Some(Specifier::Filename(path.to_owned()));
    Some(core::DataSource { specifier, ..Default::default() })
}

fn validator(config: Any) -> Option<core::TypedExtensionConfig> {
    let name = "envoy.tls.cert_validator.spiffe".to_owned();
    Some(core::TypedExtensionConfig { name, typed_config: Some(config) })
}

fn domain(name: &str, bundle: Option<core::DataSource>) -> TrustDomain {
    TrustDomain { name: name.to_owned(), trust_bundle: bundle, ..Default::default() }
}

fn spiffe(trust_domains: Vec<TrustDomain>) -> Option<core::TypedExtensionConfig> {
    validator(any(&Spiffe { trust_domains, ..Default::default() }))
}

/// A self-signed certificate.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMIIBdTCCARugAwIBAgIUctjc86OfqEoya6ZAf06rf4xI+C4wCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEcm9vdDAgFw0yNjExMjcyMjM0MDZaGA8yMTI2MTEwMzIyMzQwNlowDzENMAsGA1UEAwwEcm9vdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJYHRjXnk/EYY/nlaEd7Ntmw7u8Q9Cd9OQoIlLyphk2StSOhTf9W3B0bfARaW8b/iDOhTTSZoflpGpjHvEqOueKjUzBRMB0GA1UdDgQWBBTv/jo1IO3zcqj+JnPeIZSUjJJ3ejAfBgNVHSMEGDAWgBTv/jo1IO3zcqj+JnPeIZSUjJJ3ejAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIAenNcLl1xhJobPPBgGZz3pTVAAlaovcLghDYUIPxnd9AiEAklEP+2sr/7IZegfMaoNcFdXeHXmfQM4T6Cxj4uyd+0s=\n-----END CERTIFICATE-----\n";

#[test]
pub(super) fn rule_146_what_of_tls_may_be_spoken() {
    for part in both() {
        part.refuses(&[
            (146, "tls_params.signature_algorithms", |common| {
                params(common).signature_algorithms = vec!["rsa_pss_rsae_sha256".to_owned()];
            }),
            (146, "tls_params.compliance_policies", |common| params(common).compliance_policies = vec![0]),
            (146, "tls_params.tls_maximum_protocol_version", |common| params(common).tls_maximum_protocol_version = 2),
            (146, "tls_params.tls_minimum_protocol_version", |common| params(common).tls_minimum_protocol_version = 9),
            (146, "tls_params.tls_minimum_protocol_version", |common| {
                *params(common) = pb::TlsParameters {
                    tls_minimum_protocol_version: 4,
                    tls_maximum_protocol_version: 3,
                    ..Default::default()
                };
            }),
            (146, "tls_params.cipher_suites", |common| params(common).cipher_suites = vec!["ROT13".to_owned()]),
            (146, "tls_params.cipher_suites", |common| {
                *params(common) = pb::TlsParameters {
                    tls_maximum_protocol_version: 3,
                    cipher_suites: vec!["AES128-SHA".to_owned()],
                    ..Default::default()
                };
            }),
            (146, "tls_params.ecdh_curves", |common| params(common).ecdh_curves = vec!["P-521".to_owned()]),
        ]);
        part.takes(&[(146, "nothing asked for", |common| *params(common) = pb::TlsParameters::default())]);
    }
    let read = |value: pb::TlsParameters| {
        let findings = crate::decode::at::Findings::default();
        let read = crate::decode::tls_checks::params(&value, &findings.root());
        assert!(findings.into_faults().is_empty());
        read
    };
    let asked = read(pb::TlsParameters {
        tls_minimum_protocol_version: 2,
        tls_maximum_protocol_version: 3,
        cipher_suites: vec![
            "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]".to_owned(),
            "ECDHE-RSA-AES128-SHA".to_owned(),
        ],
        ecdh_curves: vec!["P-256".to_owned(), "X25519".to_owned(), "P-521".to_owned()],
        ..Default::default()
    });
    let ciphers = vec![CipherSuite::EcdheEcdsaAes128GcmSha256, CipherSuite::EcdheEcdsaChacha20Poly1305];
    let curves = vec![Curve::P256, Curve::X25519];
    assert_eq!(asked, TlsParams { no_tls12: false, no_tls13: true, ciphers, curves });
    let newest = pb::TlsParameters { tls_minimum_protocol_version: 4, ..Default::default() };
    assert!(read(newest).no_tls12);
    // Suites that are never spoken leave TLS 1.3, which has its own.
    let unsafe_only = pb::TlsParameters { cipher_suites: vec!["AES128-SHA".to_owned()], ..Default::default() };
    assert!(read(unsafe_only).no_tls12);
}

fn params(common: &mut pb::CommonTlsContext) -> &mut pb::TlsParameters {
    common.tls_params.get_or_insert_default()
}

/// gRFC A87's roots by trust domain, as Envoy's validator has them in a resource.
#[test]
pub(super) fn rule_148_what_a_certificate_must_be() {
    for part in both() {
        part.refuses(&[
            (148, "validation_context.crl", |common| validation(common).crl = source("no list")),
            (148, "validation_context.crl.filename", |common| validation(common).crl = file("")),
            (148, "validation_context.verify_certificate_hash[1]", |common| {
                validation(common).verify_certificate_hash = vec!["00".repeat(32), "00".repeat(31)];
            }),
            (148, "validation_context.custom_validator_config.typed_config", |common| {
                validation(common).custom_validator_config = validator(any(&pb::SdsSecretConfig::default()));
            }),
            (148, "validation_context.custom_validator_config.typed_config.trust_domains", |common| {
                validation(common).custom_validator_config = spiffe(Vec::new());
            }),
            (148, "validation_context.custom_validator_config.typed_config.trust_domains[0].name", |common| {
                validation(common).custom_validator_config = spiffe(vec![domain("a/b", source(ROOT))]);
            }),
            (148, "validation_context.custom_validator_config.typed_config.trust_domains[0].trust_bundle", |common| {
                validation(common).custom_validator_config = spiffe(vec![domain("a", source("none"))]);
            }),
            (
                148,
                "validation_context.custom_validator_config.typed_config.trust_domains[0].trust_bundle.filename",
                |common| validation(common).custom_validator_config = spiffe(vec![domain("a", file("/a.pem"))]),
            ),
            (148, "validation_context.custom_validator_config.typed_config.trust_domains[1].trust_bundle", |common| {
                let twice = vec![domain("a", source(ROOT)), domain("a", source(ROOT))];
                validation(common).custom_validator_config = spiffe(twice);
            }),
            (148, "validation_context.custom_validator_config.typed_config.trust_bundles", |common| {
                let config = Spiffe { trust_bundles: source("{}"), ..Default::default() };
                validation(common).custom_validator_config = validator(any(&config));
            }),
        ]);
        part.takes(&[
            (148, "a list", |common| validation(common).crl = source(&pem())),
            (148, "a list in a file", |common| validation(common).crl = file("/crl.pem")),
            (148, "hashes", |common| {
                validation(common).verify_certificate_hash = vec!["00".repeat(32)];
                validation(common).verify_certificate_spki = vec![STANDARD.encode([0; 32])];
            }),
            (148, "a depth", |common| {
                validation(common).max_verify_depth = Some(envoy_types::pb::google::protobuf::UInt32Value { value: 1 });
            }),
            (148, "roots by trust domain", |common| {
                validation(common).ca_certificate_provider_instance = None;
                validation(common).custom_validator_config = spiffe(vec![domain("a.test", source(ROOT))]);
            }),
        ]);
    }
    let client = up(|context| {
        let context = validation(up_common(context));
        context.crl = file("/crl.pem");
        context.only_verify_leaf_cert_crl = true;
        context.verify_certificate_hash = vec!["0A:".repeat(31) + "0a"];
        context.custom_validator_config = spiffe(vec![domain("a.test", source(ROOT))]);
    });
    let expected = CertificateChecks {
        crl: Some(CrlSource::File("/crl.pem".into())),
        crl_of_leaf_only: true,
        pins: vec![CertificatePin::Certificate([10; 32])],
        ..Default::default()
    };
    assert_eq!(client.checks, expected);
    let TrustRoots::Spiffe(domains) = &client.roots else { panic!("{client:?}") };
    assert_eq!((domains.len(), domains["a.test"].len()), (1, 1), "it has priority over the provider");
}

/// A certificate that is asked for by its hash needs nobody's word, and somebody must show it.
#[test]
fn a_hash_is_a_trust_anchor() {
    let client = up(|context| {
        let hashes = vec!["00".repeat(32)];
        *validation(up_common(context)) =
            pb::CertificateValidationContext { verify_certificate_hash: hashes, ..Default::default() };
    });
    assert_eq!((client.roots, client.checks.accept_untrusted), (TrustRoots::Nobody, false));
    let server = down(|context| {
        context.require_client_certificate = None;
        validation(down_common(context)).verify_certificate_hash = vec!["00".repeat(32)];
    });
    assert!(server.require_client_certificate, "nobody has that hash without a certificate");
    upstream().refuses(&[(148, "common_tls_context.validation_context", |context| {
        let hashes = vec!["00".repeat(32)];
        let sans = vec![exact("spiffe://a/b")];
        *validation(up_common(context)) = pb::CertificateValidationContext {
            verify_certificate_hash: hashes,
            match_subject_alt_names: sans,
            ..Default::default()
        };
    })]);
}

/// Without a trust anchor there is TLS only where the operator has named the resource; and only there is it said of a
/// certificate that it may be anybody's.
#[test]
fn tls_with_anybody_must_be_named_insecure() {
    let (up, down) = (upstream(), downstream());
    let mut nobody = up.base.clone();
    up_common(&mut nobody).validation_context_type = None;
    let mut anybody = down.base.clone();
    *validation(down_common(&mut anybody)) = Default::default();
    let mut lax = up.base.clone();
    validation(up_common(&mut lax)).allow_expired_certificate = true;
    validation(up_common(&mut lax)).trust_chain_verification = 1;
    let name = |decoded| match decoded {
        Decoded::Ok { name, .. } => name,
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    };
    let (cluster, listener) = (name(up.decode(|_| {})), name(down.decode(|_| {})));
    for (insecure, is_named) in [([cluster, listener], true), ([Name::from("a"), Name::from("b")], false)] {
        let decoder = decoder().with_insecure(insecure);
        let client = |context: &pb::UpstreamTlsContext| decoder.decode(up.type_url, &(up.wrap)(context.clone()));
        let server = decoder.decode(down.type_url, &(down.wrap)(anybody.clone()));
        let lax: Arc<crate::model::Cluster> = taken(client(&lax));
        let checks = &lax.tls.as_ref().expect("it has TLS").checks;
        assert_eq!((checks.allow_expired, checks.accept_untrusted), (is_named, is_named));
        match (client(&nobody), server) {
            (Decoded::Ok { value, .. }, Decoded::Ok { .. }) if is_named => {
                let cluster = value.downcast::<crate::model::Cluster>().expect("it is one");
                let tls = cluster.tls.as_ref().expect("it has TLS");
                assert!(tls.roots == TrustRoots::Nobody && tls.checks.accept_untrusted);
            }
            (Decoded::Err { .. }, Decoded::Err { .. }) if !is_named => {}
            (client, server) => panic!("named {is_named}: {client:?} {server:?}"),
        }
    }
}
