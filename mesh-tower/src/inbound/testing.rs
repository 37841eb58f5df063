//! What the tests of the server share: configurations by hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::error::Error;
use mesh_core::model::listener::EscapedSlashes;
use mesh_core::model::{
    Action, ChainMatch, Domain, DownstreamTls, FilterChain, ForwardClientCert, HeadRules, HeaderMutations,
    HttpConnection, HttpFilter, Inspection, Listener, ListenerKind, PathMatch, Route, RouteMatch, RouteSource,
    RouteTable, ServerListener, VirtualHost,
};
use mesh_core::snapshot::ServerSnapshot;

/// The settings of a connection manager that says nothing.
pub(crate) fn http_connection() -> HttpConnection {
    HttpConnection {
        routes: RouteSource::Rds("routes".into()),
        filters: Vec::new(),
        max_stream_duration: None,
        normalize_path: false,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
        strip_any_host_port: false,
        strip_matching_host_port: false,
        strip_trailing_host_dot: false,
        origin: Default::default(),
        underscores: Default::default(),
        head: Default::default(),
        upgrades: Vec::new(),
        client_cert: Default::default(),
        unsupported: Vec::new(),
    }
}

/// A route for everything that begins so.
pub(crate) fn route(prefix: &str, action: Action) -> Arc<Route> {
    Arc::new(Route {
        name: prefix.into(),
        matches: RouteMatch { path: PathMatch::Prefix(prefix.into()), ..RouteMatch::default() },
        action,
        headers: HeaderMutations::default(),
        overrides: BTreeMap::new(),
        metadata: BTreeMap::new(),
        operation: None,
        body_limit: None,
        unsupported: Vec::new(),
    })
}

/// A table of one virtual host.
pub(crate) fn table(domain: Domain, routes: Vec<Arc<Route>>) -> Arc<RouteTable> {
    let host = VirtualHost {
        name: "host".into(),
        domains: vec![domain],
        routes,
        headers: HeaderMutations::default(),
        retry: None,
        hedge: None,
        overrides: BTreeMap::new(),
        mirrors: Vec::new(),
        request_attempt_count: false,
        response_attempt_count: false,
        cors: None,
        require_tls: Default::default(),
        limits: Vec::new(),
        unsupported: Vec::new(),
    };
    Arc::new(RouteTable {
        name: "routes".into(),
        virtual_hosts: vec![Arc::new(host)],
        headers: HeaderMutations::default(),
        internal_only_headers: Vec::new(),
        most_specific_mutations_win: false,
        max_direct_response_body: 4096,
        ignore_port_in_host: false,
        vhost_header: None,
        mirrors: Vec::new(),
        overrides: BTreeMap::new(),
        unsupported: Vec::new(),
    })
}

/// A table that hands everything to the application.
pub(crate) fn everything() -> Arc<RouteTable> {
    table(Domain::Any, vec![route("/", Action::NonForwarding)])
}

/// The configuration of a server, to be changed by a test before it is built.
pub(crate) struct Config {
    pub(crate) address: SocketAddr,
    pub(crate) filters: Vec<HttpFilter>,
    pub(crate) tls: Option<Arc<DownstreamTls>>,
    pub(crate) matches: ChainMatch,
    /// Chains beside the one that the other fields describe, for the same requests.
    pub(crate) more: Vec<(ChainMatch, Option<Arc<DownstreamTls>>)>,
    pub(crate) inspection: Option<Inspection>,
    pub(crate) client_cert: ForwardClientCert,
    pub(crate) upgrades: Vec<Box<str>>,
    pub(crate) head: HeadRules,
    pub(crate) routes: Result<Arc<RouteTable>, Error>,
}

impl Config {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            filters: Vec::new(),
            tls: None,
            matches: ChainMatch::default(),
            more: Vec::new(),
            inspection: None,
            client_cert: ForwardClientCert::default(),
            upgrades: Vec::new(),
            head: HeadRules::default(),
            routes: Ok(everything()),
        }
    }

    pub(crate) fn build(self, version: u64) -> Arc<ServerSnapshot> {
        let base = http_connection();
        let Self { filters, client_cert, upgrades, head, matches, tls, more, address, inspection, .. } = self;
        let http = Arc::new(HttpConnection { filters, client_cert, upgrades, head, ..base });
        let chain = |(matches, tls)| {
            Arc::new(FilterChain { name: "chain".into(), matches, tls, http: http.clone(), encoded: None })
        };
        let chains = std::iter::once((matches, tls)).chain(more).map(chain);
        let server = Arc::new(ServerListener { address, chains: chains.collect(), default_chain: None, inspection });
        let listener =
            Listener { name: "listener".into(), kind: ListenerKind::Server(server.clone()), buffer_limit: None };
        Arc::new(ServerSnapshot {
            version,
            target: "listener".into(),
            listener: Arc::new(listener),
            server,
            routes: BTreeMap::from([("routes".into(), self.routes)]),
        })
    }
}

/// The next configuration of the same Listener, with other routes.
pub(crate) fn with_routes(before: &ServerSnapshot, routes: Result<Arc<RouteTable>, Error>) -> Arc<ServerSnapshot> {
    Arc::new(ServerSnapshot {
        version: before.version + 1,
        routes: BTreeMap::from([("routes".into(), routes)]),
        ..before.clone()
    })
}
