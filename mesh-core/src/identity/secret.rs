//! What a secret discovery service gives.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Roots;

/// A secret of SDS, of the kinds that TLS needs.
pub enum Secret {
    /// `tls_certificate`: a chain, the leaf first, and the leaf's key. They belong together.
    Certificate {
        /// The chain.
        chain: Vec<CertificateDer<'static>>,
        /// The leaf's key.
        key: PrivateKeyDer<'static>,
    },
    /// `validation_context`: whom to trust.
    Roots(Roots),
}

impl fmt::Debug for Secret {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { chain, .. } => {
                f.debug_struct("Certificate").field("chain", &chain.len()).finish_non_exhaustive()
            }
            Self::Roots(_) => f.debug_struct("Roots").finish_non_exhaustive(),
        }
    }
}
