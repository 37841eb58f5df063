//! What a validation context asks for beside roots and names, and `tls_params`: rules 146, 148 and 149.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use pb::tls_parameters::TlsProtocol;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::at::At;
use super::envelope::expect;
use crate::identity::{SpiffeId, bundle_map, revocation_lists};
use crate::model::{CertificateChecks, CertificatePin, CipherSuite, CrlSource, Curve, TlsParams};

/// The roots of each trust domain.
pub(super) type Domains = Arc<BTreeMap<String, Vec<CertificateDer<'static>>>>;

/// What is looked at in a certificate. What would trust more counts only where the operator has named the resource `insecure`;
/// elsewhere it is not read (rule 149).
pub(super) fn checks(value: &pb::CertificateValidationContext, insecure: bool, at: &At<'_>) -> CertificateChecks {
    let untrusted = pb::certificate_validation_context::TrustChainVerification::AcceptUntrusted;
    let timestamp = value.require_signed_certificate_timestamp.is_some_and(|value| value.value);
    if timestamp {
        at.field("require_signed_certificate_timestamp")
            .fault("is not supported, and leaving it out would trust more than was meant");
    }
    let hashes = &value.verify_certificate_hash;
    let hashes = pins(hashes, "verify_certificate_hash", from_hex, at).map(CertificatePin::Certificate);
    let keys = &value.verify_certificate_spki;
    let keys = pins(keys, "verify_certificate_spki", from_base64, at).map(CertificatePin::PublicKey);
    CertificateChecks {
        crl: value.crl.as_ref().and_then(|crl| crl_source(crl, &at.field("crl"))),
        crl_of_leaf_only: value.only_verify_leaf_cert_crl,
        max_depth: value.max_verify_depth.map(|depth| depth.value),
        pins: hashes.chain(keys).collect(),
        allow_expired: insecure && value.allow_expired_certificate,
        accept_untrusted: insecure && value.trust_chain_verification == untrusted as i32,
    }
}

fn pins<'a>(
    values: &'a [String],
    name: &'static str,
    read: fn(&str) -> Option<[u8; 32]>,
    at: &'a At<'_>,
) -> impl Iterator<Item = [u8; 32]> + use<'a> {
    values.iter().enumerate().filter_map(move |(index, value)| {
        let pin = read(value);
        if pin.is_none() {
            at.item(name, index).fault("is no SHA-256");
        }
        pin
    })
}

/// With colons or without.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| char::from(byte).to_digit(16))
        .try_fold(Vec::new(), |mut digits, digit| {
            digits.push(u8::try_from(digit?).ok()?);
            Some(digits)
        })?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok())?
}

fn from_base64(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn crl_source(value: &DataSource, at: &At<'_>) -> Option<CrlSource> {
    if let Some(Specifier::Filename(file)) = &value.specifier {
        if file.is_empty() {
            at.field("filename").fault("is empty");
        }
        return Some(CrlSource::File(file.into()));
    }
    match revocation_lists(inline(value, at)?) {
        Ok(lists) => Some(CrlSource::Inline(lists.into())),
        Err(why) => {
            at.fault(why);
            None
        }
    }
}

fn inline<'a>(value: &'a DataSource, at: &At<'_>) -> Option<&'a [u8]> {
    match &value.specifier {
        Some(Specifier::InlineString(text)) => return Some(text.as_bytes()),
        Some(Specifier::InlineBytes(bytes)) => return Some(bytes),
        Some(Specifier::Filename(_)) => at.field("filename").fault("is not supported here; give it inline"),
        Some(Specifier::EnvironmentVariable(_)) => at.field("environment_variable").fault("is not supported"),
        None => at.fault("does not say where it is"),
    }
    None
}

/// The roots of a `custom_validator_config`, which must be the SPIFFE validator's.
pub(super) fn spiffe(value: &TypedExtensionConfig, at: &At<'_>) -> Option<Domains> {
    let at = at.field("typed_config");
    let Some(any) = &value.typed_config else {
        at.fault("is missing");
        return None;
    };
    let config: pb::SpiffeCertValidatorConfig = expect(any, &at)?;
    // Envoy: the map has precedence over the list.
    if let Some(bundles) = &config.trust_bundles {
        let at = at.field("trust_bundles");
        return bundle_map(inline(bundles, &at)?).map(Arc::new).map_err(|error| at.fault(error.to_string())).ok();
    }
    let mut domains = BTreeMap::new();
    for (index, domain) in config.trust_domains.iter().enumerate() {
        let at = at.item("trust_domains", index);
        let is_name = format!("spiffe://{}", domain.name).parse::<SpiffeId>().is_ok_and(|id| id.path().is_empty());
        if !is_name {
            at.field("name").fault(format!("is `{}`, which is no name of a trust domain", domain.name));
        }
        if !domain.workload_trust_domain.is_empty() {
            at.field("workload_trust_domain").fault("is not supported");
        }
        let at = at.field("trust_bundle");
        let bundle = domain.trust_bundle.as_ref().and_then(|bundle| bundle_roots(inline(bundle, &at)?, &at));
        if domain.trust_bundle.is_none() {
            at.fault("is missing");
        }
        if domains.insert(domain.name.clone(), bundle.unwrap_or_default()).is_some() {
            at.fault(format!("is the second one of `{}`", domain.name));
        }
    }
    if domains.is_empty() {
        at.field("trust_domains").fault("is empty, so that nobody would be trusted");
    }
    Some(Arc::new(domains))
}

fn bundle_roots(pem: &[u8], at: &At<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let roots: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let whole = |root: &CertificateDer<'_>| X509Certificate::from_der(root).is_ok_and(|(rest, _)| rest.is_empty());
    match roots {
        Ok(roots) if !roots.is_empty() && roots.iter().all(whole) => Some(roots),
        _ => {
            at.fault("has no PEM certificates, or one that cannot be read");
            None
        }
    }
}

/// Rule 146. What is not safe is left out; what is not known, and what leaves nothing, is refused.
pub(super) fn params(value: &pb::TlsParameters, at: &At<'_>) -> TlsParams {
    let refused = [
        ("signature_algorithms", !value.signature_algorithms.is_empty()),
        ("compliance_policies", !value.compliance_policies.is_empty()),
    ];
    for (name, _) in refused.into_iter().filter(|(_, present)| *present) {
        at.field(name).fault("is not supported");
    }
    let no_tls12 = version(value.tls_minimum_protocol_version, "tls_minimum_protocol_version", at) == Some(Tls::V13);
    let most = version(value.tls_maximum_protocol_version, "tls_maximum_protocol_version", at);
    if most == Some(Tls::Older) {
        at.field("tls_maximum_protocol_version").fault("is older than TLS 1.2, and that is never spoken");
    }
    let no_tls13 = most == Some(Tls::V12);
    if no_tls12 && no_tls13 {
        at.field("tls_minimum_protocol_version").fault("is above tls_maximum_protocol_version");
    }
    let names = value.cipher_suites.iter().flat_map(|names| names.trim_matches(['[', ']']).split('|'));
    let ciphers = known(names, cipher, &at.field("cipher_suites"));
    let curves = known(value.ecdh_curves.iter().map(String::as_str), curve, &at.field("ecdh_curves"));
    let unsafe_only = ciphers.is_empty() && !value.cipher_suites.is_empty();
    if unsafe_only && no_tls13 {
        at.field("cipher_suites").fault("has only suites that are not safe, and those are never spoken");
    }
    if curves.is_empty() && !value.ecdh_curves.is_empty() {
        at.field("ecdh_curves").fault("has only groups that are never used");
    }
    // Without a suite of TLS 1.2 there is no TLS 1.2.
    TlsParams { no_tls12: no_tls12 || unsafe_only, no_tls13, ciphers, curves }
}

#[derive(PartialEq)]
enum Tls {
    Older,
    V12,
    V13,
}

/// None: it is left to us.
fn version(value: i32, name: &str, at: &At<'_>) -> Option<Tls> {
    match TlsProtocol::try_from(value) {
        Ok(TlsProtocol::TlsAuto) => None,
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => Some(Tls::Older),
        Ok(TlsProtocol::TlSv12) => Some(Tls::V12),
        Ok(TlsProtocol::TlSv13) => Some(Tls::V13),
        Err(_) => {
            at.field(name).fault(format!("is {value}, which is not known"));
            None
        }
    }
}

/// What a name means: Some(None) is what is never spoken.
type Meaning<T> = fn(&str) -> Option<Option<T>>;

fn known<'a, T: PartialEq>(names: impl Iterator<Item = &'a str>, read: Meaning<T>, at: &At<'_>) -> Vec<T> {
    let mut found = Vec::new();
    for name in names {
        match read(name) {
            Some(Some(value)) if !found.contains(&value) => found.push(value),
            Some(_) => {}
            None => at.fault(format!("has `{name}`, which is not known")),
        }
    }
    found
}

fn cipher(name: &str) -> Option<Option<CipherSuite>> {
    const NEVER: [&str; 8] = [
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
    ];
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" => Some(CipherSuite::EcdheEcdsaAes128GcmSha256),
        "ECDHE-ECDSA-AES256-GCM-SHA384" => Some(CipherSuite::EcdheEcdsaAes256GcmSha384),
        "ECDHE-ECDSA-CHACHA20-POLY1305" => Some(CipherSuite::EcdheEcdsaChacha20Poly1305),
        "ECDHE-RSA-AES128-GCM-SHA256" => Some(CipherSuite::EcdheRsaAes128GcmSha256),
        "ECDHE-RSA-AES256-GCM-SHA384" => Some(CipherSuite::EcdheRsaAes256GcmSha384),
        "ECDHE-RSA-CHACHA20-POLY1305" => Some(CipherSuite::EcdheRsaChacha20Poly1305),
        name => return NEVER.contains(&name).then_some(None),
    })
}

fn curve(name: &str) -> Option<Option<Curve>> {
    Some(match name {
        "X25519MLKEM768" => Some(Curve::X25519MlKem768),
        "X25519" => Some(Curve::X25519),
        "P-256" => Some(Curve::P256),
        "P-384" => Some(Curve::P384),
        "P-224" | "P-521" => None,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_with_and_without_colons() {
        let plain = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        assert_eq!(from_hex(&plain), Some([15; 32]));
        assert_eq!(from_hex(&colons), Some([15; 32]));
        for bad in ["", "0f", &plain[1..], &format!("{plain}0f"), &plain.replace('f', "g")] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
        assert_eq!(from_base64(&STANDARD.encode([7; 32])), Some([7; 32]));
        assert_eq!(from_base64(&STANDARD.encode([7; 31])), None);
    }
}
