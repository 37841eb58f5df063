//! Resources on their way from a source to the graph: what one is called, and what can be said about it.

pub(crate) mod percent;
mod xdstp;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::bootstrap::ServerConfig;
use crate::error::Error;
use crate::model::Name;

pub use xdstp::XdstpName;
pub(crate) use xdstp::fault as name_fault;

/// `envoy.config.listener.v3.Listener`; its value is a [`model::Listener`](crate::model::Listener).
pub const LISTENER: &str = "envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration`; its value is a [`model::RouteTable`](crate::model::RouteTable).
pub const ROUTE_CONFIGURATION: &str = "envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.cluster.v3.Cluster`; its value is a [`model::Cluster`](crate::model::Cluster).
pub const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment`; its value is a [`model::Endpoints`](crate::model::Endpoints).
pub const CLUSTER_LOAD_ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
/// `envoy.extensions.transport_sockets.tls.v3.Secret`; its value is an [`identity::Secret`](crate::identity::Secret). It comes
/// from a secret discovery service, never with the others.
pub const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

/// A name that DNS knows, as clusters by DNS need it (gRFC A37). It comes from a [resolver](crate::dns), never from a source.
pub const HOST: &str = "dns.Host";

/// Stands for every resource of a type in a subscription; no resource is called so.
pub const WILDCARD: &str = "*";

/// What a type URL begins with on the wire; everywhere else in this crate it is left out.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// Which resource: its type, without [`TYPE_URL_PREFIX`], and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// The type.
    pub type_url: Name,
    /// The name. An `xdstp:` name is spelled in its one way (see [`XdstpName`]).
    pub name: Name,
}

impl ResourceKey {
    /// The resource `name` of type `type_url`. Keys of equal `xdstp:` names are equal (gRFC A47), however they are spelled.
    pub fn new(type_url: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { type_url: type_url.into(), name: canonical_name(name) }
    }
}

/// The one spelling of a resource's name (see [`XdstpName`]); a name of another kind is its own.
pub fn canonical_name(name: impl Into<Name>) -> Name {
    xdstp::canonical(name.into())
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.type_url.rsplit('.').next().unwrap_or(&self.type_url);
        write!(f, "{short} `{}`", self.name)
    }
}

/// The decoded value of a resource: a model type behind `Any`, so that new types are rows in a table.
pub type ResourceValue = Arc<dyn Any + Send + Sync>;

/// What a source says about a resource someone is subscribed to.
///
/// The two kinds of bad news have two names, so that nobody can confuse "stop using it" with "keep using it" (gRFC A88).
#[derive(Clone)]
pub enum ResourceEvent {
    /// It has this value now; earlier errors are over.
    Changed {
        /// Which resource.
        key: ResourceKey,
        /// Its value.
        value: ResourceValue,
        /// The version it came with.
        version: String,
        /// The server it came from, which is what `self` means in it (gRFC A47); None: no server.
        server: Option<Arc<ServerConfig>>,
    },
    /// There is trouble, but the value last told is to be used on. None: the trouble is over.
    Ambient {
        /// Which resource.
        key: ResourceKey,
        /// The trouble.
        error: Option<Error>,
        /// Whether the trouble is that it was deleted, or emptied of all it held: the value is used on for a grace period
        /// only, and what it names may belong to somebody else by now.
        lapsing: bool,
    },
    /// There is no value to use: it does not exist, was refused, or nothing can be reached and nothing is cached. A value
    /// told before is to be dropped.
    Unusable {
        /// Which resource.
        key: ResourceKey,
        /// Why.
        error: Error,
    },
}

impl ResourceEvent {
    /// Which resource it is about.
    pub fn key(&self) -> &ResourceKey {
        match self {
            Self::Changed { key, .. } | Self::Ambient { key, .. } | Self::Unusable { key, .. } => key,
        }
    }
}

impl fmt::Debug for ResourceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { key, version, .. } => write!(f, "Changed({key} @ {version})"),
            Self::Ambient { key, error, .. } => write!(f, "Ambient({key}: {error:?})"),
            Self::Unusable { key, error } => write!(f, "Unusable({key}: {error:?})"),
        }
    }
}
