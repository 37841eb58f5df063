//! The bootstrap of clients of a local control plane.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// What server Listeners are called, as all of gRPC's control planes call them.
pub(super) const SERVER_LISTENERS: &str = "grpc/server?xds.resource.listening_address=%s";
/// The provider instance that dev certificates come from: gRPC's and istiod's name for it.
const PROVIDER: &str = "default";
/// gRPC's own default is 600 s; a rotation in development is to be seen sooner.
const REFRESH: Duration = Duration::from_secs(5);

/// A gRPC xDS bootstrap for development, for our clients and servers and for gRPC's own in any language.
#[derive(Debug, Clone)]
pub struct DevBootstrap {
    server_uri: String,
    node_id: String,
    features: Vec<String>,
    certificates: Option<PathBuf>,
    refresh_interval: Duration,
}

impl DevBootstrap {
    /// For a client of this name, of the plaintext xDS server at `server_uri`, `host:port`.
    pub fn new(server_uri: impl Into<String>, node_id: impl Into<String>) -> Self {
        let (server_uri, node_id) = (server_uri.into(), node_id.into());
        Self { server_uri, node_id, features: Vec::new(), certificates: None, refresh_interval: REFRESH }
    }

    /// With this among the `server_features`: `delta_grpc` for incremental xDS, `fail_on_data_errors`, ... Default: `xds_v3`
    /// alone.
    #[must_use]
    pub fn server_feature(mut self, feature: impl Into<String>) -> Self {
        self.features.push(feature.into());
        self
    }

    /// With the certificates in this folder (see [`DevCertificates`](super::DevCertificates)) as the certificate provider
    /// `default`. Default: no certificates.
    #[must_use]
    pub fn certificates(mut self, folder: impl Into<PathBuf>) -> Self {
        self.certificates = Some(folder.into());
        self
    }

    /// How often the certificates are read again. Default: 5 s.
    #[must_use]
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let features: Vec<&str> = ["xds_v3"].into_iter().chain(self.features.iter().map(String::as_str)).collect();
        let mut bootstrap = json!({
            "xds_servers": [{
                "server_uri": self.server_uri,
                "channel_creds": [{ "type": "insecure" }],
                "server_features": features,
            }],
            "node": { "id": self.node_id },
            "server_listener_resource_name_template": SERVER_LISTENERS,
        });
        if let Some(provider) = self.provider() {
            bootstrap["certificate_providers"] = json!({ PROVIDER: provider });
        }
        format!("{bootstrap:#}\n")
    }

    fn provider(&self) -> Option<Value> {
        let folder = self.certificates.as_ref()?;
        let file = |name| folder.join(name).display().to_string();
        let refresh = self.refresh_interval;
        Some(json!({
            "plugin_name": "file_watcher",
            "config": {
                "certificate_file": file(super::certificates::CHAIN),
                "private_key_file": file(super::certificates::KEY),
                "ca_certificate_file": file(super::certificates::ROOT),
                "refresh_interval": format!("{}.{:09}s", refresh.as_secs(), refresh.subsec_nanos()),
            },
        }))
    }
}
