//! Certificate revocation lists, as bytes.

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// The lists in `bytes`, each as DER: PEM with any number of them, or one in DER.
///
/// # Errors
///
/// There is none, or one cannot be read, or has a critical extension: it is about a part of the certificates then, or a change of
/// another list, and who is revoked is not guessed.
pub fn revocation_lists(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    let mut lists: Vec<Vec<u8>> = pem
        .map_err(|error| format!("is not valid PEM: {error}"))?
        .into_iter()
        .map(|list| list.as_ref().to_vec())
        .collect();
    if lists.is_empty() {
        lists.push(bytes.to_vec());
    }
    for list in &lists {
        check(list)?;
    }
    Ok(lists)
}

fn check(list: &[u8]) -> Result<(), String> {
    let unread = "has no certificate revocation list, or one that cannot be read";
    let (rest, list) = CertificateRevocationList::from_der(list).map_err(|_| unread)?;
    if !rest.is_empty() {
        return Err(unread.to_owned());
    }
    let of_entries = list.iter_revoked_certificates().flat_map(|entry| entry.extensions());
    match list.extensions().iter().chain(of_entries).find(|extension| extension.critical) {
        Some(extension) => Err(format!("has the critical extension {}, which is not supported", extension.oid)),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// A list without extensions, as small authorities write them.
    const PLAIN: &str = "MIGvMFcCAQEwCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEcm9vdBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBUwEwICAIAXDTIxMDEwMTAwMDAwMFowCgYIKoZIzj0EAwIDSAAwRQIgQyh58JoRQZsh/umWAjnpUkokcqkpe3wItWN+3nj2QDwCIQD7c19QPt3nZvL3sipq/fA+ugQOOJw5TFyYqTt4NHJb6Q==";
    /// A list that is about users' certificates only, and says so in a critical extension.
    const PARTIAL: &str = "MIHFMGwCAQEwCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwEcm9vdBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBUwEwICAIAXDTIxMDEwMTAwMDAwMFqgEzARMA8GA1UdHAEB/wQFMAOBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAOLL/HYcWAQq8Loi/tNLFuznHneHZQbVN5S9zMrYIab1AiEA7CAC/Zm0bRwnWabfhynr0G0v2I/WXBWVL9H4KyeeU7c=";

    pub(crate) fn pem() -> String {
        format!("-----BEGIN X509 CRL-----\n{PLAIN}\n-----END X509 CRL-----\n")
    }

    #[test]
    fn lists_are_read_from_pem_and_from_der() {
        let der = STANDARD.decode(PLAIN).unwrap();
        assert_eq!(revocation_lists(&der), Ok(vec![der.clone()]));
        assert_eq!(revocation_lists(pem().repeat(2).as_bytes()), Ok(vec![der.clone(), der]));
    }

    #[test]
    fn what_is_no_list_or_only_a_part_of_one_is_refused() {
        for bad in [&b""[..], b"crl", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
            revocation_lists(bad).unwrap_err();
        }
        let partial = STANDARD.decode(PARTIAL).unwrap();
        assert!(revocation_lists(&partial).unwrap_err().contains("critical extension 2.5.29.28"));
        let mut cut = STANDARD.decode(PLAIN).unwrap();
        cut.pop();
        revocation_lists(&cut).unwrap_err();
    }
}
