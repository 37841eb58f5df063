//! TLS of a server: the certificate shown, and clients verified as the filter chain says.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::identity::{IdentityMaterial, PeerIdentity, Sans, TrustMaterial};
use mesh_core::model::{DownstreamTls, SanMatch};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, SupportedCipherSuite,
};

use super::Secure;
use super::material::{Anchors, Cache, Generation, of_domain, unusable};
use super::refusal::{explain, refuse};
use super::verify::{check_client, foreign, untrusted};
use crate::inbound::{Accepted, BoxedAccept, InboundTls, TlsAcceptor, TlsClient};
use crate::io::BoxStream;

impl InboundTls for Secure {
    fn acceptor(&self, policy: &Arc<DownstreamTls>) -> Result<Arc<dyn TlsAcceptor>, Error> {
        self.crypto()?;
        if policy.require_client_certificate && policy.client_roots.is_none() {
            let text = "the filter chain demands client certificates and does not say whom to trust";
            return Err(Error::new(Code::NO_CERTIFICATE, text)
                .with_next_step("give the validation context a ca_certificate_provider_instance"));
        }
        let (secure, policy) = (self.clone(), policy.clone());
        Ok(Arc::new(ServerTls(Arc::new(Inner { secure, policy, cache: Cache::default() }))))
    }
}

/// The server's side of one policy.
struct ServerTls(Arc<Inner>);

struct Inner {
    secure: Secure,
    policy: Arc<DownstreamTls>,
    cache: Cache<Built>,
}

/// What one generation of identity and roots makes of a policy.
struct Built {
    config: Arc<ServerConfig>,
    /// The URIs of the certificate that is shown.
    uris: Arc<[String]>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsAcceptor for ServerTls {
    fn accept(&self, io: BoxStream) -> BoxedAccept {
        let inner = self.0.clone();
        Box::pin(async move { inner.accept(io).await })
    }
}

impl Inner {
    async fn accept(&self, io: BoxStream) -> Result<Accepted, Error> {
        let built = self.current()?;
        let acceptor = tokio_rustls::TlsAcceptor::from(built.config.clone());
        let handshake = explain("the client", async {
            let stream = acceptor.accept(io).await?;
            built.verify_resumed(stream.get_ref().1)?;
            Ok(stream)
        });
        let stream = handshake.await.map_err(|error| match error.code() {
            Code::WRONG_IDENTITY => {
                error.with_next_step("check the client's certificate, or match_subject_alt_names of the filter chain")
            }
            _ => error,
        })?;
        let session = stream.get_ref().1;
        let client = TlsClient {
            identity: identity(session.peer_certificates())?,
            server_name: session.server_name().map(Box::from),
            hash: session.peer_certificates().and_then(<[_]>::first).map(|leaf| built.hash(leaf).into()),
            shown_uris: built.uris.clone(),
        };
        Ok(Accepted { io: Box::new(stream), client })
    }

    fn current(&self) -> Result<Arc<Built>, Error> {
        let Self { secure, policy, cache } = self;
        let identity = secure.0.providers.identity(&policy.identity)?;
        let roots = policy.client_roots.as_ref().map(|reference| secure.0.providers.trust(reference)).transpose()?;
        let generation =
            Generation { identity: Some(identity.generation), trust: roots.as_ref().map(|roots| roots.generation) };
        cache.get(generation, || self.build(&identity, roots.as_deref()))
    }

    fn build(&self, identity: &IdentityMaterial, roots: Option<&TrustMaterial>) -> Result<Built, Error> {
        let crypto = self.secure.crypto()?;
        let builder = ServerConfig::builder_with_provider(crypto.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Code::INTERNAL, format!("no TLS version can be used: {error}")))?;
        let verifier = roots.map(|roots| self.verifier(roots)).transpose()?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let mut config = builder
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| unusable(identity, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let uris =
            identity.chain.first().and_then(|leaf| Sans::read(leaf).ok()).map_or_else(Vec::new, |sans| sans.uris);
        Ok(Built { config: Arc::new(config), uris: uris.into(), verifier })
    }

    fn verifier(&self, roots: &TrustMaterial) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let chains = match Anchors::new(roots)? {
            Anchors::Any(roots) => Chains::Any(self.chain(roots)?),
            Anchors::ByTrustDomain(map) => {
                let chain = |(name, roots)| Ok((name, self.chain(roots)?));
                Chains::ByTrustDomain(map.into_iter().map(chain).collect::<Result<_, Error>>()?)
            }
        };
        let algorithms = self.secure.crypto()?.signature_verification_algorithms;
        Ok(Arc::new(ClientVerifier { chains, algorithms, policy: self.policy.clone() }))
    }

    fn chain(&self, roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots, self.secure.crypto()?.clone());
        let builder = if self.policy.require_client_certificate { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| {
            Error::new(Code::NO_CERTIFICATE, format!("clients cannot be verified: {error}")).with_source(error)
        })
    }
}

impl Built {
    /// The SHA-256 of a certificate, in hexadecimal; empty if the cryptography in use has none.
    fn hash(&self, certificate: &CertificateDer<'_>) -> String {
        let suites = self.config.crypto_provider().cipher_suites.iter();
        let mut hashes = suites.map(|suite| match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        });
        let sha256 = hashes.find(|hash| hash.algorithm() == HashAlgorithm::SHA256);
        let hash = sha256.map(|hash| hash.hash(certificate));
        let mut hex = String::new();
        for byte in hash.iter().flat_map(AsRef::as_ref) {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// rustls does not verify the certificate of a resumed session again; it may be out of date by now.
    fn verify_resumed(&self, session: &ServerConnection) -> io::Result<()> {
        let (Some(HandshakeKind::Resumed), Some(verifier)) = (session.handshake_kind(), &self.verifier) else {
            return Ok(());
        };
        match session.peer_certificates().and_then(<[_]>::split_first) {
            Some((leaf, intermediates)) => {
                verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop).map_err(io::Error::other)
            }
            None if verifier.client_auth_mandatory() => {
                Err(io::Error::other("the resumed session has no client certificate"))
            }
            None => Ok(()),
        }
    }
}

fn identity(chain: Option<&[CertificateDer<'static>]>) -> Result<Option<PeerIdentity>, Error> {
    let Some(chain) = chain.filter(|chain| !chain.is_empty()) else { return Ok(None) };
    PeerIdentity::from_verified_chain(chain.to_vec())
        .map(Some)
        .map_err(|error| Error::new(Code::WRONG_IDENTITY, format!("the client has no identity: {error}")))
}

/// Verifies clients: the chain by webpki, then the names.
struct ClientVerifier {
    chains: Chains,
    algorithms: WebPkiSupportedAlgorithms,
    policy: Arc<DownstreamTls>,
}

/// Who verifies a chain.
enum Chains {
    Any(Arc<dyn ClientCertVerifier>),
    /// The one of the client's trust domain (gRFC A87).
    ByTrustDomain(BTreeMap<String, Arc<dyn ClientCertVerifier>>),
}

impl ClientVerifier {
    fn wanted(&self) -> &[SanMatch] {
        &self.policy.sans
    }

    fn chain(&self, leaf: &CertificateDer<'_>) -> Result<&Arc<dyn ClientCertVerifier>, rustls::Error> {
        match &self.chains {
            Chains::Any(chain) => Ok(chain),
            Chains::ByTrustDomain(map) => of_domain(map, leaf).map_err(|why| foreign(leaf, &why)),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.policy.require_client_certificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.chains {
            Chains::Any(chain) => chain.root_hint_subjects(),
            // None is as good as all: clients show what they have.
            Chains::ByTrustDomain(_) => &[],
        }
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain(leaf)?
            .verify_client_cert(leaf, intermediates, now)
            .inspect_err(|error| refuse(untrusted(leaf, error)))?;
        check_client(leaf, self.wanted())?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("policy", &self.policy).finish_non_exhaustive()
    }
}
