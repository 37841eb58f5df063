//! A route table, made ready for requests.

use std::sync::Arc;

use super::facts::RequestFacts;
use super::host::HostIndex;
use super::paths::PathIndex;
use crate::model::{Action, Route, RouteMatch, RouteTable, TlsRequirement, VirtualHost};

/// A [`RouteTable`] with its indexes. Built on the configuration thread, read by requests.
#[derive(Debug)]
pub struct RouteIndex {
    table: Arc<RouteTable>,
    pub(super) hosts: HostIndex,
    pub(super) paths: Vec<PathIndex>,
    /// Of each virtual host that requires TLS: the route that asks for it.
    tls: Vec<Option<Arc<Route>>>,
}

impl RouteIndex {
    /// Builds the indexes of `table`.
    pub fn new(table: Arc<RouteTable>) -> Self {
        let hosts = HostIndex::new(&table);
        let paths = table.virtual_hosts.iter().map(|host| PathIndex::new(host)).collect();
        let tls = table.virtual_hosts.iter().map(|host| asks_for_tls(host)).collect();
        Self { table, hosts, paths, tls }
    }

    /// The table it was built from.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The routes that no table lists: those which ask for TLS, with their virtual hosts.
    pub fn tls_redirects(&self) -> impl Iterator<Item = (&Arc<VirtualHost>, &Arc<Route>)> {
        self.table.virtual_hosts.iter().zip(&self.tls).filter_map(|(host, route)| Some((host, route.as_ref()?)))
    }

    /// The virtual host of a request: by its authority, or by the header that the table names (`vhost_header`), whose first
    /// value counts. Without that header there is none, unless the table has only one, for everything (Envoy). gRPC goes by
    /// the authority.
    pub(super) fn host_of(&self, authority: &str, facts: &RequestFacts<'_>) -> Option<usize> {
        let Some(header) = self.table.vhost_header.as_ref().filter(|_| !facts.is_grpc) else {
            return self.hosts.find(authority);
        };
        match facts.headers.get(header) {
            Some(value) => self.hosts.find(&String::from_utf8_lossy(value.as_bytes())),
            None => self.hosts.only_one_for_everything(),
        }
    }

    /// The route that has a request asked again in `https`, if its virtual host requires that and it did not come so.
    ///
    /// How it came, `x-forwarded-proto` says, and else the URI: servers of the mesh write that header, or leave it, as their
    /// Listener's `use_remote_address` says.
    pub(super) fn tls_redirect(&self, host: usize, facts: &RequestFacts<'_>) -> Option<&Arc<Route>> {
        let redirect = self.tls.get(host)?.as_ref().filter(|_| !facts.is_grpc)?;
        if facts.is_internal && self.table.virtual_hosts.get(host)?.require_tls == TlsRequirement::ExternalOnly {
            return None;
        }
        let forwarded = facts.headers.get("x-forwarded-proto");
        let came_as = forwarded.map_or(facts.scheme.as_bytes(), |value| value.as_bytes());
        (came_as != b"https").then_some(redirect)
    }

    /// The virtual host that serves `authority`: a request's authority, or a fixed target's name.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        self.table.virtual_hosts.get(self.hosts.find(authority)?)
    }
}

fn asks_for_tls(host: &VirtualHost) -> Option<Arc<Route>> {
    let matches = RouteMatch::default();
    let route = || Route {
        name: "require_tls".into(),
        matches,
        action: Action::RequireTls,
        headers: Default::default(),
        overrides: Default::default(),
        metadata: Default::default(),
        operation: None,
        body_limit: None,
        unsupported: Vec::new(),
    };
    (host.require_tls != TlsRequirement::None).then(|| Arc::new(route()))
}
