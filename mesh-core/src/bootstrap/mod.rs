//! Where the control plane is and who we are: the bootstrap file, exactly as gRPC reads it.
//!
//! The format is gRPC's (`spec` section 2.15; gRFCs A27, A29, A36, A47, A53, A65, A81, A87, A88, A95, A97, A102), so that the
//! file that is mounted for a gRPC application, by istiod or by hand, serves here unchanged. Unknown fields are ignored
//! everywhere, and a `null` counts as absent. This is the only module of the crate that reads the environment.

pub(crate) mod certificates;
pub(crate) mod json;
mod names;
pub(crate) mod parse;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error};
use crate::model::{Locality, Name};

pub use certificates::{
    IDENTITY_VARIABLE, ISTIO_CA_VARIABLE, ISTIO_CLUSTER_VARIABLE, SPIFFE_ENDPOINT_VARIABLE, TRUST_DOMAIN_VARIABLE,
};
pub use names::{ListenerNames, XdsTarget};

/// The path of a bootstrap file; it beats [`BOOTSTRAP_CONFIG_VARIABLE`].
pub const BOOTSTRAP_VARIABLE: &str = "GRPC_XDS_BOOTSTRAP";
/// A bootstrap's JSON itself.
pub const BOOTSTRAP_CONFIG_VARIABLE: &str = "GRPC_XDS_BOOTSTRAP_CONFIG";
/// The path of one YAML file of routes, in a control plane's place.
pub const FILE_VARIABLE: &str = "MESH_CONFIG";

/// The directory in which the last good configuration is kept for a later process that starts while the control plane is away
/// (see [`AdsSource::with_last_good`](crate::source::AdsSource::with_last_good)); unset: it is not kept.
pub const LAST_GOOD_VARIABLE: &str = "MESH_LAST_GOOD";

/// What [`LAST_GOOD_VARIABLE`] says; an empty one counts as unset.
pub fn last_good_directory() -> Option<PathBuf> {
    environment(LAST_GOOD_VARIABLE).map(PathBuf::from)
}

/// Which source of configuration the environment selects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Selection {
    /// An xDS control plane.
    Bootstrap(Box<Bootstrap>),
    /// A YAML file.
    File(PathBuf),
}

impl Selection {
    /// Reads the environment: `MESH_CONFIG` names a YAML file; `GRPC_XDS_BOOTSTRAP` and `GRPC_XDS_BOOTSTRAP_CONFIG` give a
    /// bootstrap. An empty variable counts as unset.
    ///
    /// # Errors
    ///
    /// [`Code::TWO_SOURCES`] if both kinds are set, [`Code::NO_BOOTSTRAP`] if none is, and what
    /// [`Bootstrap::from_env`] fails with.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(&environment)
    }

    fn from_lookup(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let bootstrap = [BOOTSTRAP_VARIABLE, BOOTSTRAP_CONFIG_VARIABLE].into_iter().find(|name| lookup(name).is_some());
        match (lookup(FILE_VARIABLE), bootstrap) {
            (Some(_), Some(other)) => {
                Err(Error::new(Code::TWO_SOURCES, format!("{FILE_VARIABLE} and {other} are both set")))
            }
            (Some(path), None) => Ok(Self::File(path.into())),
            (None, _) => Ok(Self::Bootstrap(Box::new(Bootstrap::from_lookup(lookup)?))),
        }
    }
}

/// A variable of the environment; an empty one counts as unset.
fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A bootstrap.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bootstrap {
    /// The control plane's servers, the preferred one first; at least one. `xds_servers`.
    pub servers: Vec<ServerConfig>,
    /// Who we are. `node`.
    pub node: Node,
    /// Where certificates come from, by instance name. Instances of a plugin we do not know are left out, so that only a
    /// resource that names one is refused. `certificate_providers`.
    pub certificate_providers: BTreeMap<Name, CertificateProvider>,
    /// How targets and listening addresses become the names of Listener resources.
    pub listener_names: ListenerNames,
    /// Other authorities of `xdstp:` names, by name (gRFC A47). `authorities`.
    pub authorities: BTreeMap<String, Authority>,
    /// How to reach the services that a resource may name by URI, when its server is not trusted (gRFC A102).
    /// `allowed_grpc_services`.
    pub allowed_grpc_services: BTreeMap<String, GrpcService>,
}

impl Bootstrap {
    /// Reads the file that `GRPC_XDS_BOOTSTRAP` names; if that is unset, the JSON in `GRPC_XDS_BOOTSTRAP_CONFIG`.
    ///
    /// # Errors
    ///
    /// [`Code::NO_BOOTSTRAP`] if neither is set, [`Code::BAD_BOOTSTRAP`] if the file cannot be read or is not valid; the text
    /// names the field.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(&environment)
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`], with the field's name.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(Code::BAD_BOOTSTRAP, format!("{} cannot be read: {error}", path.display())).with_source(error)
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a bootstrap from its text.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`], with the field's name.
    ///
    /// ```
    /// use mesh_core::bootstrap::Bootstrap;
    ///
    /// let bootstrap = Bootstrap::from_json(
    ///     r#"{"xds_servers": [{"server_uri": "127.0.0.1:18000", "channel_creds": [{"type": "insecure"}]}]}"#,
    /// )?;
    /// assert_eq!(bootstrap.servers[0].uri.as_ref(), "127.0.0.1:18000");
    ///
    /// let error = Bootstrap::from_json(r#"{"xds_servers": [{"server_uri": "127.0.0.1:18000"}]}"#).unwrap_err();
    /// assert!(error.to_string().contains("xds_servers[0].channel_creds"));
    /// # Ok::<(), mesh_core::error::Error>(())
    /// ```
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Self::parse(text, "the bootstrap")
    }

    fn from_lookup(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        if let Some(path) = lookup(BOOTSTRAP_VARIABLE) {
            return Self::from_file(Path::new(&path));
        }
        let Some(text) = lookup(BOOTSTRAP_CONFIG_VARIABLE) else {
            let message = format!("neither {BOOTSTRAP_VARIABLE} nor {BOOTSTRAP_CONFIG_VARIABLE} is set");
            return Err(Error::new(Code::NO_BOOTSTRAP, message));
        };
        Self::parse(&text.to_string_lossy(), BOOTSTRAP_CONFIG_VARIABLE)
    }

    fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        parse::bootstrap(text).map_err(|fault| Error::new(Code::BAD_BOOTSTRAP, format!("{origin}: {fault}")))
    }
}

/// One xDS server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Its address as a gRPC target: `host:port`, `dns:///host:port`, `unix:///path`, ... `server_uri`.
    pub uri: Name,
    /// How the channel to it is secured: the first of `channel_creds` that we support.
    pub credentials: ChannelCredentials,
    /// What is sent with each call: all of `call_creds` that we support (gRFC A97).
    pub call_credentials: Vec<CallCredentials>,
    /// What it asks of its clients. `server_features`.
    pub features: ServerFeatures,
    /// Headers that go with each call: Envoy's `GrpcService.initial_metadata`. Nothing in a bootstrap says any; protocols that
    /// need one set it.
    pub initial_metadata: Vec<(Name, Name)>,
}

impl ServerConfig {
    /// A server without transport security: for tests, and for servers in this process.
    pub fn insecure(uri: impl Into<Name>) -> Self {
        Self {
            uri: uri.into(),
            credentials: ChannelCredentials::Insecure,
            call_credentials: Vec::new(),
            features: ServerFeatures::default(),
            initial_metadata: Vec::new(),
        }
    }

    /// With these features.
    #[must_use]
    pub fn with_features(mut self, features: ServerFeatures) -> Self {
        self.features = features;
        self
    }
}

/// How a channel is secured.
///
/// `google_default` is not among them: an entry of that type is passed over, and a server that offers nothing else is
/// refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelCredentials {
    /// Not at all: plaintext, whatever the `server_uri` looks like. `insecure`.
    Insecure,
    /// By TLS. `tls`.
    Tls(TlsFiles),
}

/// The files of `tls` channel credentials (gRFC A65).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The roots, as PEM; None: the system's. `ca_certificate_file`.
    pub ca_certificate_file: Option<PathBuf>,
    /// Our certificate, for mutual TLS. `certificate_file`, `private_key_file`.
    pub identity: Option<IdentityFiles>,
    /// Roots by trust domain, which beat `ca_certificate_file` (gRFC A87). `spiffe_trust_bundle_map_file`.
    pub spiffe_trust_bundle_map_file: Option<PathBuf>,
    /// How often the files are read again; 600 s by default, as in gRPC. `refresh_interval`.
    pub refresh_interval: Duration,
}

/// A certificate chain and its key, always loaded as a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The chain, as PEM, the leaf first. `certificate_file`.
    pub certificate_file: PathBuf,
    /// The leaf's key, as PEM. `private_key_file`.
    pub private_key_file: PathBuf,
}

/// What is sent with each call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallCredentials {
    /// A JWT read from this file, as a bearer token (gRFC A97). `jwt_token_file`.
    JwtTokenFile(PathBuf),
}

/// What a server asks of its clients. Values we do not know are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerFeatures {
    /// Deleted Listeners and Clusters stay in use (gRFC A53).
    pub ignore_resource_deletion: bool,
    /// Its resources may name other services and their credentials (gRFCs A81, A102).
    pub trusted_xds_server: bool,
    /// A resource that is refused or deleted is dropped at once (gRFC A88).
    pub fail_on_data_errors: bool,
    /// A resource that does not come in time is a passing fault, found after 30 s, not a resource that does not exist
    /// (gRFC A88).
    pub resource_timer_is_transient_error: bool,
    /// It is spoken to by incremental xDS, as Envoy does with `api_type: DELTA_GRPC`. gRPC has no such feature: it speaks
    /// state of the world only, which is the default here too, as some servers that serve gRPC clients (istiod with
    /// `GENERATOR: grpc`) lose track of names under incremental xDS.
    pub delta_grpc: bool,
}

/// Who we are, to the control plane.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.locality`.
    pub locality: Option<Locality>,
    /// `node.metadata`: an object, passed on as it is.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Where certificates come from (gRFC A29).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProvider {
    /// Files that are watched. `file_watcher`.
    FileWatcher(FileWatcherConfig),
    /// A secret discovery service. `sds`.
    Sds(Box<SdsConfig>),
    /// The SPIFFE Workload API. `spiffe`.
    Spiffe(Box<SpiffeConfig>),
    /// Istio's CA. `istio_ca`.
    IstioCa(Box<IstioCaConfig>),
}

/// A secret discovery service (SDS): Envoy's and Istio's agents', SPIRE's, or any other.
///
/// `certificate_name` of a resource that refers to the instance is the name of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SdsConfig {
    /// The server, with the fields of an entry of `xds_servers`.
    pub server: ServerConfig,
    /// The secret with our certificate and key: `default` by default, as Envoy's and Istio's agents call it.
    /// `certificate_name`.
    pub certificate_name: Name,
    /// The secret with the roots: `ROOTCA` by default. `validation_context_name`.
    pub validation_context_name: Name,
}

/// The SPIFFE Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpiffeConfig {
    /// The agent. `endpoint_socket`, by default what `SPIFFE_ENDPOINT_SOCKET` says.
    pub server: ServerConfig,
}

/// Istio's CA: `istio.v1.auth.IstioCertificateService`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IstioCaConfig {
    /// Where the CA is (`ca_address`, `istiod.istio-system.svc:15012` by default), whom it is trusted by (`ca_root_file`,
    /// `/var/run/secrets/istio/root-cert.pem`), the service account's token (`token_file`,
    /// `/var/run/secrets/tokens/istio-token`), and the cluster that knows the account (`cluster_id`, `Kubernetes`).
    pub server: ServerConfig,
    /// The trust domain that is asked for: `cluster.local` by default. The CA decides. `trust_domain`.
    pub trust_domain: String,
    /// For how long a certificate is asked for: 24 h by default, as Istio's agent does. `certificate_ttl`.
    pub certificate_ttl: Duration,
}

/// The files of a `file_watcher` certificate provider. It has an identity, roots, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileWatcherConfig {
    /// Our certificate and key.
    pub identity: Option<IdentityFiles>,
    /// The roots, as PEM. `ca_certificate_file`.
    pub ca_certificate_file: Option<PathBuf>,
    /// Roots by trust domain, which beat `ca_certificate_file` (gRFC A87). `spiffe_trust_bundle_map_file`.
    pub spiffe_trust_bundle_map_file: Option<PathBuf>,
    /// How often the files are read again; 600 s by default, as in gRPC. `refresh_interval`.
    pub refresh_interval: Duration,
}

/// The files of a channel are read and watched as those of a provider are.
impl From<&TlsFiles> for FileWatcherConfig {
    fn from(files: &TlsFiles) -> Self {
        Self {
            identity: files.identity.clone(),
            ca_certificate_file: files.ca_certificate_file.clone(),
            spiffe_trust_bundle_map_file: files.spiffe_trust_bundle_map_file.clone(),
            refresh_interval: files.refresh_interval,
        }
    }
}

/// An authority of `xdstp:` names (gRFC A47).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authority {
    /// Its servers; empty: the bootstrap's own. `xds_servers`.
    pub servers: Vec<ServerConfig>,
    /// Whether the next server is tried as soon as one cannot be reached, even if nothing is missing (gRFC A95).
    /// `fallback_on_reachability_only`.
    pub fallback_on_reachability_only: bool,
}

/// How to reach a service that a resource names (gRFC A102).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcService {
    /// How the channel is secured.
    pub credentials: ChannelCredentials,
    /// What is sent with each call.
    pub call_credentials: Vec<CallCredentials>,
}
