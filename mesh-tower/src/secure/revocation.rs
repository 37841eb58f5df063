//! Whether certificates are revoked, by lists that their issuers have signed (RFC 5280, section 6.3).
//!
//! Lists of webpki are not used: it takes none without extensions, which small authorities write.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use webpki::{Error, VerifiedPath, spki_for_anchor};
use x509_parser::der_parser::asn1_rs::{Any, BitString};
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::authority::key_identifier;

/// A list.
pub(super) struct List {
    issuer: Vec<u8>,
    /// The identifier of the key that has signed it, where it says one.
    key: Option<Vec<u8>>,
    serials: BTreeSet<Vec<u8>>,
    /// From and until when it holds, in seconds.
    since: i64,
    until: Option<i64>,
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    /// The key that its signature was verified with: the same few, at every handshake.
    verified: Mutex<Option<Vec<u8>>>,
}

impl List {
    /// The list in `der`; None: it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let signed = list.tbs_cert_list.as_ref();
        let (_, whole) = Any::from_der(der).ok()?;
        let (_, algorithm) = Any::from_der(whole.data.get(signed.len()..)?).ok()?;
        Some(Self {
            issuer: list.issuer().as_raw().to_vec(),
            key: list.extensions().iter().find_map(named_key),
            serials: list.iter_revoked_certificates().map(|entry| plain(entry.raw_serial())).collect(),
            since: list.last_update().timestamp(),
            until: list.next_update().map(|until| until.timestamp()),
            signed: signed.to_vec(),
            algorithm: algorithm.data.to_vec(),
            signature: list.signature_value.data.to_vec(),
            verified: Mutex::default(),
        })
    }

    fn is_signed_by(&self, key: &SubjectPublicKeyInfoDer<'_>, crypto: &CryptoProvider) -> bool {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.as_deref() == Some(key.as_ref()) {
            return true;
        }
        let is_signed = self.verify(key, crypto).is_some();
        if is_signed {
            *verified = Some(key.as_ref().to_vec());
        }
        is_signed
    }

    fn verify(&self, key: &SubjectPublicKeyInfoDer<'_>, crypto: &CryptoProvider) -> Option<()> {
        let (_, key) = Any::from_der(key).ok()?;
        let (rest, algorithm) = Any::from_der(key.data).ok()?;
        let (_, bits) = BitString::from_der(rest).ok()?;
        let mut algorithms = crypto.signature_verification_algorithms.all.iter().filter(|known| {
            known.public_key_alg_id().as_ref() == algorithm.data && known.signature_alg_id().as_ref() == self.algorithm
        });
        algorithms.find_map(|known| known.verify_signature(&bits.data, &self.signed, &self.signature).ok())
    }
}

/// A number without leading zeros.
fn plain(serial: &[u8]) -> Vec<u8> {
    serial.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn named_key(extension: &X509Extension<'_>) -> Option<Vec<u8>> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => named.key_identifier.as_ref().map(|key| key.0.to_vec()),
        _ => None,
    }
}

/// Lists, and what they are asked with.
pub(super) struct Asked<'a> {
    pub(super) lists: &'a [List],
    /// The identifier of the root's key.
    pub(super) root_key: Option<&'a [u8]>,
    pub(super) now: UnixTime,
    pub(super) crypto: &'a CryptoProvider,
}

/// Who may have signed a list.
struct Signer<'a> {
    key: SubjectPublicKeyInfoDer<'a>,
    id: Option<Vec<u8>>,
}

impl Asked<'_> {
    /// Asks about the leaf of a path, and unless `leaf_only` about everyone between it and the root. Of whom no list in force says
    /// anything is revoked, as far as we know.
    pub(super) fn check(
        &self,
        path: &VerifiedPath<'_>,
        leaf: &CertificateDer<'_>,
        leaf_only: bool,
    ) -> Result<(), Error> {
        let mut below = leaf.clone();
        for issuer in path.intermediate_certificates() {
            let (key, der) = (issuer.subject_public_key_info(), issuer.der());
            self.check_one(&below, signer(key, &der).as_ref())?;
            if leaf_only {
                return Ok(());
            }
            below = der.into_owned();
        }
        let root = Signer { key: spki_for_anchor(path.anchor()), id: self.root_key.map(<[u8]>::to_vec) };
        self.check_one(&below, Some(&root))
    }

    fn check_one(&self, certificate: &CertificateDer<'_>, signer: Option<&Signer<'_>>) -> Result<(), Error> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| Error::BadDer)?;
        let signer = signer.ok_or(Error::IssuerNotCrlSigner)?;
        let serial = plain(certificate.raw_serial());
        let seconds = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let mut answer = Err(Error::UnknownRevocationStatus);
        let of_issuer = self.lists.iter().filter(|list| list.issuer == certificate.issuer().as_raw());
        for list in of_issuer.filter(|list| list.is_signed_by(&signer.key, self.crypto)) {
            // Even by a list that is out of date, or names another key: nobody is taken back.
            if list.serials.contains(&serial) {
                return Err(Error::CertRevoked);
            }
            // BoringSSL's: a list that names another key than its issuer's is not its issuer's.
            if list.key.as_ref().zip(signer.id.as_ref()).is_some_and(|(named, id)| named != id) {
                continue;
            }
            match list.until {
                Some(until) if until < seconds => {
                    let next_update = UnixTime::since_unix_epoch(Duration::from_secs(until.try_into().unwrap_or(0)));
                    answer = answer.or(Err(Error::CrlExpired { time: self.now, next_update }));
                }
                _ if list.since > seconds => {}
                _ => answer = Ok(()),
            }
        }
        answer
    }
}

/// Who is behind `issuer`, if its key may sign lists.
fn signer<'a>(key: SubjectPublicKeyInfoDer<'a>, issuer: &CertificateDer<'_>) -> Option<Signer<'a>> {
    let (_, issuer) = X509Certificate::from_der(issuer).ok()?;
    let usage = issuer.key_usage().ok()?;
    let may_sign = usage.is_none_or(|usage| usage.value.crl_sign());
    may_sign.then(|| Signer { key, id: key_identifier(&issuer) })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    use super::*;
    use crate::secure::crypto::provider;

    const ROOT: &str = "MIIBITCByKADAgECAgEHMAoGCCqGSM49BAMCMA8xDTALBgNVBAMMBHJvb3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMA8xDTALBgNVBAMMBHJvb3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAT0Mfoc+aQhATscvZVDBv4Q9sCx1iIK5R56mW20v+UgG5C/isyEL0/0Wpyoj7I1Ggt1yCpca6A7A9H8Vx7Lvz/IoxMwETAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIGaPY8WD5+f8eEc3e0BgLAuG2zNg/a2peaC0B/DoduvOAiEAjmxD8Pml/JBV5Ds/hE5DlSS+NG3bunw+rDN+HdnGnH4=";
    /// Its list, without extensions: number 128 is revoked.
    const LIST: &str = "MIGvMFcCAQEwCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEcm9vdBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBUwEwICAIAXDTIxMDEwMTAwMDAwMFowCgYIKoZIzj0EAwIDSAAwRQIgQyh58JoRQZsh/umWAjnpUkokcqkpe3wItWN+3nj2QDwCIQD7c19QPt3nZvL3sipq/fA+ugQOOJw5TFyYqTt4NHJb6Q==";

    #[test]
    fn a_list_without_extensions_counts_if_its_issuer_has_signed_it() {
        let (root, der) = (BASE64_STANDARD.decode(ROOT).unwrap(), BASE64_STANDARD.decode(LIST).unwrap());
        let (_, certificate) = X509Certificate::from_der(&root).unwrap();
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
        let list = List::read(&der).unwrap();
        let crypto = provider().unwrap();
        assert_eq!(list.issuer, certificate.subject().as_raw());
        assert!(list.serials.contains(&vec![0x80]), "without the zero that makes it positive");
        // The second time it is known.
        assert!(list.is_signed_by(&key, &crypto) && list.is_signed_by(&key, &crypto));
        let mut forged = List::read(&der).unwrap();
        *forged.signed.last_mut().unwrap() ^= 1;
        assert!(!forged.is_signed_by(&key, &crypto));
        assert!(List::read(b"none").is_none());
    }
}
