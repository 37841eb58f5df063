//! What the tests of TLS share: authorities, certificates, policies.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::identity::{CertificateProviders, CertificateSource, StaticSource};
use mesh_core::model::{
    CertificateRef, DownstreamTls, Pattern, SanKind, SanMatch, StringMatch, TrustRoots, UpstreamTls,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Secure;

/// The instance name that every policy here refers to.
pub(crate) const INSTANCE: &str = "mesh";

/// A certificate authority.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    params: CertificateParams,
    /// Of an intermediate one: itself, which goes behind what it issues.
    chain: Vec<CertificateDer<'static>>,
}

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) uris: Vec<&'static str>,
    pub(crate) dns: Vec<&'static str>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) expired: bool,
    /// Whether it says what its key is for; webs of trust differ.
    pub(crate) key_usage: bool,
    /// Whether its key may sign certificates.
    pub(crate) signs: bool,
    /// What kind of key it is.
    pub(crate) key: &'static SignatureAlgorithm,
}

impl Leaf {
    /// A workload's, as a mesh issues it.
    pub(crate) fn workload(uri: &'static str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let names = Self { uris: vec![uri], dns: Vec::new(), ips: Vec::new(), ..Self::web("") };
        Self { usages, ..names }
    }

    /// A web server's.
    pub(crate) fn web(dns: &'static str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (uris, ips) = (Vec::new(), Vec::new());
        let key = &PKCS_ECDSA_P256_SHA256;
        Self { uris, dns: vec![dns], ips, usages, expired: false, key_usage: true, signs: false, key }
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// One whose own certificate is changed so.
    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = Self::params();
        change(&mut params);
        let issuer = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
        Self { issuer, params, chain: Vec::new() }
    }

    fn params() -> CertificateParams {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut params = CertificateParams::default();
        // A name of its own: authorities are told apart by their names before their keys are tried.
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// One of the same name, and with a key of its own.
    pub(crate) fn impostor(&self) -> Self {
        let issuer = CertifiedIssuer::self_signed(self.params.clone(), KeyPair::generate().unwrap()).unwrap();
        Self { issuer, params: self.params.clone(), chain: Vec::new() }
    }

    /// One of the same name and key, whose certificate is changed so.
    pub(crate) fn twin(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = self.params.clone();
        change(&mut params);
        let key = KeyPair::from_pem(&self.issuer.key().serialize_pem()).unwrap();
        let issuer = CertifiedIssuer::self_signed(params.clone(), key).unwrap();
        Self { issuer, params, chain: Vec::new() }
    }

    /// An authority under this one.
    pub(crate) fn intermediate(&self) -> Self {
        self.intermediate_with(|_| {})
    }

    /// The same, whose own certificate is changed so.
    pub(crate) fn intermediate_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = Self::params();
        change(&mut params);
        let issuer = CertifiedIssuer::signed_by(params.clone(), KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let chain = [vec![issuer.der().clone()], self.chain.clone()].concat();
        Self { issuer, params, chain }
    }

    /// The number of its own certificate.
    pub(crate) fn serial(&self) -> Vec<u8> {
        let (_, own) = x509_parser::parse_x509_certificate(self.issuer.der()).unwrap();
        own.raw_serial().to_vec()
    }

    /// A list of nobody that says another key has signed it.
    pub(crate) fn crl_of_another_key(&self) -> Vec<u8> {
        let key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
        let params = CertificateRevocationListParams { key_identifier_method, ..crl_params(&[], false) };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    /// Its list of revoked numbers, as DER.
    pub(crate) fn crl(&self, revoked: &[Vec<u8>], expired: bool) -> Vec<u8> {
        crl_params(revoked, expired).signed_by(&self.issuer).unwrap().der().to_vec()
    }

    /// A list in its name that `other` has signed.
    pub(crate) fn forged_crl(&self, other: &Self) -> Vec<u8> {
        let key = KeyPair::from_pem(&other.issuer.key().serialize_pem()).unwrap();
        let forger = Issuer::new(self.params.clone(), key);
        crl_params(&[], false).signed_by(&forger).unwrap().der().to_vec()
    }

    /// Gives `source` a new certificate of this authority, with the chain up to the root.
    pub(crate) fn show(&self, source: &StaticSource, leaf: &Leaf) {
        self.show_with(source, leaf, |_| {});
    }

    /// Gives `source` a new certificate of this authority, which is changed so.
    pub(crate) fn show_with(&self, source: &StaticSource, leaf: &Leaf, change: impl FnOnce(&mut CertificateParams)) {
        let (certificate, key) = self.issue_with(leaf, change);
        let chain = [vec![certificate.der().clone()], self.chain.clone()].concat();
        source.set_identity(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Its root as a key of a SPIFFE bundle.
    pub(crate) fn root_jwk(&self) -> String {
        let pem = self.root_pem();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        format!(r#"{{"kty": "EC", "use": "x509-svid", "x5c": ["{base64}"]}}"#)
    }

    pub(crate) fn root_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The certificate and its key.
    pub(crate) fn issue(&self, leaf: &Leaf) -> (rcgen::Certificate, KeyPair) {
        self.issue_with(leaf, |_| {})
    }

    /// The same, of a certificate that is changed so.
    pub(crate) fn issue_with(
        &self,
        leaf: &Leaf,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let uris = leaf.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        let dns = leaf.dns.iter().map(|dns| SanType::DnsName((*dns).try_into().unwrap()));
        let ips = leaf.ips.iter().map(|ip| SanType::IpAddress(*ip));
        params.subject_alt_names = uris.chain(dns).chain(ips).collect();
        params.extended_key_usages = leaf.usages.clone();
        if leaf.key_usage {
            params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        }
        if leaf.signs {
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        if leaf.expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        change(&mut params);
        let key = KeyPair::generate_for(leaf.key).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

fn crl_params(revoked: &[Vec<u8>], expired: bool) -> CertificateRevocationListParams {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(if expired { 2021 } else { 2120 }, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// Makes an authority's certificate of a leaf.
pub(crate) fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
}

/// A source that trusts `ca` as a foreign PKI, and has a certificate of it.
pub(crate) fn foreign(ca: &Ca, leaf: &Leaf) -> Arc<StaticSource> {
    let source = Arc::new(StaticSource::foreign());
    source.set_trust(vec![ca.root()]);
    show(&source, ca, leaf);
    source
}

/// A source that trusts `ca`, without an identity.
pub(crate) fn trusting(ca: &Ca) -> Arc<StaticSource> {
    let source = Arc::new(StaticSource::new());
    source.set_trust(vec![ca.root()]);
    source
}

/// A source that trusts `ca` and has a certificate of it.
pub(crate) fn source(ca: &Ca, leaf: &Leaf) -> Arc<StaticSource> {
    let source = trusting(ca);
    show(&source, ca, leaf);
    source
}

/// Gives `source` a new certificate.
pub(crate) fn show(source: &StaticSource, ca: &Ca, leaf: &Leaf) {
    ca.show(source, leaf);
}

/// TLS with the material of `source`.
pub(crate) fn secure(source: &Arc<StaticSource>) -> Secure {
    Secure::new(CertificateProviders::new().with(INSTANCE, source.clone()))
}

fn reference() -> CertificateRef {
    CertificateRef { instance: INSTANCE.into(), certificate: "".into() }
}

/// A client's policy that shows its identity and takes every server of the mesh.
pub(crate) fn upstream() -> UpstreamTls {
    UpstreamTls {
        identity: Some(reference()),
        roots: TrustRoots::Provider(reference()),
        sans: Vec::new(),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        alpn: Vec::new(),
        checks: Default::default(),
        params: Default::default(),
    }
}

/// A server's policy that demands a certificate of the mesh.
pub(crate) fn downstream() -> DownstreamTls {
    DownstreamTls {
        identity: reference(),
        client_roots: Some(TrustRoots::Provider(reference())),
        require_client_certificate: true,
        sans: Vec::new(),
        checks: Default::default(),
        params: Default::default(),
    }
}

/// A matcher of one whole name.
pub(crate) fn exactly(kind: SanKind, name: &str) -> SanMatch {
    SanMatch { kind: Some(kind), matcher: StringMatch { pattern: Pattern::Exact(name.to_owned()), ignore_case: false } }
}

/// The cryptography that tests make their own ends with.
pub(crate) fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    super::crypto::provider().unwrap()
}

/// The number of the certificate that `source` shows.
pub(crate) fn serial(source: &StaticSource) -> Vec<u8> {
    let identity = CertificateSource::identity(source).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&identity.chain[0]).unwrap();
    leaf.raw_serial().to_vec()
}
