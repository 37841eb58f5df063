//! TLS policy: which identity to show, whom to trust, and who the peer must be (gRFC A29).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::Name;
use super::matcher::StringMatch;

/// `UpstreamTlsContext`: TLS from a client to the endpoints of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The certificate shown to the server; None: no client certificate.
    pub identity: Option<CertificateRef>,
    /// Whom to trust.
    pub roots: TrustRoots,
    /// `match_subject_alt_names`: one SAN of the server must match one of these; empty takes every chain-valid
    /// certificate (gRFC A29).
    pub sans: Vec<SanMatch>,
    /// `sni` (gRFC A101).
    pub sni: Option<String>,
    /// `auto_host_sni`: the endpoint's hostname is the SNI.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: a DNS SAN must equal the SNI that was sent.
    pub auto_sni_san_validation: bool,
    /// `alpn_protocols`; empty: chosen from the protocol in use.
    pub alpn: Vec<String>,
    /// What else is looked at in the server's certificate.
    pub checks: CertificateChecks,
    /// `tls_params`.
    pub params: TlsParams,
}

impl UpstreamTls {
    /// Whether a server that passes is the one that is meant, and not just any of the mesh: its SAN is demanded.
    pub fn proves_identity(&self) -> bool {
        !self.sans.is_empty() || self.auto_sni_san_validation
    }
}

/// `DownstreamTlsContext`: TLS of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamTls {
    /// The certificate shown to clients.
    pub identity: CertificateRef,
    /// Whom to trust; None: clients are not asked for a certificate.
    pub client_roots: Option<TrustRoots>,
    /// `require_client_certificate`.
    pub require_client_certificate: bool,
    /// `match_subject_alt_names` for clients; empty takes every chain-valid certificate.
    pub sans: Vec<SanMatch>,
    /// What else is looked at in clients' certificates.
    pub checks: CertificateChecks,
    /// `tls_params`.
    pub params: TlsParams,
}

/// Material from a certificate provider of the bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateRef {
    /// `instance_name`: a key of `certificate_providers`.
    pub instance: Name,
    /// `certificate_name`: which certificate of that instance; `file_watcher` has one and ignores it.
    pub certificate: Name,
}

/// Whom one side trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustRoots {
    /// The roots of a certificate provider.
    Provider(CertificateRef),
    /// The operating system's (gRFC A82); never for clients of a server.
    System,
    /// `custom_validator_config` of `envoy.tls.cert_validator.spiffe`: the roots of the peer's trust domain, which are in the
    /// resource.
    Spiffe(Arc<BTreeMap<String, Vec<CertificateDer<'static>>>>),
    /// Nobody's. The peer's certificate is one of those in [`CertificateChecks::pins`]; without pins it is anybody's, which
    /// only a resource may say that is named insecure here.
    Nobody,
}

/// What a `CertificateValidationContext` says beside roots and names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateChecks {
    /// `crl`: who is revoked. With one, every issuer must have one, as in Envoy: of whom nothing is known is not trusted.
    pub crl: Option<CrlSource>,
    /// `only_verify_leaf_cert_crl`: the issuer of the leaf is the only one that needs a CRL.
    pub crl_of_leaf_only: bool,
    /// `max_verify_depth`: at most so many certificates between the leaf and the root. Above 6 it is 6.
    pub max_depth: Option<u32>,
    /// `verify_certificate_hash` and `verify_certificate_spki`: the leaf must be one of these, if there are any.
    pub pins: Vec<CertificatePin>,
    /// `allow_expired_certificate`, in a resource that is named insecure here.
    pub allow_expired: bool,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`, in a resource that is named insecure here: who is not trusted is let in,
    /// and is nobody.
    pub accept_untrusted: bool,
}

/// Where a certificate revocation list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrlSource {
    /// In the resource, as DER.
    Inline(Arc<[Vec<u8>]>),
    /// In this file, PEM or DER, which is read again as it changes.
    File(PathBuf),
}

/// Which certificate a peer must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificatePin {
    /// The one of this SHA-256.
    Certificate([u8; 32]),
    /// One whose `SubjectPublicKeyInfo` has this SHA-256.
    PublicKey([u8; 32]),
}

/// `TlsParameters`: what of TLS may be spoken. TLS 1.2 and 1.3 are, as in gRPC; older ones never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsParams {
    /// `tls_minimum_protocol_version` is 1.3.
    pub no_tls12: bool,
    /// `tls_maximum_protocol_version` is 1.2.
    pub no_tls13: bool,
    /// `cipher_suites` of TLS 1.2, the preferred first; empty: all that are safe.
    pub ciphers: Vec<CipherSuite>,
    /// `ecdh_curves`, the preferred first; empty: X25519MLKEM768, X25519, P-256 and P-384.
    pub curves: Vec<Curve>,
}

/// A cipher suite of TLS 1.2. Those that are not here (CBC, RSA key exchange) are never spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names are OpenSSL's")]
pub enum CipherSuite {
    EcdheEcdsaAes128GcmSha256,
    EcdheEcdsaAes256GcmSha384,
    EcdheEcdsaChacha20Poly1305,
    EcdheRsaAes128GcmSha256,
    EcdheRsaAes256GcmSha384,
    EcdheRsaChacha20Poly1305,
}

/// A group that keys are exchanged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Curve {
    X25519MlKem768,
    X25519,
    P256,
    P384,
}

/// `SubjectAltNameMatcher`, or an entry of the older `match_subject_alt_names`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanMatch {
    /// Which kind of SAN; None: any (the older spelling).
    pub kind: Option<SanKind>,
    /// What it must be.
    pub matcher: StringMatch,
}

/// `SubjectAltNameMatcher.SanType`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SanKind {
    /// An e-mail address.
    Email,
    /// A DNS name.
    Dns,
    /// A URI: SPIFFE identities are these.
    Uri,
    /// An IP address.
    IpAddress,
    /// Another name of this type (`oid`), in dotted decimal: a user principal name has 1.3.6.1.4.1.311.20.2.3.
    OtherName(Name),
}
