//! Whether a certificate leads to whom we trust: one judgement for clients and servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::identity::{BadCertificate, Sans, SpiffeId};
use mesh_core::model::{CertificateChecks, CertificatePin};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ExtendedKeyPurpose, OtherError};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Authorities, Times};
use super::crl::Lists;
use super::crypto::sha256;
use super::flagged::Unflagged;
use super::material::Anchors;
use super::refusal::refuse;
use super::revocation;
use super::verify::{foreign, untrusted};

/// Whose certificate it is: it must be for that use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Server,
    #[cfg(feature = "server")]
    Client,
}

/// A leaf, as it is and parsed: that is done once for each handshake.
type Leaf<'a> = (&'a CertificateDer<'a>, &'a X509Certificate<'a>);

/// Judges certificates by one generation of roots and revocation lists.
pub(super) struct Chain {
    anchors: Anchors,
    lists: Option<Arc<Lists>>,
    checks: CertificateChecks,
    crypto: Arc<CryptoProvider>,
    side: Side,
    /// Of a foreign PKI: what must hold for certificates of the mesh need not for these.
    foreign: bool,
}

impl Chain {
    pub(super) fn new(
        anchors: Anchors,
        lists: Option<Arc<Lists>>,
        checks: CertificateChecks,
        crypto: &Arc<CryptoProvider>,
        side: Side,
        foreign: bool,
    ) -> Self {
        Self { anchors, lists, checks, crypto: crypto.clone(), side, foreign }
    }

    pub(super) fn checks(&self) -> &CertificateChecks {
        &self.checks
    }

    pub(super) fn crypto(&self) -> &CryptoProvider {
        &self.crypto
    }

    /// What clients are told of whom we trust; none is as good as all, as they then show what they have.
    #[cfg(feature = "server")]
    pub(super) fn hints(&self) -> Vec<rustls::DistinguishedName> {
        match &self.anchors {
            Anchors::Any(store) => store.subjects(),
            _ => Vec::new(),
        }
    }

    /// Whether it lets anybody in.
    pub(super) fn knows_nobody(&self) -> bool {
        matches!(self.anchors, Anchors::Nobody) && self.checks.pins.is_empty()
    }

    /// Whether the lists revoke one of these certificates, the leaf first.
    pub(super) fn is_revoked(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let Ok(roots) = self.anchors.of(leaf) else { return false };
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return false };
        let path = |now| self.path((leaf, &certificate), roots, intermediates, now);
        let found = match path(now) {
            Err(webpki::Error::CertExpired { not_after, .. }) => path(not_after),
            found => found,
        };
        found == Err(webpki::Error::CertRevoked)
    }

    /// The chain up to the roots, for its side, in its time, unrevoked, and of the certificates that are asked for. Names are
    /// another question.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let untrusted = |why: &dyn std::fmt::Display| refuse(untrusted(leaf, why));
        let Ok(([], certificate)) = X509Certificate::from_der(leaf) else {
            untrusted(&"it cannot be read");
            return Err(CertificateError::BadEncoding.into());
        };
        let refused = if !signs(&certificate) {
            Some("its key is not for signatures, by its key usage, and TLS needs one")
        } else if !self.is_pinned(leaf, &certificate) {
            Some("its hash is none of those that are asked for")
        } else {
            None
        };
        if let Some(why) = refused {
            untrusted(&why);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let verified = match &self.anchors {
            Anchors::Nobody => self.in_time(&certificate, now),
            Anchors::Spiffe(_) if !is_svid(leaf) => {
                return Err(foreign(
                    leaf,
                    "it is no X.509-SVID: it may sign others, does not say what its key is for, or is no workload's",
                ));
            }
            anchors => {
                let roots = anchors.of(leaf).map_err(|why| foreign(leaf, &why))?;
                // Whom it is itself to trust needs nobody's word. Who is revoked is for a list of its issuer to say.
                if self.foreign && self.lists.is_none() && roots.contains(leaf) {
                    self.in_time(&certificate, now)
                } else {
                    self.in_its_path((leaf, &certificate), roots, intermediates, now)
                }
            }
        };
        verified.map_err(translated).inspect_err(|error| untrusted(error))
    }

    fn in_its_path(
        &self,
        leaf: Leaf<'_>,
        roots: &Authorities,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        use webpki::Error::{CertExpired, CertNotValidYet};
        match self.path(leaf, roots, intermediates, now) {
            Err(CertExpired { not_after: then, .. } | CertNotValidYet { not_before: then, .. })
                if self.checks.allow_expired =>
            {
                self.path(leaf, roots, intermediates, then)
            }
            done => done,
        }
    }

    fn path(
        &self,
        (leaf, certificate): Leaf<'_>,
        roots: &Authorities,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let usage = match self.side {
            Side::Server => KeyUsage::server_auth(),
            #[cfg(feature = "server")]
            Side::Client => KeyUsage::client_auth(),
        };
        let check = |path: &VerifiedPath<'_>| self.check(path, (leaf, certificate), roots, now);
        let algorithms = self.crypto.signature_verification_algorithms.all;
        let judge = |leaf: &CertificateDer<'_>, algorithms: &[&dyn SignatureVerificationAlgorithm]| {
            let leaf = EndEntityCert::try_from(leaf)?;
            let judged =
                leaf.verify_for_usage(algorithms, roots.anchors(), intermediates, now, usage, None, Some(&check));
            judged.map(drop)
        };
        match self.foreign.then(|| Unflagged::new(leaf, certificate)).flatten() {
            None => judge(leaf, algorithms),
            Some(unflagged) => {
                let of_original = unflagged.algorithms(leaf, algorithms);
                let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
                    of_original.iter().map(|one| one as _).collect();
                judge(unflagged.der(), &algorithms)
            }
        }
    }

    /// What webpki does not ask of a path.
    fn check(
        &self,
        path: &VerifiedPath<'_>,
        leaf: Leaf<'_>,
        roots: &Authorities,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let most = self.checks.max_depth.and_then(|depth| usize::try_from(depth).ok());
        // As Envoy counts: on servers the root is one of them.
        #[cfg(feature = "server")]
        let most = if matches!(self.side, Side::Client) { most.map(|most| most.saturating_sub(1)) } else { most };
        if most.is_some_and(|most| path.intermediate_certificates().count() > most) {
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        roots.check(path, leaf, (!self.checks.allow_expired).then_some(now))?;
        let Some(lists) = &self.lists else { return Ok(()) };
        let asked = revocation::Asked { lists: lists.all(), root_key: roots.root_key(path), now, crypto: &self.crypto };
        asked.check(path, leaf.0, self.checks.crl_of_leaf_only)?;
        // As in Envoy: a root that another has issued is one of those who must be in a list.
        let ends = self.checks.crl_of_leaf_only || !roots.has_issuer(path);
        if ends { Ok(()) } else { Err(webpki::Error::UnknownRevocationStatus) }
    }

    fn is_pinned(&self, leaf: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> bool {
        let pins = &self.checks.pins;
        let hashes = |bytes: &[u8], hash: &[u8; 32]| sha256(&self.crypto, bytes).is_some_and(|found| found == *hash);
        pins.is_empty()
            || pins.iter().any(|pin| match pin {
                CertificatePin::Certificate(hash) => hashes(leaf, hash),
                CertificatePin::PublicKey(hash) => hashes(certificate.public_key().raw, hash),
            })
    }

    /// A certificate without a chain, which is held against nothing but its own time.
    fn in_time(&self, certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let any_time = self.checks.allow_expired || self.checks.accept_untrusted;
        if any_time { Ok(()) } else { Times::of(certificate).check(now) }
    }
}

/// The time on `clock`, for who judges certificates outside a handshake of rustls.
pub(super) fn now(clock: &dyn TimeProvider) -> io::Result<UnixTime> {
    clock.current_time().ok_or_else(|| io::Error::other("the time is not known, and certificates are good by it"))
}

/// Whether the key of a leaf may sign: both versions of TLS have it do so (RFC 8446, 4.4.2.2), and BoringSSL insists.
fn signs(leaf: &X509Certificate<'_>) -> bool {
    leaf.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.digital_signature()))
}

/// What the SPIFFE validator of Envoy asks of a leaf: it is no authority, and says that its key signs no certificates.
fn is_svid(leaf: &CertificateDer<'_>) -> bool {
    let read = || {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| BadCertificate)?;
        let usage = certificate.key_usage().map_err(|_| BadCertificate)?.ok_or(BadCertificate)?;
        let signs = certificate.is_ca() || usage.value.key_cert_sign() || usage.value.crl_sign();
        // Of a trust domain itself, without a path, no workload is.
        let of_workload = |uri: &String| uri.parse().is_ok_and(|id: SpiffeId| !id.path().is_empty());
        Ok::<bool, BadCertificate>(!signs && Sans::read(leaf)?.uris.iter().all(of_workload))
    };
    read().unwrap_or(false)
}

/// webpki's word as rustls says it, from which the alert for the peer is made.
fn translated(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { time, next_update } => CertificateError::ExpiredRevocationListContext { time, next_update },
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(found) => CertificateError::InvalidPurposeContext {
            required: purpose(found.required.oid_values().collect()),
            presented: found.present.into_iter().map(purpose).collect(),
        },
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
    .into()
}

fn purpose(oid: Vec<usize>) -> ExtendedKeyPurpose {
    match oid.as_slice() {
        [1, 3, 6, 1, 5, 5, 7, 3, 1] => ExtendedKeyPurpose::ServerAuth,
        [1, 3, 6, 1, 5, 5, 7, 3, 2] => ExtendedKeyPurpose::ClientAuth,
        _ => ExtendedKeyPurpose::Other(oid),
    }
}

/// How long a list may go unread: a revoked peer must be out within 5 s.
pub(super) const REVOCATION_INTERVAL: Duration = Duration::from_secs(1);
