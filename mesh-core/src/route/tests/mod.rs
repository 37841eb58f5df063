//! What routing promises, as tables. Verdicts on Envoy's rules are recorded behaviour of Envoy 1.40, not our own output.

mod deciding;
mod hashing;
mod hosts;
mod matching;
mod property;
mod querying;
mod shaping;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::RequestFacts;
use crate::model::{
    Action, ClusterChoice, Domain, FilterOverrides, Forward, HeaderMutations, PathMatch, Route, RouteMatch, RouteTable,
    VirtualHost,
};

/// A request that owns what facts borrow.
struct Request {
    method: Method,
    authority: String,
    path: String,
    headers: HeaderMap,
    is_grpc: bool,
}

impl Request {
    fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            authority: "svc.test".into(),
            path: path.into(),
            headers: HeaderMap::new(),
            is_grpc: false,
        }
    }

    fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    fn grpc(mut self) -> Self {
        self.is_grpc = true;
        self.with("content-type", "application/grpc")
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            scheme: "http",
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
            is_grpc: self.is_grpc,
            tls: None,
            source_ip: None,
            is_internal: false,
            channel_id: 77,
            metadata: None,
        }
    }
}

fn any_path() -> RouteMatch {
    RouteMatch::default()
}

fn at(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..any_path() }
}

fn forward(cluster: ClusterChoice) -> Forward {
    Forward { cluster, ..Forward::to("".into()) }
}

fn route(name: &str, matches: RouteMatch, action: Action) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        matches,
        action,
        headers: HeaderMutations::default(),
        overrides: FilterOverrides::default(),
        metadata: BTreeMap::new(),
        operation: None,
        body_limit: None,
        unsupported: Vec::new(),
    })
}

/// A route to a cluster of its own name.
fn to(name: &str, matches: RouteMatch) -> Arc<Route> {
    route(name, matches, Action::Forward(Box::new(forward(ClusterChoice::Cluster(name.into())))))
}

fn host(name: &str, domains: &[&str], routes: Vec<Arc<Route>>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|domain| domain_of(domain)).collect(),
        routes,
        headers: HeaderMutations::default(),
        retry: None,
        hedge: None,
        overrides: FilterOverrides::default(),
        mirrors: Vec::new(),
        request_attempt_count: false,
        response_attempt_count: false,
        require_tls: Default::default(),
        cors: None,
        limits: Vec::new(),
        unsupported: Vec::new(),
    })
}

fn domain_of(text: &str) -> Domain {
    let text = text.to_ascii_lowercase();
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => Domain::Any,
        (Some(suffix), _) => Domain::Suffix(suffix.into()),
        (_, Some(prefix)) => Domain::Prefix(prefix.into()),
        _ => Domain::Exact(text),
    }
}

fn table(virtual_hosts: Vec<Arc<VirtualHost>>) -> RouteTable {
    RouteTable {
        name: "table".into(),
        virtual_hosts,
        headers: HeaderMutations::default(),
        internal_only_headers: Vec::new(),
        most_specific_mutations_win: false,
        max_direct_response_body: 4096,
        ignore_port_in_host: false,
        vhost_header: None,
        mirrors: Vec::new(),
        overrides: FilterOverrides::default(),
        unsupported: Vec::new(),
    }
}
