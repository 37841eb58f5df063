//! What the tests of tokens share: keys that sign, and what a key set says of them.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use mesh_core::policy::jwt::{Algorithm, Curve, JwkKey};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A key that signs by one algorithm.
pub(crate) struct TokenKey {
    pub(crate) public: JwkKey,
    algorithm: Algorithm,
    signer: Signer,
}

enum Signer {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Hmac(Box<hmac::Key>),
}

impl TokenKey {
    /// A fresh one.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        use Algorithm as A;
        let (public, signer) = match algorithm {
            A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512 => {
                let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
                let der = pair.public_key().as_der().unwrap();
                let (_, info) = SubjectPublicKeyInfo::from_der(der.as_ref()).unwrap();
                let PublicKey::RSA(key) = info.parsed().unwrap() else { panic!("an RSA key") };
                let n = key.modulus.iter().copied().skip_while(|byte| *byte == 0).collect();
                (JwkKey::Rsa { n, e: key.exponent.to_vec() }, Signer::Rsa(pair))
            }
            A::Es256 | A::Es384 | A::Es512 => {
                let (curve, kind) = match algorithm {
                    A::Es256 => (Curve::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
                    A::Es384 => (Curve::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
                    _ => (Curve::P521, &ECDSA_P521_SHA512_FIXED_SIGNING),
                };
                let pair = EcdsaKeyPair::generate(kind).unwrap();
                (JwkKey::Ec { curve, point: pair.public_key().as_ref().to_vec() }, Signer::Ecdsa(pair))
            }
            A::EdDsa => {
                let pair = Ed25519KeyPair::generate().unwrap();
                (JwkKey::Ed25519(pair.public_key().as_ref().try_into().unwrap()), Signer::Ed25519(pair))
            }
            A::Hs256 | A::Hs384 | A::Hs512 => {
                let mut secret = [0; 64];
                aws_lc_rs::rand::fill(&mut secret).unwrap();
                let kind = match algorithm {
                    A::Hs256 => hmac::HMAC_SHA256,
                    A::Hs384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                (JwkKey::Secret(secret.to_vec()), Signer::Hmac(Box::new(hmac::Key::new(kind, &secret))))
            }
        };
        Self { public, algorithm, signer }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Rsa(pair) => {
                let encoding: &dyn aws_lc_rs::signature::RsaEncoding = match self.algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_SHA256,
                    Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    Algorithm::Ps384 => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Signer::Ecdsa(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }

    /// A key set of this key alone: of P-256, which is what the tests on the wire use.
    pub(crate) fn jwks(&self, kid: &str) -> String {
        let JwkKey::Ec { curve: Curve::P256, point } = &self.public else { panic!("a key of P-256") };
        let [x, y] = [1..33, 33..65].map(|range| BASE64_URL_SAFE_NO_PAD.encode(&point[range]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": x, "y": y}]}).to_string()
    }

    /// A token of this key.
    pub(crate) fn token(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": kid}).to_string();
        let signed = [header, claims.to_string()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}
