//! The certificate providers of a mesh: those of its configuration, of the environment and of the application.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[cfg(feature = "istio-ca")]
use mesh_core::ads::ControlTransport;
use mesh_core::ads::Settings;
use mesh_core::bootstrap::{CertificateProvider, GrpcService, IstioCaConfig, Node, SdsConfig, ServerConfig};
use mesh_core::certificates::{Sds, Spiffe, Surroundings};
use mesh_core::config::Background;
use mesh_core::decode::SecretServers;
use mesh_core::error::{Code, Error};
use mesh_core::event::EventSink;
use mesh_core::identity::{CertificateProviders, CertificateSource, ExpiryWatch};
use mesh_core::model::Name;
use tokio::task::JoinSet;

use crate::connect::control::control_transport;
use crate::secure::{pair_check, watch_files};

/// What the environment's choice is called, and what resources of gRPC refer to by default.
const DEFAULT: &str = "default";
/// The SDS server of a sidecar, as Istio calls it: a workload has one.
const SIDECAR: &str = "sds-grpc";
/// How often certificates are looked over.
const LOOK: Duration = Duration::from_secs(1);

/// What the application chose, by instance name.
pub(super) enum Chosen {
    Source(Arc<dyn CertificateSource>),
    Provider(CertificateProvider),
}

/// The providers, which SDS servers resources may name, and the work that keeps all of them fresh.
pub(super) struct Certificates {
    pub(super) providers: CertificateProviders,
    pub(super) secrets: SecretServers,
    pub(super) work: Background,
}

/// What certificates are opened with.
pub(super) struct Opening<'a> {
    /// `certificate_providers` of the bootstrap or the file.
    pub(super) configured: BTreeMap<Name, CertificateProvider>,
    /// `allowed_grpc_services` of the bootstrap.
    pub(super) allowed: &'a BTreeMap<String, GrpcService>,
    pub(super) chosen: Vec<(Name, Chosen)>,
    pub(super) node: Node,
    pub(super) settings: Settings,
    pub(super) events: Arc<dyn EventSink>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Opened {
    around: Surroundings,
    providers: CertificateProviders,
    secrets: SecretServers,
    work: Vec<Work>,
}

impl Opening<'_> {
    /// Opens them. The environment's choice is the instance `default`, whatever the bootstrap has under that name; the
    /// application's choice comes before both.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_BOOTSTRAP`]: the environment or the application chose what cannot be.
    pub(super) fn open(mut self) -> Result<Certificates, Error> {
        let environment = CertificateProvider::from_env()?.map(|provider| (DEFAULT.into(), Chosen::Provider(provider)));
        let chosen: Vec<_> = environment.into_iter().chain(self.chosen).collect();
        for (instance, _) in &chosen {
            self.configured.remove(instance);
        }
        let mut files = BTreeMap::new();
        let mut opened = Opened::new(self.node, self.settings, self.events.clone());
        for (instance, provider) in self.configured {
            if matches!(provider, CertificateProvider::FileWatcher(_)) {
                files.insert(instance, provider);
            } else if let Err(error) = opened.add(&instance, &provider) {
                // Resources that name it are refused, as those are that name a plugin nobody knows.
                tracing::warn!(target: "mesh", "certificate provider `{instance}` is left out: {error}");
            }
        }
        for (instance, chosen) in chosen {
            match chosen {
                Chosen::Source(source) => opened.put(&instance, source),
                Chosen::Provider(provider @ CertificateProvider::FileWatcher(_)) => {
                    files.insert(instance, provider);
                }
                Chosen::Provider(provider) => opened.add(&instance, &provider)?,
            }
        }
        for (uri, service) in self.allowed {
            opened.allow(uri, service);
        }
        let (watched, refresh) = watch_files(&files);
        for (instance, source) in watched.iter() {
            opened.put(instance, source.clone());
        }
        opened.work.push(refresh);
        Ok(opened.finish(self.events))
    }
}

impl Opened {
    fn new(node: Node, settings: Settings, events: Arc<dyn EventSink>) -> Self {
        let around = Surroundings {
            transport: control_transport(),
            node,
            settings,
            pair: pair_check(),
            events,
            seed: fastrand::u64(..),
            clock: SystemTime::now,
        };
        Self { around, providers: CertificateProviders::new(), secrets: SecretServers::new(), work: Vec::new() }
    }

    fn put(&mut self, instance: &Name, source: Arc<dyn CertificateSource>) {
        self.providers = std::mem::take(&mut self.providers).with(instance.clone(), source);
    }

    fn add(&mut self, instance: &Name, provider: &CertificateProvider) -> Result<(), Error> {
        self.around.seed = fastrand::u64(..);
        match provider {
            CertificateProvider::Sds(config) => {
                let (sds, run) = Sds::new(config, &self.around);
                self.put(instance, Arc::new(sds));
                let secrets = std::mem::take(&mut self.secrets).with_target(&*config.server.uri, instance.clone());
                self.secrets = secrets.with_cluster(&**instance, instance.clone());
                if &**instance == DEFAULT {
                    self.secrets = std::mem::take(&mut self.secrets).with_cluster(SIDECAR, instance.clone());
                }
                self.work.push(Box::pin(run));
            }
            CertificateProvider::Spiffe(config) => {
                let (spiffe, run) = Spiffe::new(config, &self.around);
                self.put(instance, Arc::new(spiffe));
                self.work.push(Box::pin(run));
            }
            CertificateProvider::IstioCa(config) => self.add_istio_ca(instance, config)?,
            other => return Err(Error::new(Code::BAD_BOOTSTRAP, format!("{other:?} is not supported"))),
        }
        Ok(())
    }

    #[cfg(feature = "istio-ca")]
    fn add_istio_ca(&mut self, instance: &Name, config: &IstioCaConfig) -> Result<(), Error> {
        let mutual = |source| -> Arc<dyn ControlTransport> { crate::connect::control::control_transport_as(source) };
        let (ca, run) =
            mesh_core::certificates::IstioCa::new(config, &self.around, &mutual, crate::secure::make_request());
        self.put(instance, Arc::new(ca));
        self.work.push(Box::pin(run));
        Ok(())
    }

    #[cfg(not(feature = "istio-ca"))]
    fn add_istio_ca(&mut self, _instance: &Name, _config: &IstioCaConfig) -> Result<(), Error> {
        Err(Error::new(Code::BAD_BOOTSTRAP, "Istio's CA is asked for, and this program is built without it")
            .with_next_step("enable the feature istio-ca"))
    }

    /// A service that resources may name is an SDS server if one does (gRFC A102). One that would show keys to a network is
    /// none.
    fn allow(&mut self, uri: &str, service: &GrpcService) {
        let mut server = ServerConfig::insecure(uri);
        server.credentials = service.credentials.clone();
        server.call_credentials = service.call_credentials.clone();
        if self.secrets.has_target(uri) || SdsConfig::over(server.clone()).is_err() {
            return;
        }
        self.around.seed = fastrand::u64(..);
        let (sds, run) = Sds::on_demand(&server, &self.around);
        // No resource can name it as an instance by mistake: instances have names, and this is a URI with a prefix.
        let instance: Name = format!("sds of {uri}").into();
        self.put(&instance, Arc::new(sds));
        self.secrets = std::mem::take(&mut self.secrets).with_target(uri, instance);
        self.work.push(Box::pin(run));
    }

    fn finish(mut self, events: Arc<dyn EventSink>) -> Certificates {
        self.work.push(Box::pin(look_after(self.providers.clone(), events)));
        let work = self.work;
        // One task each, so that one that has something to do wakes none of the others.
        let work = Box::pin(async move {
            let mut tasks = JoinSet::new();
            for one in work {
                tasks.spawn(one);
            }
            while tasks.join_next().await.is_some() {}
        });
        Certificates { providers: self.providers, secrets: self.secrets, work }
    }
}

/// Says what was taken and what nears its end.
async fn look_after(providers: CertificateProviders, events: Arc<dyn EventSink>) {
    let mut watch = ExpiryWatch::default();
    loop {
        for event in watch.check(&providers, SystemTime::now()) {
            events.event(&event);
        }
        tokio::time::sleep(LOOK).await;
    }
}
