//! Keys that are made here, and requests for certificates for them.

use std::sync::Arc;

use mesh_core::certificates::{MakeRequest, SigningRequest};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

/// Makes P-256 keys, which every peer in a mesh understands, and PKCS#10 requests without a subject.
pub(crate) fn make_request() -> MakeRequest {
    Arc::new(|uri| make(uri).map_err(|error| format!("no certificate can be asked for: {error}")))
}

fn make(uri: Option<&str>) -> Result<SigningRequest, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uri.map(|uri| uri.try_into().map(SanType::URI)).transpose()?.into_iter().collect();
    let csr = params.serialize_request(&key)?.pem()?;
    Ok(SigningRequest { key: key.into(), csr })
}

#[cfg(test)]
mod tests {
    use mesh_core::identity::Sans;
    use rcgen::{CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, KeyPair};

    use super::make_request;
    use crate::secure::pair_check;

    #[test]
    fn istio_each_request_is_for_a_key_of_its_own_and_one_uri() {
        let name = "spiffe://cluster.local/ns/default/sa/alice";
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap()).unwrap();
        let (one, two) = (make_request()(Some(name)).unwrap(), make_request()(Some(name)).unwrap());
        let sign = |csr: &str| {
            let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
            assert_eq!(request.params.distinguished_name.iter().count(), 0, "no subject");
            request.signed_by(&issuer).unwrap().der().clone()
        };
        let certificate = sign(&one.csr);
        assert_eq!(Sans::read(&certificate).unwrap().uris, [name]);
        let pair = pair_check();
        assert!(pair(std::slice::from_ref(&certificate), &one.key));
        assert!(!pair(&[certificate], &two.key), "the other has another key");
        assert!(!format!("{one:?}").contains("key"), "a key is never printed");
        assert!(Sans::read(&sign(&make_request()(None).unwrap().csr)).unwrap().uris.is_empty());
    }
}
