//! Whether a certificate leads to whom we trust: one judgement for clients and servers.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::identity::{BadCertificate, Sans, SpiffeId};
use mesh_core::model::{CertificateChecks, CertificatePin};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, ExtendedKeyPurpose, OtherError};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::crl::Lists;
use super::crypto::sha256;
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

/// Judges certificates by one generation of roots and revocation lists.
pub(super) struct Chain {
    anchors: Anchors,
    lists: Option<Arc<Lists>>,
    checks: CertificateChecks,
    crypto: Arc<CryptoProvider>,
    side: Side,
}

impl Chain {
    pub(super) fn new(
        anchors: Anchors,
        lists: Option<Arc<Lists>>,
        checks: &CertificateChecks,
        crypto: &Arc<CryptoProvider>,
        side: Side,
    ) -> Self {
        Self { anchors, lists, checks: checks.clone(), crypto: crypto.clone(), side }
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
        let path = |now| self.path(leaf, &roots.roots, intermediates, now);
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
        if !self.is_pinned(leaf) {
            let error = CertificateError::ApplicationVerificationFailure.into();
            refuse(untrusted(leaf, &"its hash is none of those that are asked for"));
            return Err(error);
        }
        let roots = match &self.anchors {
            Anchors::Nobody => return self.in_time(leaf, now).inspect_err(|error| refuse(untrusted(leaf, error))),
            Anchors::Spiffe(_) if !is_svid(leaf) => {
                return Err(foreign(
                    leaf,
                    "it is no X.509-SVID: it may sign others, does not say what its key is for, or is no workload's",
                ));
            }
            anchors => anchors.of(leaf).map_err(|why| foreign(leaf, &why))?,
        };
        let verified = match self.path(leaf, &roots.roots, intermediates, now) {
            Err(
                webpki::Error::CertExpired { not_after: then, .. }
                | webpki::Error::CertNotValidYet { not_before: then, .. },
            ) if self.checks.allow_expired => self.path(leaf, &roots.roots, intermediates, then),
            done => done,
        };
        verified.map_err(translated).inspect_err(|error| refuse(untrusted(leaf, error)))
    }

    fn path(
        &self,
        leaf: &CertificateDer<'_>,
        roots: &[rustls::pki_types::TrustAnchor<'_>],
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let usage = match self.side {
            Side::Server => KeyUsage::server_auth(),
            #[cfg(feature = "server")]
            Side::Client => KeyUsage::client_auth(),
        };
        let most = self.checks.max_depth.and_then(|depth| usize::try_from(depth).ok());
        // As Envoy counts: on servers the root is one of them.
        #[cfg(feature = "server")]
        let most = if matches!(self.side, Side::Client) { most.map(|most| most.saturating_sub(1)) } else { most };
        let check = |path: &VerifiedPath<'_>| {
            if most.is_some_and(|most| path.intermediate_certificates().count() > most) {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            let Some(lists) = &self.lists else { return Ok(()) };
            revocation::check(lists.all(), path, leaf, self.checks.crl_of_leaf_only, now, &self.crypto)
        };
        let certificate = EndEntityCert::try_from(leaf)?;
        let algorithms = self.crypto.signature_verification_algorithms.all;
        certificate.verify_for_usage(algorithms, roots, intermediates, now, usage, None, Some(&check)).map(drop)
    }

    fn is_pinned(&self, leaf: &CertificateDer<'_>) -> bool {
        let pins = &self.checks.pins;
        let public_key = || {
            let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
            sha256(&self.crypto, certificate.public_key().raw)
        };
        pins.is_empty()
            || pins.iter().any(|pin| match pin {
                CertificatePin::Certificate(hash) => sha256(&self.crypto, leaf).is_some_and(|found| found == *hash),
                CertificatePin::PublicKey(hash) => public_key().is_some_and(|found| found == *hash),
            })
    }

    /// A certificate without a chain, which is held against nothing but its own time.
    fn in_time(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        if self.checks.allow_expired || self.checks.accept_untrusted {
            return Ok(());
        }
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > certificate.validity().not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if now < certificate.validity().not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        Ok(())
    }
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
