//! A target that is one cluster: for questions of the mesh's own, which no Listener routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::target::ClientParts;
use crate::model::listener::EscapedSlashes;
use crate::model::{
    Action, Domain, Forward, HeaderMutations, HttpConnection, Listener, ListenerKind, Name, Route, RouteMatch,
    RouteSource, RouteTable, TlsRequirement, VirtualHost,
};

/// What a Listener would say that sends everything to `cluster`, as it is.
pub(super) fn everything_to(cluster: &str, target: &Name) -> ClientParts {
    let route = Route {
        name: target.clone(),
        matches: RouteMatch::default(),
        action: Action::Forward(Box::new(Forward::to(cluster.into()))),
        headers: HeaderMutations::default(),
        overrides: BTreeMap::new(),
        metadata: BTreeMap::new(),
        operation: None,
        body_limit: None,
        unsupported: Vec::new(),
    };
    let host = VirtualHost {
        name: target.clone(),
        domains: vec![Domain::Any],
        routes: vec![Arc::new(route)],
        headers: HeaderMutations::default(),
        retry: None,
        hedge: None,
        overrides: BTreeMap::new(),
        mirrors: Vec::new(),
        request_attempt_count: false,
        response_attempt_count: false,
        cors: None,
        require_tls: TlsRequirement::None,
        limits: Vec::new(),
        unsupported: Vec::new(),
    };
    let table = Arc::new(RouteTable {
        name: target.clone(),
        virtual_hosts: vec![Arc::new(host)],
        headers: HeaderMutations::default(),
        internal_only_headers: Vec::new(),
        most_specific_mutations_win: false,
        max_direct_response_body: 0,
        ignore_port_in_host: false,
        vhost_header: None,
        mirrors: Vec::new(),
        overrides: BTreeMap::new(),
        unsupported: Vec::new(),
    });
    let http = Arc::new(HttpConnection {
        routes: RouteSource::Inline(table.clone()),
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
        client_cert: Default::default(),
        head: Default::default(),
        upgrades: Default::default(),
        unsupported: Vec::new(),
    });
    let listener = Listener { name: target.clone(), kind: ListenerKind::Client(http.clone()), buffer_limit: None };
    ClientParts { listener: Arc::new(listener), http, routes: table, note: None }
}
