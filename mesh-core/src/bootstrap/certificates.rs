//! Certificate providers: what a bootstrap, or the environment, says of where identity comes from (gRFC A29).
//!
//! `file_watcher` is gRPC's. The others are ours, with the same shape: `sds`, `spiffe` and `istio_ca`. Keys, or the right to
//! get one, come over their connections, so that none of them may be in plaintext beyond this machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::json::{Fault, Object};
use super::{
    CallCredentials, CertificateProvider, ChannelCredentials, FileWatcherConfig, IstioCaConfig, SdsConfig,
    ServerConfig, SpiffeConfig, TlsFiles, parse,
};
use crate::error::{Code, Error};
use crate::model::Name;

/// Which provider the instance `default` is, in place of one in the bootstrap: `spiffe`, `spiffe:unix:///path`,
/// `sds:unix:///path`, `istio-ca` or `istio-ca:host:port`.
pub const IDENTITY_VARIABLE: &str = "MESH_IDENTITY";
/// The address of the SPIFFE Workload API, `unix:///path` or `tcp://address:port` (SPIFFE Workload Endpoint, section 4).
pub const SPIFFE_ENDPOINT_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Where Istio's CA is, as its agent reads it.
pub const ISTIO_CA_VARIABLE: &str = "CA_ADDR";
/// Which cluster the service account is of, as Istio's agent reads it.
pub const ISTIO_CLUSTER_VARIABLE: &str = "ISTIO_META_CLUSTER_ID";
/// The trust domain, as Istio's agent reads it.
pub const TRUST_DOMAIN_VARIABLE: &str = "TRUST_DOMAIN";

/// Istio's defaults, in a pod that it injected.
const ISTIO_CA: &str = "istiod.istio-system.svc:15012";
const ISTIO_TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const ISTIO_ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
const ISTIO_CLUSTER: &str = "Kubernetes";
const TRUST_DOMAIN: &str = "cluster.local";
/// 24 h, Istio's `SECRET_TTL`.
const CERTIFICATE_TTL: Duration = Duration::from_secs(24 * 3600);
/// What Envoy and Istio's agent call the certificate of a workload, and its roots.
const CERTIFICATE: &str = "default";
const ROOTS: &str = "ROOTCA";

/// The field `certificate_providers` of `parent`.
pub(crate) fn certificate_providers(parent: &Object<'_>) -> Result<BTreeMap<Name, CertificateProvider>, Fault> {
    let providers = parent.entries("certificate_providers", |name, provider| {
        Ok(certificate_provider(provider)?.map(|provider| (name.into(), provider)))
    })?;
    Ok(providers.into_iter().flatten().collect())
}

/// None for a plugin that we do not know.
fn certificate_provider(provider: &Object<'_>) -> Result<Option<CertificateProvider>, Fault> {
    let missing = || provider.fault("config", "is missing");
    Ok(Some(match provider.required("plugin_name")? {
        "file_watcher" => {
            CertificateProvider::FileWatcher(provider.object("config", file_watcher)?.ok_or_else(missing)?)
        }
        "sds" => CertificateProvider::Sds(Box::new(provider.object("config", sds)?.ok_or_else(missing)?)),
        "spiffe" => {
            let endpoint =
                provider.object("config", |config| Ok(config.string("endpoint_socket")?.map(str::to_owned)))?.flatten();
            let config = match endpoint {
                Some(endpoint) => SpiffeConfig::new(&endpoint),
                None => SpiffeConfig::of_environment(&super::environment),
            };
            CertificateProvider::Spiffe(Box::new(config.map_err(|why| provider.fault("config.endpoint_socket", why))?))
        }
        "istio_ca" => {
            let config = provider.object("config", istio_ca)?;
            CertificateProvider::IstioCa(Box::new(config.unwrap_or_default()))
        }
        _ => return Ok(None),
    }))
}

fn file_watcher(config: &Object<'_>) -> Result<FileWatcherConfig, Fault> {
    let watcher = FileWatcherConfig {
        identity: parse::identity_files(config)?,
        ca_certificate_file: config.file("ca_certificate_file")?,
        spiffe_trust_bundle_map_file: config.file("spiffe_trust_bundle_map_file")?,
        refresh_interval: parse::refresh_interval(config)?,
    };
    let empty = watcher.identity.is_none()
        && watcher.ca_certificate_file.is_none()
        && watcher.spiffe_trust_bundle_map_file.is_none();
    if empty {
        let rule = "must be given, or certificate_file and private_key_file, or both";
        return Err(config.fault("ca_certificate_file", rule));
    }
    Ok(watcher)
}

fn sds(config: &Object<'_>) -> Result<SdsConfig, Fault> {
    let server = parse::server(config)?;
    keeps_keys_private(&server).map_err(|why| config.fault("channel_creds", why))?;
    let name = |field, or: &str| Ok(config.string(field)?.filter(|name| !name.is_empty()).unwrap_or(or).into());
    Ok(SdsConfig {
        server,
        certificate_name: name("certificate_name", CERTIFICATE)?,
        validation_context_name: name("validation_context_name", ROOTS)?,
    })
}

fn istio_ca(config: &Object<'_>) -> Result<IstioCaConfig, Fault> {
    let mut ca = IstioCaConfig::new(config.string("ca_address")?.unwrap_or(ISTIO_CA));
    if let Some(file) = config.file("ca_root_file")? {
        ca = ca.with_root_file(file);
    }
    if let Some(file) = config.file("token_file")? {
        ca = ca.with_token_file(file);
    }
    if let Some(cluster) = config.string("cluster_id")? {
        ca = ca.with_cluster_id(cluster);
    }
    if let Some(domain) = config.string("trust_domain")? {
        ca.trust_domain = domain.to_owned();
    }
    match config.duration("certificate_ttl")? {
        Some(ttl) if ttl < Duration::from_secs(60) => {
            Err(config
                .fault("certificate_ttl", "must be a minute at least: a certificate is renewed at half of its life"))
        }
        ttl => {
            ca.certificate_ttl = ttl.unwrap_or(ca.certificate_ttl);
            Ok(ca)
        }
    }
}

/// Whether what the server sends is seen by it and us alone.
fn keeps_keys_private(server: &ServerConfig) -> Result<(), String> {
    if server.credentials != ChannelCredentials::Insecure || is_on_this_machine(&server.uri) {
        return Ok(());
    }
    Err(format!(
        "must be `tls`, as private keys come from {} over a network; `insecure` is for unix: sockets and loopback addresses",
        server.uri
    ))
}

/// A name may be anywhere, whatever it is now.
fn is_on_this_machine(uri: &str) -> bool {
    let addresses = ["ipv4:", "ipv6:", "http://"].iter().find_map(|scheme| uri.strip_prefix(scheme)).unwrap_or(uri);
    let is_loopback = |text: &str| text.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    uri.starts_with("unix:") || addresses.trim_start_matches('/').split(',').all(is_loopback)
}

impl SdsConfig {
    /// An SDS server at `uri`: `unix:///path`, or a loopback address. For one that is reached by TLS, see
    /// [`over`](Self::over).
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`]: keys would go over a network in plaintext.
    pub fn new(uri: impl Into<Name>) -> Result<Self, Error> {
        Self::over(ServerConfig::insecure(uri))
    }

    /// This SDS server.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`]: keys would go over a network in plaintext.
    pub fn over(server: ServerConfig) -> Result<Self, Error> {
        keeps_keys_private(&server).map_err(|why| Error::new(Code::BAD_BOOTSTRAP, format!("channel_creds {why}")))?;
        Ok(Self { server, certificate_name: CERTIFICATE.into(), validation_context_name: ROOTS.into() })
    }

    /// With these secrets in the place of `default` and `ROOTCA`.
    #[must_use]
    pub fn with_names(mut self, certificate: impl Into<Name>, validation_context: impl Into<Name>) -> Self {
        (self.certificate_name, self.validation_context_name) = (certificate.into(), validation_context.into());
        self
    }
}

impl SpiffeConfig {
    /// The Workload API at `endpoint`: `unix:///path`, or `tcp://address:port` with a loopback address.
    ///
    /// # Errors
    ///
    /// It is something else (SPIFFE Workload Endpoint, section 4).
    pub fn new(endpoint: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("`{endpoint}` {why}; give unix:///path or tcp://127.0.0.1:port"));
        let uri = if let Some(path) = endpoint.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') || path.contains(['?', '#']) {
                return bad("is not the absolute path of a socket");
            }
            format!("unix://{path}")
        } else if let Some(address) = endpoint.strip_prefix("tcp://") {
            match address.parse::<SocketAddr>() {
                Ok(address) if !address.ip().is_loopback() => {
                    return bad("is not on this machine, and keys would go over a network in plaintext");
                }
                Ok(SocketAddr::V4(address)) => format!("ipv4:{address}"),
                Ok(SocketAddr::V6(address)) => format!("ipv6:{address}"),
                Err(_) => return bad("is not an address and a port"),
            }
        } else {
            return bad("has neither scheme");
        };
        let mut server = ServerConfig::insecure(uri);
        // Who makes the agent send requests, as a proxy might, cannot make it add this (SPIFFE Workload Endpoint, section 5).
        server.initial_metadata.push(("workload.spiffe.io".into(), "true".into()));
        Ok(Self { server })
    }

    /// The Workload API that `SPIFFE_ENDPOINT_SOCKET` names.
    ///
    /// # Errors
    ///
    /// It is unset, or no address.
    pub fn from_env() -> Result<Self, Error> {
        Self::of_environment(&super::environment).map_err(|why| Error::new(Code::BAD_BOOTSTRAP, why))
    }

    fn of_environment(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let text = lookup(SPIFFE_ENDPOINT_VARIABLE);
        let text = text.ok_or_else(|| format!("is missing, and {SPIFFE_ENDPOINT_VARIABLE} is not set"))?;
        Self::new(&text.to_string_lossy()).map_err(|why| format!("{SPIFFE_ENDPOINT_VARIABLE}: {why}"))
    }
}

impl Default for IstioCaConfig {
    fn default() -> Self {
        Self::new(ISTIO_CA)
    }
}

impl IstioCaConfig {
    /// Istio's CA at `address`, `host:port`, with everything else as in a pod that Istio injected.
    pub fn new(address: &str) -> Self {
        let mut server = ServerConfig::insecure(address);
        server.credentials =
            ChannelCredentials::Tls(TlsFiles { ca_certificate_file: Some(ISTIO_ROOT.into()), ..TlsFiles::default() });
        server.call_credentials = vec![CallCredentials::JwtTokenFile(ISTIO_TOKEN.into())];
        let this = Self { server, trust_domain: TRUST_DOMAIN.to_owned(), certificate_ttl: CERTIFICATE_TTL };
        this.with_cluster_id(ISTIO_CLUSTER)
    }

    /// As a pod's environment has it: `CA_ADDR`, `ISTIO_META_CLUSTER_ID` and `TRUST_DOMAIN`, and Istio's defaults.
    pub fn from_env() -> Self {
        Self::of_environment(&super::environment)
    }

    fn of_environment(lookup: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| lookup(name).map(|value| value.to_string_lossy().into_owned());
        let mut ca = Self::new(text(ISTIO_CA_VARIABLE).as_deref().unwrap_or(ISTIO_CA));
        if let Some(cluster) = text(ISTIO_CLUSTER_VARIABLE) {
            ca = ca.with_cluster_id(&cluster);
        }
        if let Some(domain) = text(TRUST_DOMAIN_VARIABLE) {
            ca.trust_domain = domain;
        }
        ca
    }

    /// Trusting the CA's server by these roots, in PEM.
    #[must_use]
    pub fn with_root_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.server.credentials =
            ChannelCredentials::Tls(TlsFiles { ca_certificate_file: Some(file.into()), ..TlsFiles::default() });
        self
    }

    /// With the service account's token in this file.
    #[must_use]
    pub fn with_token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.server.call_credentials = vec![CallCredentials::JwtTokenFile(file.into())];
        self
    }

    /// Of this cluster, which the CA needs to know whom to ask about the token.
    #[must_use]
    pub fn with_cluster_id(mut self, cluster: &str) -> Self {
        self.server.initial_metadata = vec![("clusterid".into(), cluster.into())];
        self
    }
}

impl CertificateProvider {
    /// The provider that `MESH_IDENTITY` in the environment selects for the instance `default`; None: it is unset.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`]: it says something else than a provider.
    pub fn from_env() -> Result<Option<Self>, Error> {
        Self::of_environment(&super::environment)
    }

    pub(super) fn of_environment(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Error> {
        let Some(text) = lookup(IDENTITY_VARIABLE) else { return Ok(None) };
        let text = text.to_string_lossy();
        let (kind, address) = text.split_once(':').map_or((&*text, None), |(kind, address)| (kind, Some(address)));
        let bad = |why: String| Error::new(Code::BAD_BOOTSTRAP, format!("{IDENTITY_VARIABLE} `{text}`: {why}"));
        let provider = match (kind, address) {
            ("spiffe", None) => Self::Spiffe(Box::new(SpiffeConfig::of_environment(lookup).map_err(bad)?)),
            ("spiffe", Some(address)) => Self::Spiffe(Box::new(SpiffeConfig::new(address).map_err(bad)?)),
            ("sds", Some(address)) => {
                Self::Sds(Box::new(SdsConfig::new(address).map_err(|error| bad(error.to_string()))?))
            }
            ("istio-ca", None) => Self::IstioCa(Box::new(IstioCaConfig::of_environment(lookup))),
            ("istio-ca", Some(address)) => {
                let mut ca = IstioCaConfig::of_environment(lookup);
                ca.server.uri = address.into();
                Self::IstioCa(Box::new(ca))
            }
            _ => {
                return Err(
                    bad("must be spiffe, spiffe:ADDRESS, sds:ADDRESS, istio-ca or istio-ca:ADDRESS".to_owned()),
                );
            }
        };
        Ok(Some(provider))
    }
}

impl From<FileWatcherConfig> for CertificateProvider {
    fn from(config: FileWatcherConfig) -> Self {
        Self::FileWatcher(config)
    }
}

impl From<SdsConfig> for CertificateProvider {
    fn from(config: SdsConfig) -> Self {
        Self::Sds(Box::new(config))
    }
}

impl From<SpiffeConfig> for CertificateProvider {
    fn from(config: SpiffeConfig) -> Self {
        Self::Spiffe(Box::new(config))
    }
}

impl From<IstioCaConfig> for CertificateProvider {
    fn from(config: IstioCaConfig) -> Self {
        Self::IstioCa(Box::new(config))
    }
}
