//! From choices to a running mesh.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh_core::ads::{ControlTransport, Settings};
use mesh_core::bootstrap::{
    Bootstrap, CertificateProvider, GrpcService, ListenerNames, Node, Selection, last_good_directory,
};
use mesh_core::config::{Background, ConfigThread, Options};
use mesh_core::decode::{Decoder, Dialect, HttpFilterType, PolicyType, Registry};
use mesh_core::dns::{Resolve, SystemResolver};
use mesh_core::error::{Code, Error};
use mesh_core::event::{EventSink, Fanout, LogSink};
use mesh_core::identity::{CertificateSource, SpiffeId};
use mesh_core::load::LoadStore;
use mesh_core::lrs;
use mesh_core::model::Name;
use mesh_core::snapshot::Apply;
#[cfg(feature = "file")]
use mesh_core::source::file::FileSource;
use mesh_core::source::{AdsSource, Source};

use super::apply::{Joining, MeshApply};
use super::certificates::{Certificates, Chosen, Opening};
use super::traffic::Traffic;
use super::{Mesh, Outbound, Shared};
use crate::connect::control::control_transport;
use crate::connect::{ConnectSettings, Connections, Dial, EndpointFactory, ServiceDial, TcpDial};
use crate::observe::Telemetry;
use crate::outbound::{Limits, OutboundApply, OutboundOptions, Passthrough, Signal, Targets, UnknownHosts, Watches};
use crate::secure::Secure;

#[cfg(feature = "server")]
use super::{Inbound, apply::Servers};
#[cfg(feature = "server")]
use crate::filter::Callouts;
#[cfg(feature = "server")]
use crate::inbound::Listeners;

/// How often idle targets and unused clusters are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Chooses the parts of a [`Mesh`]; what is not chosen has a default that its method names.
#[must_use = "nothing happens before build()"]
pub struct MeshBuilder {
    origin: Origin,
    names: Option<ListenerNames>,
    certificates: Vec<(Name, Chosen)>,
    insecure: Vec<Name>,
    aliases: Vec<String>,
    registry: Registry,
    dialect: Option<Dialect>,
    settings: Settings,
    last_good: Option<PathBuf>,
    events: Vec<Arc<dyn EventSink>>,
    client: OutboundOptions,
    connect: ConnectSettings,
    dial: Option<Arc<dyn Dial>>,
    resolver: Arc<dyn Resolve>,
    #[cfg(feature = "server")]
    inbound: crate::inbound::InboundOptions,
}

/// Where configuration comes from.
enum Origin {
    Environment,
    Bootstrap(Box<Bootstrap>),
    File(PathBuf),
    Source(Box<dyn Source>),
}

/// A source with what it says beside resources.
struct Opened {
    source: Box<dyn Source>,
    names: ListenerNames,
    providers: BTreeMap<Name, CertificateProvider>,
    /// Services that resources may name, by URI.
    allowed: BTreeMap<String, GrpcService>,
    /// How control planes are reached, for what is told to them beside ADS; None: there is none.
    control: Option<Control>,
}

/// How control planes are reached, and as whom.
struct Control {
    transport: Arc<dyn ControlTransport>,
    node: Node,
    settings: Settings,
}

impl MeshBuilder {
    pub(super) fn new() -> Self {
        Self {
            origin: Origin::Environment,
            names: None,
            certificates: Vec::new(),
            insecure: Vec::new(),
            aliases: Vec::new(),
            registry: Registry::standard(),
            dialect: None,
            settings: Settings::default(),
            last_good: None,
            events: vec![Arc::new(LogSink)],
            client: OutboundOptions::default(),
            connect: ConnectSettings::default(),
            dial: None,
            resolver: Arc::new(SystemResolver::default()),
            #[cfg(feature = "server")]
            inbound: crate::inbound::InboundOptions::default(),
        }
    }

    /// Configured by the xDS servers of this bootstrap. By default the environment says; see [`Mesh::from_env`].
    pub fn bootstrap(mut self, bootstrap: Bootstrap) -> Self {
        self.origin = Origin::Bootstrap(Box::new(bootstrap));
        self
    }

    /// Configured by this YAML file, which is followed as it changes.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.origin = Origin::File(path.into());
        self
    }

    /// Configured by a source of the application: a [`MemorySource`](mesh_core::source::MemorySource), or one of its own.
    pub fn source(mut self, source: impl Source + 'static) -> Self {
        self.origin = Origin::Source(Box::new(source));
        self
    }

    /// How targets and listening addresses become names of Listeners; by default the bootstrap says, and without one a
    /// target is its Listener's name.
    pub fn listener_names(mut self, names: ListenerNames) -> Self {
        self.names = Some(names);
        self
    }

    /// Adds a certificate provider instance, in place of one of that name in the bootstrap or the file.
    pub fn certificates(mut self, instance: impl Into<Name>, source: Arc<dyn CertificateSource>) -> Self {
        self.certificates.push((instance.into(), Chosen::Source(source)));
        self
    }

    /// Adds a certificate provider instance that this mesh runs, in place of one of that name in the bootstrap or the file:
    /// an [`SdsConfig`](mesh_core::bootstrap::SdsConfig), a [`SpiffeConfig`](mesh_core::bootstrap::SpiffeConfig), an
    /// [`IstioCaConfig`](mesh_core::bootstrap::IstioCaConfig) (with the feature `istio-ca`) or files. What refers to no other
    /// instance, as Istio's resources do, uses `default`; `MESH_IDENTITY` in the environment chooses that one too, and what
    /// is chosen here comes before it.
    ///
    /// ```no_run
    /// use mesh_core::bootstrap::SpiffeConfig;
    /// use mesh_tower::Mesh;
    ///
    /// // The agent that SPIFFE_ENDPOINT_SOCKET names.
    /// let mesh = Mesh::builder().certificate_provider("default", SpiffeConfig::from_env()?).build()?;
    /// # Ok::<(), mesh_core::error::Error>(())
    /// ```
    pub fn certificate_provider(mut self, instance: impl Into<Name>, provider: impl Into<CertificateProvider>) -> Self {
        self.certificates.push((instance.into(), Chosen::Provider(provider.into())));
        self
    }

    /// Names Clusters and Listeners whose TLS may be with anybody: with no trust anchor, with
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`, or with `allow_expired_certificate`. Who is let in so is nobody to
    /// authorization, whatever the certificate says. None by default: such a cluster is refused, and the other two fields are
    /// not read.
    pub fn insecure_tls(mut self, names: impl IntoIterator<Item = impl Into<Name>>) -> Self {
        self.insecure.extend(names.into_iter().map(Into::into));
        self
    }

    /// Names trust domains whose clients are let in as those of our own are, as Istio's `meshConfig.trustDomainAliases`: of a
    /// mesh that is being renamed, or of several under one root. None by default. A server whose certificate has a SPIFFE ID,
    /// and whose roots are not by trust domain, refuses clients of all others, unless the Listener's
    /// `match_typed_subject_alt_names` say who may come. What authorization says of names is not changed by it.
    pub fn trust_domain_aliases(mut self, domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.aliases.extend(domains.into_iter().map(Into::into));
        self
    }

    /// Adds a type of HTTP filter that Listeners may name. Whoever runs it is added to the client's or the server's filters
    /// under the same type URL.
    pub fn filter_type(mut self, filter: Arc<dyn HttpFilterType>) -> Self {
        self.registry = self.registry.with_filter(filter);
        self
    }

    /// Adds a balancing policy that clusters may name.
    pub fn policy_type(mut self, policy: Arc<dyn PolicyType>) -> Self {
        self.registry = self.registry.with_policy(policy);
        self
    }

    /// Whose rules resources are judged by where gRPC's and Envoy's differ. By default the source says: gRPC's for the xDS
    /// servers of a bootstrap, Envoy's for files and memory. A mesh of HTTP services whose control plane makes its resources
    /// for Envoy sets [`Dialect::Envoy`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// How the xDS client behaves: timeouts, backoff, the grace of deleted resources.
    pub fn xds(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// How long a Listener or a Cluster that the control plane deletes, and an endpoint set that it empties, is used on: 30 s
    /// by default, so that its slip stops no traffic. After that requests fail with the reason. [`Duration::ZERO`] is gRPC's
    /// old behaviour, None, for ever, that of gRFC A88. A server with `fail_on_data_errors` in the bootstrap gets no grace,
    /// whatever is set here.
    ///
    /// It is [`Settings::deletion_grace`]; [`xds`](Self::xds) sets it too. An endpoint that goes while others stay has no
    /// grace. During the grace of an emptied set only those endpoints are used that are still connected, or whose identity
    /// TLS proves by a SAN: their addresses may be other servers' by then. With [`Mesh::layer`] the connections are the
    /// application's, and all endpoints are used.
    pub fn deletion_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.settings.deletion_grace = grace.into();
        self
    }

    /// Keeps the last good configuration of the control plane in this directory, for a later process that starts while the
    /// control plane is away; see [`AdsSource::with_last_good`]. Default: what `MESH_LAST_GOOD` in the environment says, and
    /// without it nothing is kept. A file or a source of the application's own needs none, and it means nothing to them.
    pub fn last_good(mut self, directory: impl Into<PathBuf>) -> Self {
        self.last_good = Some(directory.into());
        self
    }

    /// Tells `sink` every event of the configuration, beside the log.
    pub fn events(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.events.push(sink);
        self
    }

    /// How clients treat requests where the configuration has no word.
    pub fn client_options(mut self, options: OutboundOptions) -> Self {
        self.client = options;
        self
    }

    /// What becomes of requests to hosts that are not in the mesh; see [`UnknownHosts`]. Of
    /// [`client_options`](Self::client_options) it is [`OutboundOptions::unknown_hosts`].
    pub fn unknown_hosts(mut self, choice: UnknownHosts) -> Self {
        self.client.unknown_hosts = choice;
        self
    }

    /// How connections to endpoints are made and kept.
    pub fn connect_options(mut self, settings: ConnectSettings) -> Self {
        self.connect = settings;
        self
    }

    /// Looks up names with `resolver`: those of clusters by DNS, and of hosts that are let pass. By default the system's is
    /// asked ([`SystemResolver`]).
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Connects by the application's own connector, as tonic's `connect_with_connector`: it is called with
    /// `http://address:port` of each endpoint and gives a stream of bytes. The mesh's TLS and HTTP run above it.
    pub fn connector<C>(mut self, connector: C) -> Self
    where
        C: tower_service::Service<http::Uri> + Clone + Send + Sync + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
        C::Error: Into<crate::BoxError>,
        C::Future: Send + 'static,
    {
        self.dial = Some(Arc::new(ServiceDial::new(connector)));
        self
    }

    /// How servers treat connections.
    #[cfg(feature = "server")]
    pub fn server_options(mut self, options: crate::inbound::InboundOptions) -> Self {
        self.inbound = options;
        self
    }

    /// Starts the mesh: its configuration thread, and nothing on the application's threads.
    ///
    /// # Errors
    ///
    /// [`Code::NO_RUNTIME`] outside a Tokio runtime; [`Code::NO_BOOTSTRAP`], [`Code::TWO_SOURCES`], [`Code::BAD_BOOTSTRAP`]
    /// or [`Code::BAD_FILE`] about where configuration comes from; [`Code::BAD_BOOTSTRAP`] also for an alias that is no trust
    /// domain. A control plane that is away is no error.
    pub fn build(self) -> Result<Mesh, Error> {
        let runtime = super::runtime()?;
        check_aliases(&self.aliases)?;
        let telemetry = Telemetry::global();
        let mut events = self.events;
        events.push(Arc::new(telemetry.clone()));
        let events: Arc<dyn EventSink> = Arc::new(Fanout::new(events));
        let settings = self.settings.clone();
        let Opened { source, names, providers, allowed, control } = open(self.origin, self.settings, self.last_good)?;
        let names = self.names.unwrap_or(names);
        let own_node = control.as_ref().map(|control| control.node.clone()).unwrap_or_default();
        let node = (!own_node.id.is_empty()).then(|| Name::from(own_node.id.as_str()));
        let (configured, chosen) = (providers, self.certificates);
        let opening =
            Opening { configured, allowed: &allowed, chosen, node: own_node, settings, events: events.clone() };
        let Certificates { providers: certificates, secrets, work: refresh } = opening.open()?;
        let secure = Secure::with_aliases(certificates.clone(), self.aliases.into());
        let dialect = self.dialect.unwrap_or_else(|| source.dialect());
        let decoder = Decoder::new(Arc::new(self.registry), certificates.instances())
            .with_insecure(self.insecure)
            .with_secret_servers(secrets)
            .with_dialect(dialect);
        let dial = self.dial.unwrap_or_else(|| Arc::new(TcpDial::new(self.connect.tcp_keepalive)));
        let connections = || {
            let (dial, secure, settings) = (dial.clone(), secure.clone(), self.connect.clone());
            Arc::new(Connections::new(runtime.clone(), dial, secure, settings, fastrand::u64(..)))
        };
        let passthrough = passthrough(&self.client, &self.resolver, connections);
        let signal = Signal::new();
        let watches = Arc::new(Watches::new(signal.clone()));
        let targets = targets(&names, &self.client, &watches);
        let joining = Joining::default();
        let loads = control.as_ref().map(|_| LoadStore::new());
        let options = &self.client;
        let parts =
            OutboundParts { targets: &targets, signal: &signal, options, events: &events, loads: &loads, node: &node };
        let outbound = parts.apply(connections());
        #[cfg(feature = "server")]
        let servers = Arc::<Servers>::default();
        let apply = MeshApply::new(
            outbound,
            joining.clone(),
            watches.clone(),
            #[cfg(feature = "server")]
            servers.clone(),
        );
        let config = ConfigThread::spawn(Options {
            resolver: self.resolver,
            background: background(
                both(
                    both(refresh, Box::pin(secure.clone().follow_revocations())),
                    report(control, loads.as_ref(), &events),
                ),
                &targets,
                passthrough.as_ref(),
                &signal,
            ),
            ..Options::new(
                source,
                Arc::new(decoder),
                Box::new(move || Box::new(apply) as Box<dyn Apply>),
                events.clone(),
                fastrand::u64(..),
            )
        })?;
        watches.start(config.clone());
        #[cfg(feature = "server")]
        let callouts = Callouts::new(targets.clone(), self.client.clone(), telemetry.clone(), runtime);
        Ok(Mesh(Arc::new(Shared {
            config,
            names,
            outbound: Outbound {
                targets,
                passthrough,
                watches,
                signal,
                joining,
                options: self.client,
                in_flight: Arc::default(),
                events,
                loads,
                node,
                telemetry: telemetry.clone(),
                traffic: Traffic::default(),
            },
            #[cfg(feature = "server")]
            inbound: Inbound {
                listeners: Listeners::default(),
                servers,
                options: self.inbound.with_tls(Arc::new(secure)).with_callouts(&callouts).with_telemetry(telemetry),
            },
        })))
    }
}

/// An alias that no SPIFFE ID can have would let in nobody, and nobody would know why.
fn check_aliases(aliases: &[String]) -> Result<(), Error> {
    let is_domain = |alias: &str| format!("spiffe://{alias}").parse().is_ok_and(|id: SpiffeId| id.path().is_empty());
    match aliases.iter().find(|alias| !is_domain(alias)) {
        None => Ok(()),
        Some(alias) => {
            let text = format!("trust_domain_aliases: `{alias}` is no trust domain");
            Err(Error::new(Code::BAD_BOOTSTRAP, text)
                .with_next_step("name it as SPIFFE IDs do between spiffe:// and their path, as in `cluster.local`"))
        }
    }
}

/// The targets of a client.
pub(super) fn targets(names: &ListenerNames, options: &OutboundOptions, watches: &Arc<Watches>) -> Arc<Targets> {
    Arc::new(Targets::new(names.clone(), options.max_targets, options.target_idle, watches.clone()))
}

/// What a client is applied with.
pub(super) struct OutboundParts<'a> {
    pub(super) targets: &'a Arc<Targets>,
    pub(super) signal: &'a Arc<Signal>,
    pub(super) options: &'a OutboundOptions,
    pub(super) events: &'a Arc<dyn EventSink>,
    pub(super) loads: &'a Option<Arc<LoadStore>>,
    pub(super) node: &'a Option<Name>,
}

impl OutboundParts<'_> {
    pub(super) fn apply(&self, factory: Arc<dyn EndpointFactory>) -> OutboundApply {
        let filters = self.options.filters.clone();
        let (targets, events) = (self.targets.clone(), self.events.clone());
        let limits = Limits { connected: self.options.connected_endpoints, seed: fastrand::u64(..) };
        OutboundApply::new(targets, factory, self.signal, filters, events, self.loads.clone(), limits)
            .of_node(self.node.clone())
    }
}

/// Reports load to the control planes that ask for it.
fn report(control: Option<Control>, loads: Option<&Arc<LoadStore>>, events: &Arc<dyn EventSink>) -> Background {
    match control.zip(loads.cloned()) {
        Some((Control { transport, node, settings }, loads)) => {
            Box::pin(lrs::Driver::new(loads, transport, node, settings, events.clone(), fastrand::u64(..)))
        }
        None => Box::pin(std::future::ready(())),
    }
}

fn both(one: Background, other: Background) -> Background {
    Box::pin(async move {
        tokio::join!(one, other);
    })
}

/// Where hosts that are not in the mesh are let pass to, if they are. Connections of its own: a cluster's name says nothing
/// of what passes the mesh by.
fn passthrough(
    options: &OutboundOptions,
    resolver: &Arc<dyn Resolve>,
    connections: impl Fn() -> Arc<Connections>,
) -> Option<Arc<Passthrough>> {
    let (most, idle) = (options.max_targets, options.target_idle);
    let passes = options.unknown_hosts == UnknownHosts::PassThrough;
    passes.then(|| Arc::new(Passthrough::new(connections(), resolver.clone(), most, idle)))
}

/// Does `beside`, and forgets idle targets.
fn background(
    beside: Background,
    targets: &Arc<Targets>,
    passthrough: Option<&Arc<Passthrough>>,
    signal: &Arc<Signal>,
) -> Background {
    let (targets, signal) = (Arc::downgrade(targets), signal.clone());
    let passthrough = passthrough.map(Arc::downgrade);
    let sweep = async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(targets) = targets.upgrade() else { return };
            let now = tokio::time::Instant::now().into_std();
            targets.sweep(now);
            if let Some(passthrough) = passthrough.as_ref().and_then(Weak::upgrade) {
                passthrough.sweep(now);
            }
            // Clusters that nobody uses any more are evicted in the same round.
            signal.raise();
        }
    };
    Box::pin(async move {
        tokio::join!(beside, sweep);
    })
}

/// Opens what the configuration comes from.
fn open(origin: Origin, settings: Settings, last_good: Option<PathBuf>) -> Result<Opened, Error> {
    match origin {
        Origin::Environment => match Selection::from_env()? {
            Selection::Bootstrap(bootstrap) => Ok(of_bootstrap(*bootstrap, settings, last_good)),
            Selection::File(path) => of_file(&path, settings),
            other => Err(Error::new(Code::NO_BOOTSTRAP, format!("the environment selects {other:?}"))),
        },
        Origin::Bootstrap(bootstrap) => Ok(of_bootstrap(*bootstrap, settings, last_good)),
        Origin::File(path) => of_file(&path, settings),
        Origin::Source(source) => Ok(Opened {
            source,
            names: ListenerNames::local(),
            providers: BTreeMap::new(),
            allowed: BTreeMap::new(),
            control: None,
        }),
    }
}

fn of_bootstrap(bootstrap: Bootstrap, settings: Settings, last_good: Option<PathBuf>) -> Opened {
    let transport = control_transport();
    let mut source = AdsSource::new(&bootstrap, transport.clone()).with_settings(settings.clone());
    if let Some(directory) = last_good.or_else(last_good_directory) {
        source = source.with_last_good(directory);
    }
    let Bootstrap {
        node, listener_names: names, certificate_providers: providers, allowed_grpc_services: allowed, ..
    } = bootstrap;
    Opened { source: Box::new(source), names, providers, allowed, control: Some(Control { transport, node, settings }) }
}

#[cfg(feature = "file")]
fn of_file(path: &Path, settings: Settings) -> Result<Opened, Error> {
    let source = FileSource::open(path)?.with_settings(settings);
    let providers = source.certificate_providers().clone();
    let (names, allowed) = (ListenerNames::local(), BTreeMap::new());
    Ok(Opened { source: Box::new(source), names, providers, allowed, control: None })
}

#[cfg(not(feature = "file"))]
fn of_file(path: &Path, _settings: Settings) -> Result<Opened, Error> {
    let text = format!("{} cannot be read: this program is built without the feature `file`", path.display());
    Err(Error::new(Code::BAD_FILE, text))
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
