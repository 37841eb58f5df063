//! From an endpoint to a connection that takes requests.
//!
//! Each endpoint of a cluster has one [`EndpointHandle`], made by an [`EndpointFactory`]. It owns the endpoint's connections,
//! makes them again when they are lost, and says in the endpoint's `CandidateState` whether requests can go there.

mod app;
mod backoff;
mod classify;
mod connections;
pub(crate) mod control;
mod dial;
mod exchange;
mod first;
#[allow(dead_code, reason = "the seam for tunnels: HBONE is the first hop there will be")]
mod hops;
mod http1;
mod http2;
mod link;
mod message;
mod request;
mod settings;
mod tcp;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod way;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use mesh_core::balance::CandidateState;
use mesh_core::error::Error;
use mesh_core::model::{Endpoint, Name, UpstreamTls};
use mesh_core::policy::retry::Failure;
use tokio::sync::Semaphore;

pub use self::app::PickedEndpoint;
pub(crate) use self::app::{MadeEndpoints, ServiceEndpoints};
pub use self::backoff::ConnectBackoff;
pub use self::connections::Connections;
pub(crate) use self::dial::{Dial, ServiceDial, TcpDial};
#[cfg(test)]
use self::hops::{Hop, Hops, PoolKey};
pub(crate) use self::message::{Deframer, frame};
pub use self::settings::ConnectSettings;
pub use self::tcp::TcpKeepalive;
use crate::body::MeshBody;

/// A future whose kind no longer matters.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes requests for one endpoint. Called by reference, from any number of requests at once.
pub trait EndpointService: Send + Sync + fmt::Debug {
    /// Sends a request. It is called only for endpoints that said they are ready; one that no longer is gives the request
    /// back in [`Failed::request`], so that another endpoint can take it.
    fn call(&self, request: Request<MeshBody>) -> EndpointFuture;
}

/// A request under way, up to its response's head.
pub type EndpointFuture = Pin<Box<dyn Future<Output = Result<Response<MeshBody>, Failed>> + Send>>;

/// Why there is no response.
#[derive(Debug)]
pub struct Failed {
    /// What kind of failure it is, for retries.
    pub failure: Failure,
    /// What happened.
    pub error: Error,
    /// The request, if none of it has left.
    pub request: Option<Box<Request<MeshBody>>>,
}

/// The way to one endpoint. Dropping it ends its connections once the requests on them are over.
pub trait EndpointHandle: EndpointService {
    /// Asks for a connection, where connections are made on demand. It does nothing if there is one or one is being made.
    fn connect(&self);

    /// Why the last attempt to connect failed; None if it succeeded or none was made.
    fn last_error(&self) -> Option<Error>;
}

/// Makes the ways to endpoints: over connections of our own, or over services of the application.
pub trait EndpointFactory: Send + Sync + fmt::Debug {
    /// The way to the endpoint of `plan`. Called on the configuration thread; it must not block.
    fn endpoint(&self, plan: EndpointPlan) -> Arc<dyn EndpointHandle>;

    /// Whether TLS that the mesh demands is made and proven by it. If not, clusters that demand TLS are refused.
    fn proves_tls(&self) -> bool;

    /// Whether the connections are its own, so that the mesh may have streams of its own on them (gRFC A51), which are made on
    /// the configuration thread. The application's services are for the application's requests.
    fn owns_connections(&self) -> bool;
}

/// Everything a way to an endpoint is made from.
#[derive(Clone)]
pub struct EndpointPlan {
    /// The cluster, for texts.
    pub cluster: Name,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Which HTTP to speak.
    pub protocol: WireProtocol,
    /// The TLS that the cluster demands.
    pub tls: Option<Arc<UpstreamTls>>,
    /// How long a connection may take to stand, TLS included: `Cluster.connect_timeout`.
    pub connect_timeout: Duration,
    /// The most connections at a time: `circuit_breakers.max_connections`. HTTP/2 needs one.
    pub max_connections: u32,
    /// Turns to connect: one is taken for as long as a connection is being made.
    pub connecting: Arc<Semaphore>,
    /// Whether to connect at once and again whenever the connection is lost, or on demand.
    pub eager: bool,
    /// Where to say whether requests can go there.
    pub state: Arc<CandidateState>,
    /// Whom to tell that `state` has changed, after it has.
    pub changed: Arc<dyn StateListener>,
}

/// Is told that the state of an endpoint has changed. Called from anywhere; it must not block.
pub trait StateListener: Send + Sync {
    /// The state has changed.
    fn state_changed(&self);
}

/// Which HTTP an endpoint is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WireProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; in plaintext with prior knowledge.
    Http2,
    /// What ALPN chooses; in plaintext HTTP/1.1.
    Negotiated,
}

impl fmt::Debug for EndpointPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPlan")
            .field("cluster", &self.cluster)
            .field("address", &self.endpoint.address)
            .field("protocol", &self.protocol)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}
