//! Which route takes a request, and which filters it therefore meets.

mod matching;

use std::collections::HashMap;
use std::sync::Arc;

use http::request;
use mesh_core::error::{Code, Error};
use mesh_core::model::{Action, HttpConnection, Route, RouteTable, Unsupported, UnsupportedEffect};

use super::filter::{FilterChain, InboundFilters};

/// The routes of one filter chain, with the filters of each.
pub(crate) struct Routes {
    version: u64,
    http: Arc<HttpConnection>,
    /// An error fails every request, and only them (gRFC A36).
    table: Result<Arc<RouteTable>, Error>,
    /// The filters of routes that nothing overrides.
    plain: FilterChain,
    /// The filters of the other routes, by the route's address: the table holds the routes, so addresses are unique.
    special: HashMap<usize, FilterChain>,
}

/// What takes a request.
pub(crate) struct Found {
    pub(crate) route: Arc<Route>,
    pub(crate) filters: FilterChain,
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
        let plain = filters.chain(&http.filters, &[])?;
        let mut special = HashMap::new();
        if let Ok(table) = &table {
            for host in &table.virtual_hosts {
                for route in &host.routes {
                    let levels = [&table.overrides, &host.overrides, &route.overrides];
                    if levels.iter().any(|level| !level.is_empty()) {
                        special.insert(key(route), filters.chain(&http.filters, &levels)?);
                    }
                }
            }
        }
        let table = table.and_then(|table| refuse_unsupported(&http.unsupported).map(|()| table));
        Ok(Self { version, http: http.clone(), table, plain, special })
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
    pub(crate) fn find(&self, request: &request::Parts) -> Result<Found, Error> {
        self.look_up(request).map_err(|error| error.with_config_version(self.version))
    }

    fn look_up(&self, request: &request::Parts) -> Result<Found, Error> {
        let table = self.table.as_ref().map_err(Clone::clone)?;
        let route = matching::find(table, request)?;
        if !matches!(route.action, Action::NonForwarding) {
            return Err(Error::new(
                Code::UNSUPPORTED_ROUTE,
                format!("route `{}` of `{}` does not lead to the application", route.name, table.name),
            )
            .with_next_step("give the route a non_forwarding_action"));
        }
        refuse_unsupported(&route.unsupported)?;
        let filters = self.special.get(&key(&route)).unwrap_or(&self.plain).clone();
        Ok(Found { route, filters })
    }
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
