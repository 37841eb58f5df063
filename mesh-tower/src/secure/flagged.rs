//! A leaf that is an authority's, where its PKI is not the mesh's.
//!
//! OpenSSL and BoringSSL let such a certificate speak for its names, as an authority could write itself any other leaf; webpki
//! does not, and has no switch for it. So webpki is shown the leaf without its flag, and the signature is verified over what was
//! signed. Path, times, usages and constraints stay webpki's to judge, with the leaf as the leaf.

use std::ops::Range;

use rustls::pki_types::{AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm};
use x509_parser::oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS;
use x509_parser::prelude::X509Certificate;

/// The bytes of BasicConstraints in front of the flag: a sequence, its length, and a boolean of one byte.
const FLAG: usize = 4;

/// A leaf without its flag.
pub(super) struct Unflagged {
    der: CertificateDer<'static>,
    /// Where the signed part is, with the flag or without.
    signed: Range<usize>,
}

impl Unflagged {
    /// `leaf`, which was read from `der`; None: it has no flag.
    pub(super) fn new(der: &CertificateDer<'_>, leaf: &X509Certificate<'_>) -> Option<Self> {
        let constraints = leaf.iter_extensions().find(|extension| extension.oid == OID_X509_EXT_BASIC_CONSTRAINTS)?;
        let [0x30, _, 0x01, 0x01, 0xff, ..] = constraints.value else { return None };
        let flag = place(der, constraints.value)?.start + FLAG;
        let mut bytes = der.to_vec();
        *bytes.get_mut(flag)? = 0;
        Some(Self { der: bytes.into(), signed: place(der, leaf.tbs_certificate.as_ref())? })
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// `algorithms`, which verify the signature on this leaf over what was signed in `original`.
    pub(super) fn algorithms<'a>(
        &'a self,
        original: &'a CertificateDer<'_>,
        algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    ) -> Vec<OfOriginal<'a>> {
        let part = |der: &'a [u8]| der.get(self.signed.clone()).unwrap_or_default();
        let (shown, signed) = (part(&self.der), part(original));
        algorithms.iter().map(|algorithm| OfOriginal { algorithm: *algorithm, shown, signed }).collect()
    }
}

fn place(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let range = start..start + part.len();
    (whole.get(range.clone())? == part).then_some(range)
}

/// An algorithm that verifies a signature on `shown` over `signed`, and every other one as it stands.
#[derive(Debug)]
pub(super) struct OfOriginal<'a> {
    algorithm: &'a dyn SignatureVerificationAlgorithm,
    shown: &'a [u8],
    signed: &'a [u8],
}

impl SignatureVerificationAlgorithm for OfOriginal<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let message = if message == self.shown { self.signed } else { message };
        self.algorithm.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}
