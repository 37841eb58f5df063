//! A request's way, inbound, in the order it is walked:
//!
//! ```text
//! accept -> sniff -> match chain -> secure -> identify -> normalize -> route -> filters -> handler
//! ```
//!
//! What is in force on an address lives in its [`InboundSlot`]. [`serve()`] is the server that owns its connections;
//! [`Bound::split`] gives a [`MeshListener`] and an [`InboundLayer`] for servers of the application's choice.

mod slot;
mod options;
mod config;
mod accept;
mod early;
mod sniff;
mod backlog;
mod identify;
mod normalize;
mod route;
mod facts;
mod authenticate;
mod authorize;
mod load;
mod layer;
mod serve;
mod split;
mod listeners;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use accept::{Addresses, InboundIo, InboundListener, TcpIo};
pub use authenticate::JwtAuthnFilterType;
pub(crate) use authorize::written as audit_written;
pub use authorize::{ExtAuthzFilterType, RbacFilterType};
pub(crate) use backlog::Held;
pub(crate) use config::{Accepted, BoxedAccept, HelloReader, InboundTls, TlsAcceptor, TlsClient};
pub use facts::RequestFacts;
pub use identify::PeerInfo;
pub use layer::{InboundFuture, InboundLayer, InboundService};
pub(crate) use listeners::Listeners;
pub(crate) use load::Reporting;
pub use load::{LoadRecorder, ServerLoad};
pub use options::{InboundLimits, InboundOptions, OnServingChange};
pub use serve::{RequestBody, serve};

pub use crate::filter::DynamicMetadata;
pub use slot::{InboundSlot, ServingChange, ServingState};
pub use split::{Bound, MeshIo, MeshListener, listen};

use std::sync::Arc;

pub(crate) use crate::BoxError;
use crate::filter::Filters;

/// The HTTP filters that a server can apply.
pub type InboundFilters = Filters<RequestFacts>;

impl InboundFilters {
    /// The built-in types for servers: those for both sides, JWT authentication, external
    /// authorization and RBAC.
    #[must_use]
    pub fn of_server() -> Self {
        Self::standard()
            .with(Arc::new(JwtAuthnFilterType::default()))
            .with(Arc::new(ExtAuthzFilterType::default()))
            .with(Arc::new(RbacFilterType))
    }
}
