//! Which route takes a request, and which filters it therefore meets.

mod redirect;

use std::collections::HashMap;
use std::sync::Arc;

use http::request;
use http::uri::PathAndQuery;
use mesh_core::error::{Code, Error};
use mesh_core::model::{
    Action, FilterOverrides, HttpConnection, Route, RouteTable, Unsupported, UnsupportedEffect, VirtualHost,
};
use mesh_core::route::facts::{TlsFacts, is_grpc};
use mesh_core::route::{Decision, NoDecision, RequestFacts, RouteIndex};

use super::authorize::{is_allowing, nobody};
use super::identify::PeerInfo;
use super::normalize::{authority_of, method_of};
use super::{InboundFilters, RequestFacts as FilterFacts};
use crate::filter::{DynamicMetadata, Filter, FilterChain};
use crate::outbound::InternalCaller;

/// The routes of one filter chain, with the filters of each.
pub(crate) struct Routes {
    version: u64,
    http: Arc<HttpConnection>,
    /// An error fails every request, and only them (gRFC A36).
    table: Result<RouteIndex, Error>,
    /// The filters of routes that nothing overrides.
    plain: Listed,
    /// The filters of the other routes, by the route's address: the table holds the routes, so addresses are unique.
    special: HashMap<usize, Listed>,
    /// The filters of requests that should have come over TLS.
    to_https: FilterChain<FilterFacts>,
    /// What takes the place of filters that say nothing of who may come in, where that means nobody.
    nobody: FilterChain<FilterFacts>,
}

/// The filters of a route.
struct Listed {
    filters: FilterChain<FilterFacts>,
    /// Whether they let in only whom a policy allows.
    allowing: bool,
}

/// What takes a request.
pub(crate) struct Found {
    pub(crate) route: Arc<Route>,
    pub(crate) host: Arc<VirtualHost>,
    pub(crate) filters: FilterChain<FilterFacts>,
}

impl Routes {
    /// Compiles `table` for the filters of `http`.
    ///
    /// # Errors
    ///
    /// A filter cannot be applied here: the Listener must be refused.
    pub(crate) fn new(
        http: &Arc<HttpConnection>,
        table: Result<Arc<RouteTable>, Error>,
        filters: &InboundFilters,
        version: u64,
    ) -> Result<Self, Error> {
        let listed = |levels: &[&FilterOverrides]| {
            let allowing = is_allowing(&http.filters, levels);
            filters.chain(&http.filters, levels).map(|filters| Listed { filters, allowing })
        };
        let plain = listed(&[])?;
        let mut special = HashMap::new();
        if let Ok(table) = &table {
            for host in &table.virtual_hosts {
                for route in &host.routes {
                    let levels = [&table.overrides, &host.overrides, &route.overrides];
                    if levels.iter().any(|level| !level.is_empty()) {
                        special.insert(key(route), listed(&levels)?);
                    }
                }
            }
        }
        let table = table.and_then(|table| refuse_unsupported(&http.unsupported).map(|()| RouteIndex::new(table)));
        let redirect: Arc<dyn Filter<FilterFacts>> = Arc::new(redirect::ToHttps);
        let to_https = plain.filters.iter().cloned().chain([redirect]).collect();
        Ok(Self { version, http: http.clone(), table, plain, special, to_https, nobody: nobody() })
    }

    /// The number of the configuration.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The settings of the connection manager.
    pub(crate) fn http(&self) -> &HttpConnection {
        &self.http
    }

    /// Why every request fails, if it does.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.table.as_ref().err()
    }

    /// The route of a normalised request.
    ///
    /// # Errors
    ///
    /// There is no table, no virtual host or no route, or the route does not lead to the application.
    pub(crate) fn find(&self, request: &request::Parts, peer: &PeerInfo, random: u64) -> Result<Found, Error> {
        self.look_up(request, peer, random).map_err(|error| error.with_config_version(self.version))
    }

    fn look_up(&self, request: &request::Parts, peer: &PeerInfo, random: u64) -> Result<Found, Error> {
        let table = self.table.as_ref().map_err(Clone::clone)?;
        let facts = facts_of(request, peer);
        let Decision { route, host, .. } =
            table.decide(facts.authority, &facts, random).map_err(|why| no_route(table, &why))?;
        for unsupported in [&table.table().unsupported, &host.unsupported, &route.unsupported] {
            refuse_unsupported(unsupported)?;
        }
        if matches!(route.action, Action::RequireTls) {
            let filters = self.unless_unsaid(peer, self.plain.allowing, &self.to_https);
            return Ok(Found { route, host, filters });
        }
        if !matches!(route.action, Action::NonForwarding) {
            return Err(Error::new(
                Code::UNSUPPORTED_ROUTE,
                format!("route `{}` of `{}` does not lead to the application", route.name, table.table().name),
            )
            .with_next_step("give the route a non_forwarding_action"));
        }
        let listed = self.special.get(&key(&route)).unwrap_or(&self.plain);
        let filters = self.unless_unsaid(peer, listed.allowing, &listed.filters);
        Ok(Found { route, host, filters })
    }

    /// `filters`, or none but one that lets nobody in where that is what silence means.
    fn unless_unsaid(
        &self,
        peer: &PeerInfo,
        allowing: bool,
        filters: &FilterChain<FilterFacts>,
    ) -> FilterChain<FilterFacts> {
        let denied = !allowing && peer.connection().slot.options().default_deny;
        if denied { self.nobody.clone() } else { filters.clone() }
    }
}

/// What routing and filters may ask of a normalised request.
pub(super) fn facts_of<'a>(request: &'a request::Parts, peer: &PeerInfo) -> RequestFacts<'a> {
    RequestFacts {
        method: method_of(request),
        scheme: if peer.is_tls() { "https" } else { "http" },
        // What is normalised is ASCII.
        authority: std::str::from_utf8(authority_of(request)).unwrap_or_default(),
        path: request.uri.path_and_query().map_or("", PathAndQuery::as_str),
        headers: &request.headers,
        is_grpc: is_grpc(&request.headers),
        tls: peer.is_tls().then(|| tls_facts(peer)),
        source_ip: Some(peer.remote_addr().ip()),
        is_internal: request.extensions.get::<InternalCaller>().is_some(),
        channel_id: 0,
        metadata: request.extensions.get::<DynamicMetadata>().map(|found| &found.0),
    }
}

/// A certificate that is presented and not valid ends the handshake: whoever is here with one was validated.
fn tls_facts(peer: &PeerInfo) -> TlsFacts {
    let presented = peer.identity().is_some();
    TlsFacts { presented, validated: presented }
}

fn no_route(table: &RouteIndex, why: &NoDecision) -> Error {
    let code = match why {
        NoDecision::NoVirtualHost => Code::NO_VIRTUAL_HOST,
        NoDecision::NoRoute { .. } => Code::NO_ROUTE,
        // Only a route that forwards can end so, and those do not lead to the application.
        _ => Code::UNSUPPORTED_ROUTE,
    };
    Error::new(code, format!("{why} (route table `{}`)", table.table().name))
}

fn key(route: &Arc<Route>) -> usize {
    Arc::as_ptr(route) as usize
}

/// What would change the response and is not implemented fails the request.
fn refuse_unsupported(fields: &[Unsupported]) -> Result<(), Error> {
    match fields.iter().find(|field| field.effect == UnsupportedEffect::FailsRequests) {
        Some(field) => Err(Error::new(Code::UNSUPPORTED_ROUTE, format!("{} is not supported", field.field))),
        None => Ok(()),
    }
}
