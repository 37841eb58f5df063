//! What a server refuses to put in force: better no service than one under rules that are not applied.

use std::net::SocketAddr;

use mesh_core::error::{Code, Error};
use mesh_core::model::{
    Action, Domain, FilterChain, PathMatch, Route, RouteSource, RouteTable, TlsRequirement, VirtualHost,
};
use mesh_core::snapshot::ServerSnapshot;

/// Whether `snapshot` can be put in force on a server that is bound to `bound`.
pub(crate) fn check(
    snapshot: &ServerSnapshot,
    bound: SocketAddr,
    transport_only: bool,
    default_deny: bool,
) -> Result<(), Error> {
    check_address(snapshot, bound)?;
    if transport_only {
        if default_deny {
            let text = format!("Listener `{}`: default_deny is set, and the server is transport-only", snapshot.target);
            return Err(Error::new(Code::HALF_SERVER, text).with_next_step("use split() and install the inbound layer"));
        }
        let chains = &snapshot.server.chains;
        chains
            .iter()
            .chain(&snapshot.server.default_chain)
            .try_for_each(|chain| check_transport_only(snapshot, chain))?;
    }
    Ok(())
}

/// gRFC A36: the Listener's address must be the one that the server is bound to. As in grpc-go, port 0 is any.
fn check_address(snapshot: &ServerSnapshot, bound: SocketAddr) -> Result<(), Error> {
    let said = snapshot.server.address;
    let same_port = said.port() == 0 || said.port() == bound.port();
    if same_port && said.ip().to_canonical() == bound.ip().to_canonical() {
        return Ok(());
    }
    Err(Error::new(
        Code::NOT_SERVING,
        format!("Listener `{}` is for {said}, and the server is on {bound}", snapshot.target),
    )
    .with_next_step("give the Listener the server's address, or bind the server to the Listener's"))
}

/// Without the inbound layer nobody looks at requests, so the Listener must not ask for that.
fn check_transport_only(snapshot: &ServerSnapshot, chain: &FilterChain) -> Result<(), Error> {
    let refuse = |what: &str| {
        let text = format!(
            "Listener `{}`, filter chain `{}`: {what}, and the server is transport-only",
            snapshot.target, chain.name
        );
        Err(Error::new(Code::HALF_SERVER, text).with_next_step("use split() and install the inbound layer"))
    };
    if !chain.http.filters.is_empty() {
        return refuse("it has HTTP filters");
    }
    let table = match &chain.http.routes {
        RouteSource::Inline(table) => Some(table),
        RouteSource::Rds(name) => snapshot.routes.get(name).and_then(|routes| routes.as_ref().ok()),
    };
    match table {
        Some(table) if takes_everything(table) => Ok(()),
        Some(_) => refuse("its routes do not take every request"),
        None => refuse("its routes are not known"),
    }
}

/// Whether every request reaches the application as it came.
fn takes_everything(table: &RouteTable) -> bool {
    table.unsupported.is_empty()
        && table.headers.is_empty()
        && table.vhost_header.is_none()
        && table.virtual_hosts.iter().any(|host| host.domains.contains(&Domain::Any))
        && table.virtual_hosts.iter().all(|host| host_takes_everything(host))
}

fn host_takes_everything(host: &VirtualHost) -> bool {
    host.unsupported.is_empty()
        && host.require_tls == TlsRequirement::None
        && host.headers.is_empty()
        && host.routes.iter().all(|route| leaves_alone(route))
        && host.routes.iter().any(|route| matches_everything(route))
}

fn leaves_alone(route: &Route) -> bool {
    matches!(route.action, Action::NonForwarding) && route.headers.is_empty() && route.unsupported.is_empty()
}

fn matches_everything(route: &Route) -> bool {
    let matches = &route.matches;
    matches!(&matches.path, PathMatch::Prefix(prefix) if prefix.is_empty() || prefix == "/")
        && matches.headers.is_empty()
        && matches.query.is_empty()
        && matches.fraction.is_none()
        && !matches.grpc_only
        && matches.tls_presented.is_none()
        && matches.tls_validated.is_none()
        && matches.metadata.is_empty()
        && matches.cookies.is_empty()
        && !matches.never
}
