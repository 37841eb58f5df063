//! TLS to a server: identity shown, chain verified, names matched.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::error::{Code, Error};
use mesh_core::identity::{Held, IdentityMaterial, PeerIdentity};
use mesh_core::model::{CertificateRef, TrustRoots, UpstreamTls};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use tokio_rustls::TlsConnector;

use super::Secure;
use super::chain::{Chain, Side, now};
use super::crl::{Crl, Lists};
use super::crypto::{limited, of_servers, versions};
use super::material::{Cache, Generation, Roots, provider, settled, unusable};
use super::refusal::explain;
use super::verify::{Names, ServerVerifier};
use crate::io::BoxStream;

/// How many sessions one policy keeps to resume: one policy has one server name for each endpoint without SNI.
const SESSIONS: usize = 256;

/// Which protocols to offer the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// `h2`, then `http/1.1`.
    Either,
}

/// Which protocol the server chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// One that only the policy's `alpn_protocols` know.
    Other,
}

/// A connection whose server is who it must be.
pub(crate) struct Secured {
    /// The connection, TLS taken off.
    pub(crate) io: BoxStream,
    /// What the server chose; None: it chose nothing.
    pub(crate) alpn: Option<Protocol>,
    /// Who the server is.
    pub(crate) peer: Option<PeerIdentity>,
}

/// The client's side of one policy. Clones share what was built for it.
#[derive(Clone)]
pub(crate) struct ClientTls(Arc<Inner>);

struct Inner {
    secure: Secure,
    policy: Arc<UpstreamTls>,
    names: Names,
    alpn: Vec<Vec<u8>>,
    crl: Option<Crl>,
    /// Whose lists are followed.
    given: Option<Arc<CertificateRef>>,
    held: Held,
    cache: Cache<Built>,
}

/// What one generation of identity and roots makes of a policy.
pub(super) struct Built {
    config: Arc<ClientConfig>,
    verifier: Arc<ServerVerifier>,
}

impl ClientTls {
    pub(super) fn new(secure: Secure, policy: Arc<UpstreamTls>, alpn: Alpn) -> Self {
        let names = Names::Policy(policy.clone());
        Self::with_names(secure, policy, names, alpn.names())
    }

    pub(super) fn of_istio(secure: Secure, policy: Arc<UpstreamTls>, alpn: Alpn) -> Self {
        let names = Names::Policy(policy.clone());
        Self::with_names(secure, policy, names, alpn.names_of_istio())
    }

    pub(super) fn by_name(secure: Secure, policy: Arc<UpstreamTls>, alpn: Alpn) -> Self {
        Self::with_names(secure, policy, Names::Host, alpn.names())
    }

    fn with_names(secure: Secure, policy: Arc<UpstreamTls>, names: Names, alpn: &[&[u8]]) -> Self {
        if policy.roots == TrustRoots::System {
            // Reading them blocks: here it holds up nobody. An error comes again at the handshake.
            let _ = secure.0.system.get();
        }
        let alpn = offered(&policy, alpn);
        let crl = policy.checks.crl.as_ref().map(|source| secure.0.crls.open(source));
        let held = secure.0.providers.hold(policy.identity.iter().chain(provider(&policy.roots)));
        let given = provider(&policy.roots).and_then(|roots| secure.0.given.follow(&secure.0.providers, roots));
        Self(Arc::new(Inner { secure, policy, names, alpn, crl, given, held, cache: Cache::default() }))
    }

    /// Makes the handshake with the endpoint of this `hostname` (`Endpoint.hostname` of EDS; None or empty if it has none)
    /// and `address`. The caller bounds its time.
    ///
    /// A server that speaks TLS 1.3 judges our certificate after this is done: its refusal shows as an error of the first
    /// read.
    ///
    /// # Errors
    ///
    /// [`Code::NO_CERTIFICATE`]: we have no identity or no roots. [`Code::HANDSHAKE`]: the peer does not speak TLS, or its
    /// chain is not trusted. [`Code::WRONG_IDENTITY`]: it is somebody else. No application byte was sent.
    pub(crate) async fn connect(
        &self,
        io: BoxStream,
        hostname: Option<&str>,
        address: SocketAddr,
    ) -> Result<Secured, Error> {
        let name = self.server_name(hostname, address)?;
        self.handshake(io, name, &address.to_string()).await
    }

    /// Makes the handshake with the server that is called `host`, a DNS name or an IP address.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub(crate) async fn connect_by_name(&self, io: BoxStream, host: &str) -> Result<Secured, Error> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Error::new(Code::HANDSHAKE, format!("`{host}` is no name for TLS: {error}")))?;
        self.handshake(io, name, &format!("`{host}`")).await
    }

    async fn handshake(&self, io: BoxStream, name: ServerName<'static>, peer: &str) -> Result<Secured, Error> {
        let built = settled(&self.0.held, || self.current()).await?;
        let connector = TlsConnector::from(built.config.clone());
        let stream = explain(peer, async {
            let stream = connector.connect(name.clone(), io).await?;
            built.verify_resumed(stream.get_ref().1, &name)?;
            Ok(stream)
        })
        .await?;
        let session = stream.get_ref().1;
        let alpn = session.alpn_protocol().map(protocol);
        let chain = session.peer_certificates().unwrap_or_default();
        let proven = built.verifier.proves(chain, &name);
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let peer = proven.then(|| PeerIdentity::from_verified_chain(chain.clone()).ok()).flatten();
        let io: BoxStream = Box::new(stream);
        let live = &self.0.secure.0.live;
        let revocable = self.0.crl.is_some() || self.0.given.is_some();
        let io = if revocable { live.watch(io, self.clone(), chain) } else { io };
        Ok(Secured { io, alpn, peer })
    }

    /// Why a server that has shown `chain` is no longer trusted; None: it is not revoked.
    pub(super) fn revoked(&self, chain: &[CertificateDer<'_>]) -> Option<Error> {
        let built = self.current().ok()?;
        let revoked = built.verifier.chain().is_revoked(chain, UnixTime::now());
        revoked.then(|| Error::new(Code::HANDSHAKE, "is revoked by now"))
    }

    /// gRFC A101: the endpoint's host name if the policy says so, else the policy's, else none. An IP address is no SNI
    /// (RFC 6066, section 3), and rustls sends none for it.
    fn server_name(&self, hostname: Option<&str>, address: SocketAddr) -> Result<ServerName<'static>, Error> {
        let policy = &self.0.policy;
        let hostname = hostname.filter(|name| policy.auto_host_sni && !name.is_empty()).map(without_port);
        for name in [hostname, policy.sni.as_deref()].into_iter().flatten() {
            match ServerName::try_from(name.to_owned()) {
                // The matchers are asked instead; without any, nothing would be.
                Ok(ServerName::IpAddress(_)) if policy.auto_sni_san_validation && policy.sans.is_empty() => {
                    let text =
                        format!("`{name}` is to be validated as the SNI of {address}, and an address is never sent");
                    return Err(Error::new(Code::HANDSHAKE, text)
                        .with_next_step("give the cluster match_typed_subject_alt_names, or a DNS name as sni"));
                }
                Ok(ServerName::IpAddress(_)) => {}
                Ok(name) => return Ok(name),
                Err(_) => {
                    let text = format!("`{name}` is to be sent to {address} as SNI, and is no DNS name");
                    return Err(Error::new(Code::HANDSHAKE, text)
                        .with_next_step("correct sni of the cluster, or the endpoint's hostname"));
                }
            }
        }
        Ok(ServerName::IpAddress(address.ip().into()))
    }

    /// The configuration of the newest identity and roots.
    pub(super) fn current(&self) -> Result<Arc<Built>, Error> {
        let Inner { secure, policy, cache, .. } = &*self.0;
        let identity = policy.identity.as_ref().map(|reference| secure.0.providers.identity(reference)).transpose()?;
        let roots = Roots::current(secure, &policy.roots)?;
        let lists = self.0.crl.as_ref().map(Crl::current).transpose()?;
        let generation = Generation {
            identity: identity.as_ref().map(|identity| identity.generation),
            trust: roots.generation(),
            revocation: lists.as_ref().map(|lists| lists.generation),
        };
        cache.get(generation, || self.build(identity.as_deref(), &roots, lists))
    }

    fn build(
        &self,
        identity: Option<&IdentityMaterial>,
        roots: &Roots,
        lists: Option<Arc<Lists>>,
    ) -> Result<Built, Error> {
        let Inner { secure, policy, names, .. } = &*self.0;
        let crypto = of_servers(limited(secure.crypto()?, &policy.params)?, &policy.params);
        let foreign = secure.is_foreign(&policy.roots);
        let demands = roots.demands(&policy.sans, &policy.checks);
        let lists = roots.lists()?.or(lists);
        let peers = roots.peers(secure, &policy.roots, identity, &demands.sans, Side::Server);
        let chain = Chain::new(roots.anchors()?, lists, demands.checks, &crypto, Side::Server, foreign);
        let verifier = Arc::new(ServerVerifier::new(chain, names.clone(), peers, demands.sans));
        let builder = ClientConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions(&policy.params))
            .map_err(|error| Error::new(Code::INTERNAL, format!("no TLS version can be used: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| unusable(identity, error))?,
        };
        config.alpn_protocols = self.0.alpn.clone();
        config.time_provider = secure.0.clock.clone();
        // A session of TLS 1.3 is resumed once at most, so that one which is refused does not come back for ever.
        config.resumption = Resumption::in_memory_sessions(SESSIONS).tls12_resumption(Tls12Resumption::Disabled);
        Ok(Built { config: Arc::new(config), verifier })
    }
}

impl Built {
    /// rustls does not verify the certificate of a resumed session again; it may be out of date by now.
    fn verify_resumed(&self, session: &ClientConnection, name: &ServerName<'_>) -> io::Result<()> {
        if session.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let chain = session.peer_certificates().unwrap_or_default();
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(io::Error::other("the resumed session has no certificate"));
        };
        let now = now(&*self.config.time_provider)?;
        self.verifier.admit(leaf, intermediates, name, now).map_err(io::Error::other)
    }
}

impl Alpn {
    fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Either => &[b"h2", b"http/1.1"],
        }
    }

    /// As Istio's proxies offer them to each other: its own first.
    fn names_of_istio(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[b"istio-http/1.1", b"istio", b"http/1.1"],
            Self::Http2 => &[b"istio-h2", b"istio", b"h2"],
            Self::Either => &[b"istio-h2", b"istio-http/1.1", b"istio", b"h2", b"http/1.1"],
        }
    }
}

/// What the policy says, or else `names`.
fn offered(policy: &UpstreamTls, names: &[&[u8]]) -> Vec<Vec<u8>> {
    if !policy.alpn.is_empty() {
        return policy.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    }
    names.iter().map(|name| name.to_vec()).collect()
}

fn protocol(name: &[u8]) -> Protocol {
    match name {
        b"h2" | b"istio-h2" => Protocol::Http2,
        b"http/1.1" | b"istio-http/1.1" => Protocol::Http1,
        _ => Protocol::Other,
    }
}

/// The host name of a LOGICAL_DNS cluster has its port behind it (gRFC A101).
fn without_port(hostname: &str) -> &str {
    match hostname.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => hostname,
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("alpn", &self.alpn).field("peer", &self.peer).finish_non_exhaustive()
    }
}
