//! Which cryptography is used: always one that is named here, never the process's default, which is the application's.

use std::sync::Arc;

use mesh_core::error::Error;
use mesh_core::identity::PairCheck;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

/// aws-lc-rs, which prefers X25519MLKEM768; ring where only that is compiled in.
#[cfg(feature = "tls-aws-lc")]
fn compiled_in() -> Option<CryptoProvider> {
    Some(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
fn compiled_in() -> Option<CryptoProvider> {
    Some(rustls::crypto::ring::default_provider())
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
fn compiled_in() -> Option<CryptoProvider> {
    None
}

/// The cryptography in use.
///
/// # Errors
///
/// None is compiled in.
pub(super) fn provider() -> Result<Arc<CryptoProvider>, Error> {
    compiled_in().map(Arc::new).ok_or_else(|| {
        Error::new(
            mesh_core::error::Code::NO_CERTIFICATE,
            "TLS is asked for, and this program was built without cryptography",
        )
        .with_next_step("enable the feature tls-aws-lc or tls-ring")
    })
}

/// Says whether a key can be used and belongs to a certificate. Without cryptography nobody can tell, and nobody uses it.
pub(super) fn pair_check() -> PairCheck {
    let provider = provider();
    Arc::new(move |chain, key| match &provider {
        Ok(provider) => CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider).is_ok(),
        Err(_) => true,
    })
}
