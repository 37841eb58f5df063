//! Signatures of tokens: by the examples of the RFCs, and by keys of each kind that the tests' own library makes.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use mesh_core::policy::jwt::{Algorithm, Curve, JwkKey, SignatureCheck as _};

use crate::secure::TokenSignatures;
#[cfg(feature = "tls-aws-lc")]
use crate::secure::tests::tokens::TokenKey;

fn bytes(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// RFC 7515, A.1, and RFC 8037, A.4.
#[test]
fn the_examples_of_the_rfcs_verify() {
    let secret = bytes("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
    let ed25519 = bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").try_into().unwrap();
    for (key, algorithm, message, signature) in [
        (
            JwkKey::Secret(secret),
            Algorithm::Hs256,
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
             cGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            JwkKey::Ed25519(ed25519),
            Algorithm::EdDsa,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let signature = bytes(signature);
        let says = |message: &str, signature: &[u8]| {
            TokenSignatures.is_signature(&key, algorithm, message.as_bytes(), signature)
        };
        assert!(says(message, &signature), "{algorithm:?}");
        assert!(!says(&message[1..], &signature), "{algorithm:?}: another message");
        assert!(!says(message, &signature[1..]), "{algorithm:?}: part of it");
        assert!(!says(message, b""), "{algorithm:?}: none");
    }
}

#[cfg(feature = "tls-aws-lc")]
#[test]
fn keys_of_every_kind_verify_what_they_signed_and_nothing_else() {
    use Algorithm as A;
    let all = [
        A::Rs256,
        A::Rs384,
        A::Rs512,
        A::Ps256,
        A::Ps384,
        A::Ps512,
        A::Es256,
        A::Es384,
        A::Es512,
        A::Hs256,
        A::Hs384,
        A::Hs512,
        A::EdDsa,
    ];
    for algorithm in all {
        let (key, other) = (TokenKey::new(algorithm), TokenKey::new(algorithm));
        let signature = key.sign(b"message");
        let check = |key: &TokenKey, algorithm, message: &[u8], signature: &[u8]| {
            TokenSignatures.is_signature(&key.public, algorithm, message, signature)
        };
        assert!(check(&key, algorithm, b"message", &signature), "{algorithm:?}");
        assert!(!check(&key, algorithm, b"another", &signature), "{algorithm:?}");
        assert!(!check(&other, algorithm, b"message", &signature), "{algorithm:?}");
        for byte in [0, signature.len() / 2, signature.len() - 1] {
            let mut bad = signature.clone();
            bad[byte] ^= 1;
            assert!(!check(&key, algorithm, b"message", &bad), "{algorithm:?} byte {byte}");
        }
        for another in all.into_iter().filter(|another| *another != algorithm) {
            assert!(!check(&key, another, b"message", &signature), "{algorithm:?} is not {another:?}");
        }
    }
}

/// What is no point of its curve, and no modulus, is nobody's key; and nothing panics.
#[test]
fn keys_that_are_none_verify_nothing() {
    for (key, algorithm) in [
        (JwkKey::Ec { curve: Curve::P256, point: vec![4; 65] }, Algorithm::Es256),
        (JwkKey::Ec { curve: Curve::P384, point: vec![4; 65] }, Algorithm::Es384),
        (JwkKey::Rsa { n: vec![0; 256], e: vec![3] }, Algorithm::Rs256),
        (JwkKey::Rsa { n: vec![0xff; 256], e: vec![1, 0, 1] }, Algorithm::Ps256),
        (JwkKey::Ed25519([0xff; 32]), Algorithm::EdDsa),
    ] {
        for length in [0, 1, 64, 96, 256] {
            assert!(!TokenSignatures.is_signature(&key, algorithm, b"message", &vec![1; length]), "{key:?} {length}");
        }
    }
}
