//! TLS of a server: the certificate shown, and clients verified as the filter chain says.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::identity::{Held, IdentityMaterial, PeerIdentity, Sans};
use mesh_core::model::{CertificateRef, DownstreamTls, SanMatch, TrustRoots};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ClientHello};
use rustls::{
    DigitallySignedStruct, DistinguishedName, HandshakeKind, ServerConfig, ServerConnection, SignatureScheme,
};
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;

use super::Secure;
use super::chain::{Chain, Side, now};
use super::crl::{Crl, Lists};
use super::crypto::{limited, sha256, versions};
use super::hello;
use super::material::{Cache, Generation, Roots, provider, settled, unusable};
use super::peers::Peers;
use super::refusal::explain;
use super::verify::check_client;
use crate::inbound::{Accepted, BoxedAccept, HelloReader, InboundTls, TlsAcceptor, TlsClient};
use crate::io::BoxStream;

impl InboundTls for Secure {
    fn acceptor(&self, policy: &Arc<DownstreamTls>) -> Result<Arc<dyn TlsAcceptor>, Error> {
        self.crypto()?;
        if policy.require_client_certificate && policy.client_roots.is_none() {
            let text = "the filter chain demands client certificates and does not say whom to trust";
            return Err(Error::new(Code::NO_CERTIFICATE, text)
                .with_next_step("give the validation context a ca_certificate_provider_instance"));
        }
        let crl = policy.checks.crl.as_ref().map(|source| self.0.crls.open(source));
        let (secure, policy) = (self.clone(), policy.clone());
        let roots = policy.client_roots.as_ref().and_then(provider);
        let held = secure.0.providers.hold(std::iter::once(&policy.identity).chain(roots));
        let given = roots.and_then(|roots| secure.0.given.follow(&secure.0.providers, roots));
        Ok(Arc::new(ServerTls(Arc::new(Inner { secure, policy, crl, given, held, cache: Cache::default() }))))
    }

    fn hello_reader(&self) -> HelloReader {
        hello::reader()
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.0.revocations.subscribe()
    }
}

/// The server's side of one policy.
struct ServerTls(Arc<Inner>);

struct Inner {
    secure: Secure,
    policy: Arc<DownstreamTls>,
    crl: Option<Crl>,
    /// Whose lists are followed.
    given: Option<Arc<CertificateRef>>,
    held: Held,
    cache: Cache<Built>,
}

/// What one generation of identity and roots makes of a policy.
struct Built {
    config: Arc<ServerConfig>,
    /// The same, without ALPN.
    silent: Arc<ServerConfig>,
    /// The URIs of the certificate that is shown.
    uris: Arc<[String]>,
    verifier: Option<Arc<ClientVerifier>>,
}

impl TlsAcceptor for ServerTls {
    fn accept(&self, io: BoxStream) -> BoxedAccept {
        let inner = self.0.clone();
        Box::pin(async move { inner.accept(io).await })
    }

    fn revoked(&self, client: &PeerIdentity) -> Option<Error> {
        if self.0.crl.is_none() && self.0.given.is_none() {
            return None;
        }
        let built = self.0.current().ok()?;
        let revoked = built.verifier.as_ref()?.chain.is_revoked(client.chain(), UnixTime::now());
        revoked.then(|| Error::new(Code::HANDSHAKE, format!("the certificate of {} is revoked", client.sans())))
    }
}

impl Inner {
    async fn accept(&self, io: BoxStream) -> Result<Accepted, Error> {
        let built = settled(&self.held, || self.current()).await?;
        let handshake = explain("the client", async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
            let config = built.config_for(&start.client_hello()).clone();
            let stream = start.into_stream(config).await?;
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
        let proven = built.verifier.as_ref().is_some_and(|verifier| verifier.proves(session.peer_certificates()));
        let client = TlsClient {
            identity: identity(session.peer_certificates().filter(|_| proven))?,
            server_name: session.server_name().map(Box::from),
            hash: session.peer_certificates().and_then(<[_]>::first).map(|leaf| built.hash(leaf).into()),
            shown_uris: built.uris.clone(),
        };
        Ok(Accepted { io: Box::new(stream), client })
    }

    fn current(&self) -> Result<Arc<Built>, Error> {
        let Self { secure, policy, crl, cache, .. } = self;
        let identity = secure.0.providers.identity(&policy.identity)?;
        let roots = policy.client_roots.as_ref().map(|roots| Roots::current(secure, roots)).transpose()?;
        let lists = crl.as_ref().map(Crl::current).transpose()?;
        let generation = Generation {
            identity: Some(identity.generation),
            trust: roots.as_ref().and_then(Roots::generation),
            revocation: lists.as_ref().map(|lists| lists.generation),
        };
        cache.get(generation, || self.build(&identity, roots.as_ref(), lists))
    }

    fn build(
        &self,
        identity: &IdentityMaterial,
        roots: Option<&Roots>,
        lists: Option<Arc<Lists>>,
    ) -> Result<Built, Error> {
        let crypto = limited(self.secure.crypto()?, &self.policy.params)?;
        let builder = ServerConfig::builder_with_provider(crypto.clone())
            .with_protocol_versions(versions(&self.policy.params))
            .map_err(|error| Error::new(Code::INTERNAL, format!("no TLS version can be used: {error}")))?;
        let origin = self.policy.client_roots.as_ref();
        let verifier = origin.zip(roots).map(|roots| self.verifier(identity, roots, lists, &crypto)).transpose()?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let mut config = builder
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| unusable(identity, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.time_provider = self.secure.0.clock.clone();
        let uris =
            identity.chain.first().and_then(|leaf| Sans::read(leaf).ok()).map_or_else(Vec::new, |sans| sans.uris);
        let mut silent = config.clone();
        silent.alpn_protocols.clear();
        Ok(Built { config: Arc::new(config), silent: Arc::new(silent), uris: uris.into(), verifier })
    }

    fn verifier(
        &self,
        identity: &IdentityMaterial,
        (origin, roots): (&TrustRoots, &Roots),
        lists: Option<Arc<Lists>>,
        crypto: &Arc<CryptoProvider>,
    ) -> Result<Arc<ClientVerifier>, Error> {
        let foreign = self.secure.is_foreign(origin);
        let demands = roots.demands(&self.policy.sans, &self.policy.checks);
        let peers = roots.peers(&self.secure, origin, Some(identity), &demands.sans, Side::Client);
        // Names and hashes that must match ask for a certificate, as in Envoy: nobody has one without it.
        let asks = !demands.sans.is_empty() || !demands.checks.pins.is_empty();
        let lists = roots.lists()?.or(lists);
        let chain = Chain::new(roots.anchors()?, lists, demands.checks, crypto, Side::Client, foreign);
        Ok(Arc::new(ClientVerifier {
            hints: chain.hints(),
            chain,
            peers,
            sans: demands.sans,
            required: self.policy.require_client_certificate || asks,
        }))
    }
}

impl Built {
    /// With a client that offers nothing of ours no protocol is agreed on, as in Envoy, and its first bytes will tell: Istio's
    /// clients may offer names of the mesh only. rustls alone would end the handshake.
    fn config_for(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let ours = &self.config.alpn_protocols;
        let agrees = hello.alpn().is_none_or(|mut offered| offered.any(|name| ours.iter().any(|own| own == name)));
        if agrees { &self.config } else { &self.silent }
    }

    /// The SHA-256 of a certificate, in hexadecimal; empty if the cryptography in use has none.
    fn hash(&self, certificate: &CertificateDer<'_>) -> String {
        let mut hex = String::new();
        for byte in sha256(self.config.crypto_provider(), certificate).iter().flatten() {
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
                let now = now(&*self.config.time_provider)?;
                verifier.verify_client_cert(leaf, intermediates, now).map(drop).map_err(io::Error::other)
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

/// Verifies clients: the chain, then the names.
struct ClientVerifier {
    chain: Chain,
    hints: Vec<DistinguishedName>,
    peers: Peers,
    /// The policy's, and those of the secret that its roots come from.
    sans: Vec<SanMatch>,
    required: bool,
}

impl ClientVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.chain.verify(leaf, intermediates, now)?;
        check_client(leaf, &self.sans, &self.peers)
    }

    /// Whether the certificates prove who shows them, which they need not where whoever is not trusted is let in.
    fn proves(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else { return false };
        !self.chain.checks().accept_untrusted
            || (!self.chain.knows_nobody() && self.verify(leaf, intermediates, UnixTime::now()).is_ok())
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.chain.crypto().signature_verification_algorithms
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verify(leaf, intermediates, now);
        if !self.chain.checks().accept_untrusted {
            verified?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("sans", &self.sans).finish_non_exhaustive()
    }
}
