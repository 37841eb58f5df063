//! Virtual host and route of a request.

use std::sync::Arc;

use http::request;
use mesh_core::error::{Code, Error};
use mesh_core::model::{Domain, PathMatch, Route, RouteTable};

use crate::inbound::normalize::authority_of;

/// The route that takes the request.
pub(super) fn find(table: &RouteTable, request: &request::Parts) -> Result<Arc<Route>, Error> {
    let authority = String::from_utf8_lossy(authority_of(request)).to_ascii_lowercase();
    let host = table
        .virtual_hosts
        .iter()
        .find(|host| host.domains.iter().any(|domain| matches!(domain, Domain::Exact(exact) if *exact == authority)))
        .or_else(|| table.virtual_hosts.iter().find(|host| host.domains.contains(&Domain::Any)))
        .ok_or_else(|| Error::new(Code::NO_VIRTUAL_HOST, format!("no virtual host serves `{authority}`")))?;
    let path = request.uri.path();
    let route = host.routes.iter().find(|route| match &route.matches.path {
        PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
        PathMatch::Exact(exact) => path == exact,
        _ => false,
    });
    route.cloned().ok_or_else(|| Error::new(Code::NO_ROUTE, format!("no route of `{}` matches", host.name)))
}
