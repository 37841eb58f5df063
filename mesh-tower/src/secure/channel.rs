//! TLS of `tls` channel credentials: to a control plane, whose certificate must have its host name (gRFC A65).

use std::sync::Arc;

use mesh_core::bootstrap::{FileWatcherConfig, TlsFiles};
use mesh_core::error::Error;
use mesh_core::identity::{CertificateProviders, CertificateSource, FileWatcher};
use mesh_core::model::{CertificateRef, Name, TrustRoots, UpstreamTls};

use super::{Alpn, ClientTls, Secure, Secured, crypto};
use crate::io::BoxStream;

/// TLS with the files of one server's credentials.
#[derive(Debug)]
pub(crate) struct ChannelTls {
    watcher: Arc<FileWatcher>,
    tls: ClientTls,
}

impl ChannelTls {
    /// TLS with `files`, which are read now and at each handshake. `identity` is shown if the files have none.
    pub(crate) fn new(files: &TlsFiles, identity: Option<Arc<dyn CertificateSource>>) -> Self {
        let instance: Name = "channel_creds".into();
        let config = FileWatcherConfig::from(files);
        let watcher = Arc::new(FileWatcher::new(instance.clone(), config.clone(), crypto::pair_check()));
        let mut providers = CertificateProviders::new().with(instance.clone(), watcher.clone());
        let mut policy = policy(&config, instance);
        if let (None, Some(source)) = (&policy.identity, identity) {
            let instance: Name = "identity".into();
            providers = providers.with(instance.clone(), source);
            policy.identity = Some(CertificateRef { instance, certificate: "".into() });
        }
        let policy = Arc::new(policy);
        Self { watcher, tls: Secure::new(providers).client_by_name(&policy, Alpn::Http2) }
    }

    /// Makes the handshake with the server that is called `host`. The files are read again first: a connection is made
    /// seldom, and must not need a timer to have what is newest.
    ///
    /// # Errors
    ///
    /// As [`ClientTls::connect`].
    pub(crate) async fn connect(&self, io: BoxStream, host: &str) -> Result<Secured, Error> {
        self.watcher.refresh();
        self.tls.connect_by_name(io, host).await
    }
}

fn policy(files: &FileWatcherConfig, instance: Name) -> UpstreamTls {
    let reference = CertificateRef { instance, certificate: "".into() };
    let has_roots = files.ca_certificate_file.is_some() || files.spiffe_trust_bundle_map_file.is_some();
    UpstreamTls {
        identity: files.identity.is_some().then(|| reference.clone()),
        roots: if has_roots { TrustRoots::Provider(reference) } else { TrustRoots::System },
        sans: Vec::new(),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        alpn: Vec::new(),
        checks: Default::default(),
        params: Default::default(),
    }
}
