//! Who is at the other end of a connection.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::san::Sans;
use super::spiffe::SpiffeId;
use super::subject;

/// The proven identity of a peer. It is in the extensions of each request that came over a connection with a client
/// certificate.
#[derive(Debug, Clone)]
pub struct PeerIdentity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spiffe_id: Option<SpiffeId>,
    sans: Sans,
    subject: String,
    chain: Vec<CertificateDer<'static>>,
}

/// Names and subject of a certificate, which is parsed once: this is done in every handshake.
fn read(leaf: &CertificateDer<'_>) -> Result<(Sans, String), super::BadCertificate> {
    match X509Certificate::from_der(leaf) {
        Ok(([], certificate)) => Ok((Sans::of(&certificate)?, subject::of(&certificate))),
        _ => Err(super::BadCertificate),
    }
}

impl PeerIdentity {
    /// The identity that `chain`, the leaf first, proves. It must have been verified.
    ///
    /// # Errors
    ///
    /// When the leaf's names cannot be read.
    pub fn from_verified_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, super::BadCertificate> {
        let leaf = chain.first().ok_or(super::BadCertificate)?;
        let (sans, subject) = read(leaf)?;
        // Exactly one URI: with several, which one is the identity is anyone's guess (SPIFFE X.509-SVID, section 2).
        let spiffe_id = match sans.uris.as_slice() {
            [uri] => uri.parse().ok(),
            _ => None,
        };
        Ok(Self(Arc::new(Inner { spiffe_id, sans, subject, chain })))
    }

    /// The peer's SPIFFE ID, if its certificate has exactly one URI and that is one.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.0.spiffe_id.as_ref()
    }

    /// All names of its certificate.
    pub fn sans(&self) -> &Sans {
        &self.0.sans
    }

    /// The subject of its certificate, as RFC 2253 writes it: `CN=a,O=b`. Empty if it has none. Mesh certificates have
    /// better names; see [`spiffe_id`](Self::spiffe_id) and [`sans`](Self::sans).
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Its certificates, the leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// An identity of these names, for tests of what decides on names alone.
    #[cfg(test)]
    pub(crate) fn of_names(sans: Sans, subject: &str) -> Self {
        Self(Arc::new(Inner { spiffe_id: None, sans, subject: subject.to_owned(), chain: Vec::new() }))
    }
}
