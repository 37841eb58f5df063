//! A route table, made ready for requests.

use std::sync::Arc;

use super::host::HostIndex;
use super::paths::PathIndex;
use crate::model::{RouteTable, VirtualHost};

/// A [`RouteTable`] with its indexes. Built on the configuration thread, read by requests.
#[derive(Debug)]
pub struct RouteIndex {
    table: Arc<RouteTable>,
    pub(super) hosts: HostIndex,
    pub(super) paths: Vec<PathIndex>,
}

impl RouteIndex {
    /// Builds the indexes of `table`.
    pub fn new(table: Arc<RouteTable>) -> Self {
        let hosts = HostIndex::new(&table);
        let paths = table.virtual_hosts.iter().map(|host| PathIndex::new(host)).collect();
        Self { table, hosts, paths }
    }

    /// The table it was built from.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The virtual host that serves `authority`: a request's authority, or a fixed target's name.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        self.table.virtual_hosts.get(self.hosts.find(authority)?)
    }
}
