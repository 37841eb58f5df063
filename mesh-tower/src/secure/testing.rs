//! What the tests of TLS share: authorities, certificates, policies.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::identity::{CertificateProviders, StaticSource};
use mesh_core::model::{
    CertificateRef, DownstreamTls, Pattern, SanKind, SanMatch, StringMatch, TrustRoots, UpstreamTls,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Secure;

/// The instance name that every policy here refers to.
pub(crate) const INSTANCE: &str = "mesh";

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) uris: Vec<&'static str>,
    pub(crate) dns: Vec<&'static str>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) expired: bool,
}

impl Leaf {
    /// A workload's, as a mesh issues it.
    pub(crate) fn workload(uri: &'static str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { uris: vec![uri], dns: Vec::new(), ips: Vec::new(), usages, expired: false }
    }

    /// A web server's.
    pub(crate) fn web(dns: &'static str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Self { uris: Vec::new(), dns: vec![dns], ips: Vec::new(), usages, expired: false }
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut params = CertificateParams::default();
        // A name of its own: authorities are told apart by their names before their keys are tried.
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Its root as a key of a SPIFFE bundle.
    pub(crate) fn root_jwk(&self) -> String {
        let pem = self.root_pem();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        format!(r#"{{"kty": "EC", "use": "x509-svid", "x5c": ["{base64}"]}}"#)
    }

    pub(crate) fn root_pem(&self) -> String {
        self.0.pem()
    }

    /// The certificate and its key.
    pub(crate) fn issue(&self, leaf: &Leaf) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let uris = leaf.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        let dns = leaf.dns.iter().map(|dns| SanType::DnsName((*dns).try_into().unwrap()));
        let ips = leaf.ips.iter().map(|ip| SanType::IpAddress(*ip));
        params.subject_alt_names = uris.chain(dns).chain(ips).collect();
        params.extended_key_usages = leaf.usages.clone();
        if leaf.expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
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
    let (certificate, key) = ca.issue(leaf);
    source.set_identity(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
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
    }
}

/// A server's policy that demands a certificate of the mesh.
pub(crate) fn downstream() -> DownstreamTls {
    DownstreamTls {
        identity: reference(),
        client_roots: Some(reference()),
        require_client_certificate: true,
        sans: Vec::new(),
    }
}

/// A matcher of one whole name.
pub(crate) fn exactly(kind: SanKind, name: &str) -> SanMatch {
    SanMatch { kind: Some(kind), matcher: StringMatch { pattern: Pattern::Exact(name.to_owned()), ignore_case: false } }
}
