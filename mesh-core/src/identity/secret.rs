//! What a secret discovery service gives.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Demands, Roots};

/// A secret of SDS, of the kinds that TLS needs.
pub enum Secret {
    /// `tls_certificate`: a chain, the leaf first, and the leaf's key. They belong together.
    Certificate {
        /// The chain.
        chain: Vec<CertificateDer<'static>>,
        /// The leaf's key.
        key: PrivateKeyDer<'static>,
    },
    /// `validation_context`: whom to trust, and what else is asked of their certificates.
    Validation {
        /// The root certificates.
        roots: Roots,
        /// What else is asked for.
        demands: Demands,
    },
}

impl fmt::Debug for Secret {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { chain, .. } => {
                f.debug_struct("Certificate").field("chain", &chain.len()).finish_non_exhaustive()
            }
            Self::Validation { .. } => f.debug_struct("Validation").finish_non_exhaustive(),
        }
    }
}
