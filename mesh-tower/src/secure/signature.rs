//! Signatures of tokens (JWS): what mesh-core does not compute.

use mesh_core::policy::jwt::{Algorithm, JwkKey, SignatureCheck};

/// aws-lc-rs; ring where only that is compiled in, which knows no P-521. Both have the same interface.
#[cfg(feature = "tls-aws-lc")]
use aws_lc_rs as library;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use ring as library;

/// Whether a token's signature is a key's, by the cryptography that is compiled in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenSignatures;

/// Without cryptography nothing is proven, and so nobody gets in.
#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
impl SignatureCheck for TokenSignatures {
    fn is_signature(&self, _: &JwkKey, _: Algorithm, _: &[u8], _: &[u8]) -> bool {
        false
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
impl SignatureCheck for TokenSignatures {
    fn is_signature(&self, key: &JwkKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        use library::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
        if !key.is_for(algorithm) {
            return false;
        }
        match key {
            JwkKey::Rsa { n, e } => rsa(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            JwkKey::Ec { point, .. } => ecdsa(algorithm)
                .is_some_and(|algorithm| UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()),
            JwkKey::Ed25519(key) => {
                UnparsedPublicKey::new(&library::signature::ED25519, key).verify(message, signature).is_ok()
            }
            JwkKey::Secret(secret) => hmac(algorithm).is_some_and(|algorithm| {
                let key = library::hmac::Key::new(algorithm, secret);
                library::hmac::verify(&key, message, signature).is_ok()
            }),
            _ => false,
        }
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
fn rsa(algorithm: Algorithm) -> Option<&'static library::signature::RsaParameters> {
    use library::signature as s;
    Some(match algorithm {
        Algorithm::Rs256 => &s::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &s::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &s::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &s::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &s::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &s::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
fn ecdsa(algorithm: Algorithm) -> Option<&'static library::signature::EcdsaVerificationAlgorithm> {
    use library::signature as s;
    Some(match algorithm {
        Algorithm::Es256 => &s::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &s::ECDSA_P384_SHA384_FIXED,
        #[cfg(feature = "tls-aws-lc")]
        Algorithm::Es512 => &s::ECDSA_P521_SHA512_FIXED,
        _ => return None,
    })
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
fn hmac(algorithm: Algorithm) -> Option<library::hmac::Algorithm> {
    Some(match algorithm {
        Algorithm::Hs256 => library::hmac::HMAC_SHA256,
        Algorithm::Hs384 => library::hmac::HMAC_SHA384,
        Algorithm::Hs512 => library::hmac::HMAC_SHA512,
        _ => return None,
    })
}
