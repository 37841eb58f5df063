//! The handle that applications hold: clients, layers and servers of one mesh.

mod apply;
mod builder;
mod certificates;
mod drain;
mod explain;
mod layer;
pub mod traffic;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::bootstrap::ListenerNames;
use mesh_core::config::ConfigHandle;
use mesh_core::error::Error;
use mesh_core::status::ConfigStatus;

pub use builder::MeshBuilder;
pub(crate) use drain::{InFlight, InFlightGuard};
pub use explain::ExplainService;
pub use layer::{MeshLayer, MeshMakeLayer};
#[cfg(feature = "server")]
pub(crate) use traffic::number;
pub(crate) use traffic::{Calls, ClientRecord};

#[cfg(feature = "server")]
use crate::inbound::{Bound, InboundOptions, Listeners, RequestBody, serve};
use crate::observe::Telemetry;
use crate::outbound::{HttpClient, OutboundOptions, Passthrough, Signal, Targets, Watches, Way, stack};
#[cfg(feature = "server")]
use apply::Servers;
use traffic::Traffic;

/// How long the configuration thread may take to end. It waits for nothing, but may be in the middle of a large update.
const FAREWELL: Duration = Duration::from_secs(1);

/// A mesh: its configuration, its clients and its servers, in this process.
///
/// It is a handle, cheap to clone. Clients, layers and listeners keep the mesh alive; when the last is gone its
/// configuration thread ends. A process needs one: all its targets share one ADS stream to each control plane, and another mesh
/// would have streams of its own.
///
/// ```no_run
/// use mesh_tower::Mesh;
///
/// # async fn example() -> Result<(), mesh_core::error::Error> {
/// // From MESH_CONFIG, a YAML file of routes, or GRPC_XDS_BOOTSTRAP, the bootstrap of an xDS control plane.
/// let mesh = Mesh::from_env()?;
/// let response = mesh.http().get("http://reviews:9080/ratings").await?;
/// println!("{}", response.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mesh(Arc<Shared>);

struct Shared {
    config: ConfigHandle,
    names: ListenerNames,
    outbound: Outbound,
    #[cfg(feature = "server")]
    inbound: Inbound,
}

/// What clients of a mesh share.
struct Outbound {
    targets: Arc<Targets>,
    /// Where requests to hosts that are not in the mesh go; None: they are refused.
    passthrough: Option<Arc<Passthrough>>,
    watches: Arc<Watches>,
    signal: Arc<Signal>,
    joining: apply::Joining,
    options: OutboundOptions,
    in_flight: Arc<InFlight>,
    events: Arc<dyn mesh_core::event::EventSink>,
    loads: Option<Arc<mesh_core::load::LoadStore>>,
    /// Who we are to the control plane; None: there is none, or we have no name.
    node: Option<mesh_core::model::Name>,
    telemetry: Telemetry,
    traffic: Traffic,
}

/// What servers of a mesh share.
#[cfg(feature = "server")]
struct Inbound {
    listeners: Listeners,
    servers: Arc<Servers>,
    options: InboundOptions,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What the thread applies to holds handles of the thread: it would never end by itself.
        self.config.shutdown();
    }
}

impl Mesh {
    /// The mesh that the environment describes: `MESH_CONFIG` names a YAML file of routes; `GRPC_XDS_BOOTSTRAP` or
    /// `GRPC_XDS_BOOTSTRAP_CONFIG` give the bootstrap of an xDS control plane.
    ///
    /// # Errors
    ///
    /// As [`MeshBuilder::build`].
    pub fn from_env() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// A mesh whose parts are chosen one by one.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::new()
    }

    /// Stops: nothing new is accepted or sent, what is under way is waited for, `deadline` from now at the latest, and the
    /// control plane is told that we leave, and of the load since its last report.
    pub async fn shutdown(&self, deadline: Duration) {
        self.0.outbound.in_flight.close();
        let done = async {
            #[cfg(feature = "server")]
            self.0.inbound.listeners.shutdown(deadline).await;
            self.0.outbound.in_flight.drained().await;
        };
        // Whoever is over time has its connection closed with the process.
        let _ = tokio::time::timeout(deadline, done).await;
        if let Some(loads) = &self.0.outbound.loads {
            let _ = tokio::time::timeout(FAREWELL, loads.end()).await;
        }
        self.0.config.shutdown();
        let _ = tokio::time::timeout(FAREWELL, self.0.config.stopped()).await;
        #[cfg(feature = "server")]
        let _ = tokio::time::timeout(FAREWELL, crate::inbound::audit_written()).await;
    }
}

impl Mesh {
    /// A client for any host: each request's authority is its target. A host that is not in the mesh is refused, unless the
    /// mesh was built to let it pass; see [`MeshBuilder::unknown_hosts`].
    pub fn http(&self) -> HttpClient {
        let Outbound { targets, passthrough, .. } = &self.0.outbound;
        self.client_of(Way::ByAuthority { targets: targets.clone(), passthrough: passthrough.clone() }, None)
    }

    /// A client for one target: `xds:///reviews:9080`, `reviews:9080` or `http://reviews:9080`. Its virtual host is chosen
    /// by the target, as in gRPC (gRFC A47), and requests need no authority.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`](mesh_core::error::Code::BAD_TARGET) and
    /// [`Code::TOO_MANY_TARGETS`](mesh_core::error::Code::TOO_MANY_TARGETS).
    pub fn client(&self, target: &str) -> Result<HttpClient, Error> {
        let target = mesh_core::target::Target::parse(target)?;
        let authority = target.authority();
        let pinned = Arc::new(self.0.outbound.targets.pin(&target)?);
        // A name that is no authority (it may be any in xDS) leaves requests to say their own.
        let default = authority.parse().ok();
        Ok(self.client_of(Way::Fixed { target: pinned, authority: authority.into() }, default))
    }

    /// The targets of its clients.
    #[cfg(test)]
    pub(crate) fn targets(&self) -> Arc<crate::outbound::Targets> {
        self.0.outbound.targets.clone()
    }

    /// Waits until the configuration of `target` is in force.
    ///
    /// # Errors
    ///
    /// Why there is none: the control plane cannot be reached, the Listener does not exist or was refused.
    pub async fn ready(&self, target: &str) -> Result<(), Error> {
        self.view(&mesh_core::target::Target::parse(target)?).await.map(drop)
    }

    /// What the mesh's xDS clients know: every resource that is wanted, its state, version, bytes and errors. The content of
    /// the client status service (gRFC A40), which `mesh_grpc::admin` serves; here it is for an application's own page.
    ///
    /// It is put together on the configuration thread, and no request waits for it. Sources of the application have
    /// something to show if their [`Feed::status`](mesh_core::source::Feed::status) does.
    ///
    /// # Errors
    ///
    /// [`Code::SHUT_DOWN`](mesh_core::error::Code::SHUT_DOWN).
    pub async fn config_status(&self) -> Result<Arc<ConfigStatus>, Error> {
        self.0.config.status().await
    }

    /// Waits until the mesh was shut down.
    pub async fn stopped(&self) {
        self.0.config.stopped().await;
    }

    fn client_of(&self, way: Way, authority: Option<http::uri::Authority>) -> HttpClient {
        let Outbound { targets, options, in_flight, telemetry, traffic, .. } = &self.0.outbound;
        let record = traffic.record(&way);
        // Nobody looks at the extensions of a request on a connection of our own.
        let stack = stack(way, targets.clone(), options, false);
        HttpClient::new(stack, authority, in_flight.clone(), telemetry.clone(), record, self.0.clone())
    }
}

#[cfg(feature = "server")]
impl Mesh {
    /// Serves `app` on `address` under the mesh's configuration, until [`shutdown`](Self::shutdown). Dropping the future
    /// closes everything at once.
    ///
    /// The address names the Listener resource. Until there is a valid one, connections are closed without a byte.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub async fn serve<S, R>(&self, address: impl tokio::net::ToSocketAddrs, app: S) -> Result<(), Error>
    where
        S: tower_service::Service<http::Request<RequestBody>, Response = http::Response<R>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<crate::BoxError>,
        R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        R::Error: Into<crate::BoxError>,
    {
        let (slot, listener) = self.bind(address).await?.into_parts();
        serve(slot, listener, app).await;
        Ok(())
    }

    /// Listens on `address`, for [`Bound::split`]: the application's own server (axum, tonic, hyper) with the mesh's
    /// listener and layer.
    ///
    /// # Errors
    ///
    /// [`Code::BIND`](mesh_core::error::Code::BIND), and
    /// [`Code::BAD_BOOTSTRAP`](mesh_core::error::Code::BAD_BOOTSTRAP) if the bootstrap has no
    /// `server_listener_resource_name_template`.
    pub async fn bind(&self, address: impl tokio::net::ToSocketAddrs) -> Result<Bound, Error> {
        let bad = |why: String| Error::new(mesh_core::error::Code::BIND, why);
        let mut found = tokio::net::lookup_host(address).await.map_err(|error| bad(error.to_string()))?;
        let address = found.next().ok_or_else(|| bad("the name has no address".to_owned()))?;
        let Inbound { listeners, servers, options } = &self.0.inbound;
        let names = &self.0.names;
        let bound = listeners.bind(address, options.clone(), self.0.clone(), |bound| names.for_server(bound)).await?;
        servers.add(bound.slot());
        self.0.config.watch_server(bound.slot().target().clone());
        Ok(bound)
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("names", &self.0.names).finish_non_exhaustive()
    }
}

/// The application's runtime.
fn runtime() -> Result<tokio::runtime::Handle, Error> {
    tokio::runtime::Handle::try_current().map_err(|error| {
        Error::new(mesh_core::error::Code::NO_RUNTIME, "the mesh is used outside a Tokio runtime").with_source(error)
    })
}
