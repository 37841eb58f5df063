//! Who is at the other end: first that the certificate is one of ours, then that it is the right one.

use std::fmt;
use std::sync::Arc;

use mesh_core::error::Code;
use mesh_core::identity::Sans;
use mesh_core::model::{Pattern, SanKind, SanMatch, UpstreamTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

use super::chain::Chain;
use super::peers::Peers;
use super::refusal::{Refusal, refuse};

/// How a server's certificate is held against what was asked for.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// By the policy's matchers: not by host name (gRFC A29).
    Policy(Arc<UpstreamTls>),
    /// By host name.
    Host,
}

/// Verifies servers.
pub(super) struct ServerVerifier {
    chain: Chain,
    names: Names,
    peers: Peers,
    sans: Vec<SanMatch>,
}

impl ServerVerifier {
    /// `sans` are the policy's, and those of the secret that its roots come from.
    pub(super) fn new(chain: Chain, names: Names, peers: Peers, sans: Vec<SanMatch>) -> Self {
        Self { chain, names, peers, sans }
    }

    fn accepts_untrusted(&self) -> bool {
        self.chain.checks().accept_untrusted
    }

    /// Lets in who is let in, proven or not.
    pub(super) fn admit(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let verified = self.verify(leaf, intermediates, name, now);
        if self.accepts_untrusted() { Ok(()) } else { verified }
    }

    /// The chain, up to the roots, for servers, in its time; then its names.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.chain.verify(leaf, intermediates, now)?;
        match &self.names {
            Names::Policy(policy) => self.check_names(leaf, policy, name),
            Names::Host => ParsedCertificate::try_from(leaf)
                .and_then(|parsed| verify_server_name(&parsed, name))
                .inspect_err(|_| refuse(wrong(leaf, &format!("and it must have the name `{}`", name.to_str())))),
        }
    }

    /// gRFC A29's matching, or gRFC A101's where a name was sent and the policy says so.
    fn check_names(
        &self,
        leaf: &CertificateDer<'_>,
        policy: &UpstreamTls,
        name: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        let sans = read(leaf)?;
        // Only a DNS name is sent as SNI.
        if policy.auto_sni_san_validation
            && let ServerName::DnsName(sent) = name
        {
            self.peers.check_form(&sans).or_else(|must| refused(leaf, &must))?;
            if sans.match_dns(sent.as_ref()) {
                return Ok(());
            }
            return refused(leaf, &format!("and it must have the DNS name `{}`, which was sent as SNI", sent.as_ref()));
        }
        self.peers.check(&sans).or_else(|must| refused(leaf, &must))?;
        check_sans(leaf, &sans, &self.sans)
    }

    /// Whether the certificates prove who shows them, which they need not where whoever is not trusted is let in.
    pub(super) fn proves(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        !self.accepts_untrusted()
            || (!self.chain.knows_nobody() && self.verify(leaf, intermediates, name, UnixTime::now()).is_ok())
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.chain.crypto().signature_verification_algorithms
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.admit(leaf, intermediates, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A client's names, once its chain is verified.
#[cfg(feature = "server")]
pub(super) fn check_client(leaf: &CertificateDer<'_>, wanted: &[SanMatch], peers: &Peers) -> Result<(), rustls::Error> {
    let sans = read(leaf)?;
    peers.check(&sans).or_else(|must| refused(leaf, &must))?;
    check_sans(leaf, &sans, wanted)
}

fn check_sans(leaf: &CertificateDer<'_>, sans: &Sans, wanted: &[SanMatch]) -> Result<(), rustls::Error> {
    if sans.match_any(wanted) {
        return Ok(());
    }
    refused(
        leaf,
        &format!("and one of its names must be {}", wanted.iter().map(describe).collect::<Vec<_>>().join(" or ")),
    )
}

fn read(leaf: &CertificateDer<'_>) -> Result<Sans, rustls::Error> {
    Sans::read(leaf).map_err(|error| {
        refuse(Refusal {
            code: Code::WRONG_IDENTITY,
            text: format!("presented a certificate without identity: {error}"),
        });
        CertificateError::BadEncoding.into()
    })
}

fn refused(leaf: &CertificateDer<'_>, must: &str) -> Result<(), rustls::Error> {
    refuse(wrong(leaf, must));
    Err(CertificateError::ApplicationVerificationFailure.into())
}

fn wrong(leaf: &CertificateDer<'_>, must: &str) -> Refusal {
    Refusal { code: Code::WRONG_IDENTITY, text: format!("presented a certificate for {}, {must}", presented(leaf)) }
}

/// The refusal of a chain.
pub(super) fn untrusted(leaf: &CertificateDer<'_>, error: &dyn fmt::Display) -> Refusal {
    let text = format!("presented a certificate for {} that is not trusted: {error}", presented(leaf));
    Refusal { code: Code::HANDSHAKE, text }
}

/// Refuses a chain for which there are no roots.
pub(super) fn foreign(leaf: &CertificateDer<'_>, why: &str) -> rustls::Error {
    let text = format!("presented a certificate for {} that is not trusted: {why}", presented(leaf));
    refuse(Refusal { code: Code::HANDSHAKE, text });
    CertificateError::UnknownIssuer.into()
}

/// The names of a certificate, cut to what fits into a log line: whoever presents it is not trusted.
fn presented(leaf: &CertificateDer<'_>) -> String {
    const LONGEST: usize = 512;
    let mut names = Sans::read(leaf).map_or_else(|error| error.to_string(), |sans| sans.to_string());
    if names.len() > LONGEST {
        // Names are ASCII: `Sans` refuses others.
        names.truncate(LONGEST);
        names.push_str("...");
    }
    names
}

fn describe(wanted: &SanMatch) -> String {
    let kind = match &wanted.kind {
        None => "",
        Some(SanKind::Uri) => "URI ",
        Some(SanKind::Dns) => "DNS ",
        Some(SanKind::Email) => "email ",
        Some(SanKind::IpAddress) => "IP ",
        Some(SanKind::OtherName(oid)) => &format!("other name {oid} "),
    };
    let (how, text) = match &wanted.matcher.pattern {
        Pattern::Exact(text) => ("", text.as_str()),
        Pattern::Prefix(text) => ("beginning with ", text.as_str()),
        Pattern::Suffix(text) => ("ending in ", text.as_str()),
        Pattern::Contains(text) => ("containing ", text.as_str()),
        Pattern::Regex(regex) => ("matching ", regex.as_str()),
    };
    format!("{kind}{how}`{text}`")
}
