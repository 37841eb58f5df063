//! Which cryptography is used: always one that is named here, never the process's default, which is the application's.

use std::sync::{Arc, OnceLock};

use mesh_core::error::{Code, Error};
use mesh_core::identity::PairCheck;
use mesh_core::model::{CipherSuite as Suite, Curve, TlsParams};
use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, NamedGroup, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};

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
    compiled_in().map(with_known_keys).map(Arc::new).ok_or_else(|| {
        Error::new(Code::NO_CERTIFICATE, "TLS is asked for, and this program was built without cryptography")
            .with_next_step("enable the feature tls-aws-lc or tls-ring")
    })
}

/// The keys that a peer may prove itself by are those that Envoy takes: ECDSA's of P-256 and P-384, and RSA's. Issuers above it
/// may have others.
fn with_known_keys(mut crypto: CryptoProvider) -> CryptoProvider {
    static KNOWN: OnceLock<Mapping> = OnceLock::new();
    without(&mut crypto, &[alg_id::ECDSA_P521, alg_id::ED25519], &KNOWN);
    crypto
}

/// As a server's key may be, to a client under `params`: of P-384 only if they name that curve, as in Envoy and gRPC's C-core.
pub(super) fn of_servers(crypto: Arc<CryptoProvider>, params: &TlsParams) -> Arc<CryptoProvider> {
    static KNOWN: OnceLock<Mapping> = OnceLock::new();
    if params.curves.contains(&Curve::P384) {
        return crypto;
    }
    let mut crypto = (*crypto).clone();
    without(&mut crypto, &[alg_id::ECDSA_P384], &KNOWN);
    Arc::new(crypto)
}

type Schemes = (SignatureScheme, &'static [&'static dyn SignatureVerificationAlgorithm]);
type Mapping = &'static [Schemes];

/// Takes out the keys of these kinds. What is left is kept in `known`, once for the process: rustls wants it for ever.
fn without(crypto: &mut CryptoProvider, kinds: &[AlgorithmIdentifier], known: &OnceLock<Mapping>) {
    let WebPkiSupportedAlgorithms { all, mapping } = crypto.signature_verification_algorithms;
    let left = |(scheme, algorithms): &Schemes| -> Option<Schemes> {
        let left = algorithms.iter().filter(|algorithm| !kinds.contains(&algorithm.public_key_alg_id()));
        let left: Vec<_> = left.copied().collect();
        (!left.is_empty()).then(|| (*scheme, &*left.leak()))
    };
    let mapping = known.get_or_init(|| Box::leak(mapping.iter().filter_map(left).collect()));
    crypto.signature_verification_algorithms = WebPkiSupportedAlgorithms { all, mapping };
}

/// The SHA-256 of `bytes`; None: the cryptography in use has none.
pub(super) fn sha256(crypto: &CryptoProvider, bytes: &[u8]) -> Option<[u8; 32]> {
    let mut hashes = crypto.cipher_suites.iter().map(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
    });
    hashes.find(|hash| hash.algorithm() == HashAlgorithm::SHA256)?.hash(bytes).as_ref().try_into().ok()
}

/// `crypto`, as far as `params` let it.
///
/// # Errors
///
/// [`Code::NO_CERTIFICATE`]: it has nothing of what they ask for.
pub(super) fn limited(crypto: &Arc<CryptoProvider>, params: &TlsParams) -> Result<Arc<CryptoProvider>, Error> {
    if params.ciphers.is_empty() && params.curves.is_empty() {
        return Ok(crypto.clone());
    }
    let mut limited = (**crypto).clone();
    if !params.ciphers.is_empty() {
        let is_newer = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
        let newer = crypto.cipher_suites.iter().filter(|suite| is_newer(suite));
        let named = params.ciphers.iter().map(|suite| suite_of(*suite));
        let named = named.filter_map(|name| crypto.cipher_suites.iter().find(|suite| suite.suite() == name));
        limited.cipher_suites = newer.chain(named).copied().collect();
    }
    if !params.curves.is_empty() {
        let named = params.curves.iter().map(|curve| group_of(*curve));
        let named = named.filter_map(|name| crypto.kx_groups.iter().find(|group| group.name() == name));
        limited.kx_groups = named.copied().collect();
    }
    if limited.kx_groups.is_empty() {
        let text = "tls_params asks for groups that the cryptography of this program does not have";
        return Err(Error::new(Code::NO_CERTIFICATE, text).with_next_step("enable the feature tls-aws-lc"));
    }
    Ok(Arc::new(limited))
}

/// The versions that `params` let speak.
pub(super) fn versions(params: &TlsParams) -> &'static [&'static SupportedProtocolVersion] {
    const V12: &SupportedProtocolVersion = &rustls::version::TLS12;
    const V13: &SupportedProtocolVersion = &rustls::version::TLS13;
    match (params.no_tls12, params.no_tls13) {
        (false, true) => &[V12],
        (true, _) => &[V13],
        (false, false) => &[V13, V12],
    }
}

fn suite_of(suite: Suite) -> CipherSuite {
    match suite {
        Suite::EcdheEcdsaAes128GcmSha256 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::EcdheEcdsaAes256GcmSha384 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::EcdheEcdsaChacha20Poly1305 => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Suite::EcdheRsaAes128GcmSha256 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Suite::EcdheRsaAes256GcmSha384 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::EcdheRsaChacha20Poly1305 => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group_of(curve: Curve) -> NamedGroup {
    match curve {
        Curve::X25519MlKem768 => NamedGroup::X25519MLKEM768,
        Curve::X25519 => NamedGroup::X25519,
        Curve::P256 => NamedGroup::secp256r1,
        Curve::P384 => NamedGroup::secp384r1,
    }
}

/// Says whether a key can be used and belongs to a certificate. Without cryptography nobody can tell, and nobody uses it.
pub(crate) fn pair_check() -> PairCheck {
    let provider = provider();
    Arc::new(move |chain, key| match &provider {
        Ok(provider) => CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider).is_ok(),
        Err(_) => true,
    })
}
