//! A request's way, outbound, in the order it is walked:
//!
//! ```text
//! resolve -> route -> deadline -> filter -> shape -> redirect -> mirror -> retry -> [ limit -> pick -> connect -> secure ] -> wire
//!         -> passthrough, where the host is not in the mesh and the client lets it pass
//! ```
//!
//! `stack` puts the layers together. What they read is published by the configuration thread: targets with their routes,
//! and clusters with their pickers. [`HttpClient`] is the public end.

mod options;
mod facts;
mod watches;
mod target;
mod view;
mod cluster;
mod explain;
mod apply;
mod downstream;
mod stage;
mod stack;
mod resolve;
mod passthrough;
mod route;
mod deadline;
mod filter;
mod shape;
mod kept;
mod redirect;
mod mirror;
mod retry;
mod limit;
mod pick;
mod response;
mod client;
#[cfg(test)]
mod tests;

use std::time::Instant;

use http::header::HOST;
use http::{HeaderMap, Uri};
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, ClusterChoice, Route, Unsupported, UnsupportedEffect, WeightedCluster};

pub(crate) use apply::OutboundApply;
pub use client::{HttpClient, InternalCaller, ResponseFuture, WaitForReady};
pub(crate) use cluster::{Limits, Signal};
pub(crate) use explain::explain;
pub use explain::{Explained, ExplainedCluster, ExplainedEndpoint};
pub use facts::OutboundFacts;
pub use options::{OutboundOptions, UnknownHosts};
pub(crate) use passthrough::Passthrough;
pub(crate) use resolve::Way;
pub use response::ResponseBody;
pub(crate) use stack::stack;
pub(crate) use target::{NoConfig, TargetSlot, TargetState, Targets};
pub(crate) use view::TargetView;
pub(crate) use watches::Watches;

/// The HTTP filters that a client can apply.
pub type OutboundFilters = crate::filter::Filters<OutboundFacts>;

/// What time it is, on the clock that timers go by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The authority of a request, however it is said; empty if it is not.
pub(crate) fn authority_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}

/// The weighted clusters of a route; empty if it has none.
fn weighted_of(route: &Route) -> &[WeightedCluster] {
    match &route.action {
        Action::Forward(forward) => match &forward.cluster {
            ClusterChoice::Weighted(weighted) => &weighted.clusters,
            _ => &[],
        },
        _ => &[],
    }
}

/// A call's way through the layers, as far as it got.
pub(crate) trait Tries {
    /// The attempts that the retry policy has asked for beside the first.
    fn retries(&self) -> u32;
}

/// What would change the response and is not implemented fails the request.
fn refuse_unsupported(fields: &[Unsupported], whose: impl FnOnce() -> String) -> Result<(), Error> {
    match fields.iter().find(|field| field.effect == UnsupportedEffect::FailsRequests) {
        Some(field) => {
            Err(Error::new(Code::UNSUPPORTED_ROUTE, format!("{} has {}, which is not supported", whose(), field.field)))
        }
        None => Ok(()),
    }
}
