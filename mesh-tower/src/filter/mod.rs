//! HTTP filters: what an RBAC, fault or CORS filter implements, and how a Listener's list becomes a chain (gRFC A39).
//!
//! Both ways use it; they differ in what is known of a request, the facts `F`. Filters run in the Listener's order, after the
//! route is known, with the overrides of the route, its virtual host and its table. A filter that this process does not have
//! is never passed over: the Listener is refused.

#[cfg(feature = "server")]
mod callouts;
mod cors;
mod fault;
mod header_mutation;
mod hold;
mod kept;
mod local_rate_limit;
mod pace;
mod run;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::{request, response};
use mesh_core::error::{Code, Error};
use mesh_core::model::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter, Metadata, Name, Route, VirtualHost};
use mesh_core::route::RequestFacts;
use mesh_core::route::format::FormatFacts;

use crate::reply::Reply;
#[cfg(feature = "server")]
pub use callouts::Callouts;
#[cfg(feature = "server")]
pub(crate) use callouts::Work;
pub use cors::CorsFilterType;
pub use fault::FaultFilterType;
pub use header_mutation::HeaderMutationFilterType;
pub use hold::Held;
pub(crate) use hold::Hold;
pub(crate) use kept::Kept;
pub use local_rate_limit::LocalRateLimitFilterType;
pub(crate) use pace::{Pace, Pacer, poll_paced};
pub(crate) use run::FilterRun;

/// What is known of a request beside its head, by the filter (or other part) that found it out: in the request's extensions.
/// Routes ask for it (`dynamic_metadata`), and so do filters that come after; routing comes before all filters, so that what
/// routes are to see is put there before the mesh gets the request: by a client's application, or by a layer around the server's.
#[derive(Debug, Clone, Default)]
pub struct DynamicMetadata(pub Metadata);

/// One filter of a Listener, with the configuration of one route. Shared by every request of that route.
pub trait Filter<F>: Send + Sync + fmt::Debug {
    /// Judges a request before it goes on.
    fn on_request(&self, request: &mut request::Parts, facts: &F) -> Verdict;

    /// Whether [`Verdict::Read`] may be its answer. A server whose requests have bodies that nobody can put together again
    /// ([`Bound::split`](crate::inbound::Bound::split)) refuses a Listener with such a filter.
    fn reads_body(&self) -> bool {
        false
    }

    /// Judges a request after [`Verdict::Read`], when so much of its body is there.
    fn on_body(&self, _request: &mut request::Parts, _held: Held, _facts: &F) -> Verdict {
        Verdict::Continue
    }

    /// Sees the head of the response, the mesh's own answers included. Filters are asked in reverse order.
    fn on_response(&self, _response: &mut response::Parts, _facts: &F) {}
}

/// What a filter says to a request.
pub enum Verdict {
    /// Go on.
    Continue,
    /// Change the request, then go on.
    Change(Box<dyn FnOnce(&mut request::Parts) + Send>),
    /// Go on, and change the head of the response when it comes, after later filters have seen it: for what depends on the
    /// request.
    Watch(Box<dyn FnOnce(&mut response::Parts) + Send>),
    /// Change the request, then go on, and change the head of the response when it comes.
    Amend {
        /// Changes the request.
        request: Box<dyn FnOnce(&mut request::Parts) + Send>,
        /// Changes the response, after later filters have seen it.
        response: Box<dyn FnOnce(&mut response::Parts) + Send>,
    },
    /// Answer so; neither later filters nor whoever is behind them see the request.
    Reply(Box<Reply>),
    /// Read so many bytes of the request's body, or all of it if it has less, and then ask [`Filter::on_body`]. They stay in
    /// the request: who comes after reads it whole.
    Read(usize),
    /// It takes time (a delay, a question to another server).
    Wait(Pin<Box<dyn Future<Output = Verdict> + Send>>),
}

/// A type of filter that can be applied. The decoding half is `mesh_core::decode::HttpFilterType`, under the same
/// type URL.
pub trait FilterType<F>: Send + Sync {
    /// The type of its configuration, without `type.googleapis.com/`.
    fn type_url(&self) -> &str;

    /// This type, in a mesh whose filters can ask other servers. None, as by default: it asks nobody.
    #[cfg(feature = "server")]
    fn with_callouts(&self, _callouts: &Callouts) -> Option<Arc<dyn FilterType<F>>> {
        None
    }

    /// Makes `filter`, as the Listener lists it, for one route. `overrides` are the configurations of the table, the virtual
    /// host and the route, as far as there are any: the last is the most specific.
    ///
    /// # Errors
    ///
    /// The configuration cannot be honoured: the Listener is refused.
    fn build(&self, filter: &HttpFilter, overrides: &[Arc<dyn FilterConfig>]) -> Result<Arc<dyn Filter<F>>, Error>;
}

/// What the built-in filters ask of a request's facts, on either side.
pub trait FilterFacts {
    /// What can be matched of the request.
    fn request<'a>(&'a self, request: &'a request::Parts) -> RequestFacts<'a>;

    /// The cluster it goes to, where there is one.
    fn cluster(&self) -> Option<&str>;

    /// The route that took it.
    fn route(&self) -> &Route;

    /// The virtual host of that route.
    fn host(&self) -> &VirtualHost;

    /// What formats may speak of.
    fn format<'a>(&'a self, request: &'a request::Parts) -> FormatFacts<'a>;
}

/// The types of filters that can be applied, by type URL; none by default.
pub struct Filters<F> {
    types: BTreeMap<Name, Arc<dyn FilterType<F>>>,
    /// Whether filters may read bodies.
    bodies: bool,
}

impl<F: FilterFacts + Clone + Send + Sync + 'static> Filters<F> {
    /// The built-in types: fault injection, CORS, header mutation and local rate limits.
    #[must_use]
    pub fn standard() -> Self {
        Self::default()
            .with(Arc::new(FaultFilterType::default()))
            .with(Arc::new(CorsFilterType))
            .with(Arc::new(HeaderMutationFilterType))
            .with(Arc::new(LocalRateLimitFilterType::default()))
    }
}

impl<F> Filters<F> {
    /// With one more type, in place of one of the same type URL.
    #[must_use]
    pub fn with(mut self, filter: Arc<dyn FilterType<F>>) -> Self {
        self.types.insert(filter.type_url().into(), filter);
        self
    }

    /// The same types, in a mesh whose filters can ask other servers.
    #[cfg(feature = "server")]
    pub(crate) fn with_callouts(&self, callouts: &Callouts) -> Self {
        let each = self.types.iter();
        let each = each.map(|(url, kind)| (url.clone(), kind.with_callouts(callouts).unwrap_or_else(|| kind.clone())));
        Self { types: each.collect(), bodies: self.bodies }
    }

    /// The same types, where filters may read bodies or not.
    #[cfg(feature = "server")]
    pub(crate) fn with_bodies(&self, bodies: bool) -> Self {
        Self { bodies, ..self.clone() }
    }

    /// Makes the chain for one route. `levels` are the overrides of the table, the virtual host and the route.
    ///
    /// # Errors
    ///
    /// A filter is not known, or cannot do what it is asked for.
    pub(crate) fn chain(&self, filters: &[HttpFilter], levels: &[&FilterOverrides]) -> Result<FilterChain<F>, Error> {
        let mut chain = Vec::new();
        for filter in filters {
            // Also for a filter that is off: another route may turn it on, and then it must not be missing.
            let Some(kind) = self.types.get(&filter.type_url) else { return Err(unknown(filter)) };
            let mut on = !filter.disabled;
            let mut overrides = Vec::new();
            for level in levels.iter().filter_map(|level| level.get(&filter.name)) {
                match level {
                    FilterOverride::Config { config, .. } => {
                        on = true;
                        overrides.push(config.clone());
                    }
                    FilterOverride::Disabled => on = false,
                    other => return Err(refused(filter, &format!("the override {other:?} is not known"))),
                }
            }
            if on {
                let built = kind.build(filter, &overrides)?;
                if built.reads_body() && !self.bodies {
                    return Err(refused(
                        filter,
                        "it reads bodies of requests, and here nobody can put them together again",
                    ));
                }
                chain.push(built);
            }
        }
        Ok(chain.into())
    }
}

/// The filters of one route, in order.
pub(crate) type FilterChain<F> = Arc<[Arc<dyn Filter<F>>]>;

/// The configuration of a filter as the type that its decoder makes.
///
/// # Errors
///
/// It is of another type: somebody has registered another decoder under this type URL.
pub(crate) fn config_of<T: Any + Clone>(config: &Arc<dyn FilterConfig>, type_url: &str) -> Result<T, Error> {
    let config: &dyn Any = &**config;
    let wrong = || Error::new(Code::RESOURCE_REFUSED, format!("the decoder of {type_url} makes another configuration"));
    config.downcast_ref::<T>().cloned().ok_or_else(wrong)
}

fn unknown(filter: &HttpFilter) -> Error {
    refused(filter, "this process does not have it")
}

fn refused(filter: &HttpFilter, why: &str) -> Error {
    Error::new(Code::RESOURCE_REFUSED, format!("HTTP filter `{}` of type {}: {why}", filter.name, filter.type_url))
        .with_next_step("take the filter out of the Listener, or use a version that implements it")
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue => f.write_str("Continue"),
            Self::Change(_) => f.write_str("Change"),
            Self::Watch(_) => f.write_str("Watch"),
            Self::Amend { .. } => f.write_str("Amend"),
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Read(bytes) => f.debug_tuple("Read").field(bytes).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

impl<F> Clone for Filters<F> {
    fn clone(&self) -> Self {
        Self { types: self.types.clone(), bodies: self.bodies }
    }
}

impl<F> Default for Filters<F> {
    fn default() -> Self {
        Self { types: BTreeMap::new(), bodies: false }
    }
}

impl<F> fmt::Debug for Filters<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types.keys()).finish()
    }
}
