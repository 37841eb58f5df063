//! TLS policy: which identity to show, whom to trust, and who the peer must be (gRFC A29).

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
    pub client_roots: Option<CertificateRef>,
    /// `require_client_certificate`.
    pub require_client_certificate: bool,
    /// `match_subject_alt_names` for clients; empty takes every chain-valid certificate.
    pub sans: Vec<SanMatch>,
}

/// Material from a certificate provider of the bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateRef {
    /// `instance_name`: a key of `certificate_providers`.
    pub instance: Name,
    /// `certificate_name`: which certificate of that instance; `file_watcher` has one and ignores it.
    pub certificate: Name,
}

/// Whom a client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustRoots {
    /// The roots of a certificate provider.
    Provider(CertificateRef),
    /// The operating system's (gRFC A82).
    System,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// An e-mail address.
    Email,
    /// A DNS name.
    Dns,
    /// A URI: SPIFFE identities are these.
    Uri,
    /// An IP address.
    IpAddress,
}
