//! Certificates for tests, made on the spot.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A self-signed certificate, good for this time.
pub(crate) fn certificate(from: SystemTime, until: SystemTime) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (from.into(), until.into());
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

/// Any key.
pub(crate) fn key() -> PrivateKeyDer<'static> {
    KeyPair::generate().unwrap().into()
}

/// A CA.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What it issued.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn root_pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `uri`, good from now on.
    pub(crate) fn issue(&self, uri: &str, life: Duration) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let now = SystemTime::now();
        (params.not_before, params.not_after) = (now.into(), (now + life).into());
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: key.into(),
        }
    }

    /// A certificate for the key in a signing request, for `uri`.
    pub(crate) fn sign(&self, request: &str, uri: &str, from: SystemTime, life: Duration) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        (request.params.not_before, request.params.not_after) = (from.into(), (from + life).into());
        request.signed_by(&self.0).unwrap().pem()
    }
}

/// Whether a key belongs to a certificate.
pub(crate) fn pair() -> crate::identity::PairCheck {
    std::sync::Arc::new(|chain, key| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
        let key = KeyPair::try_from(key).ok();
        leaf.zip(key).is_some_and(|((_, leaf), key)| {
            leaf.public_key().subject_public_key.data.as_ref() == rcgen::PublicKeyData::der_bytes(&key)
        })
    })
}
