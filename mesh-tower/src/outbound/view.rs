//! A target's snapshot, made ready for requests: routes indexed, clusters with their handles, filters built.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::Guard;
use mesh_core::balance::Candidate;
use mesh_core::error::{Code, Error};
use mesh_core::model::{HttpConnection, Name, Route, RouteTable};
use mesh_core::route::RouteIndex;
use mesh_core::snapshot::Snapshot;

use super::cluster::{ClusterHandle, LaneView};
use super::{OutboundFacts, OutboundFilters};
use crate::filter::FilterChain;

/// What requests of one target see: immutable.
pub(crate) struct TargetView {
    pub(crate) snapshot: Arc<Snapshot>,
    index: Arc<RouteIndex>,
    clusters: HashMap<Name, Result<Arc<ClusterHandle>, Error>>,
    filters: Arc<RouteFilters>,
    node: Option<Name>,
}

/// The filters of each route.
struct RouteFilters {
    /// Those of routes that nothing overrides.
    plain: FilterChain<OutboundFacts>,
    /// Those of the other routes and of their weighted clusters, by address: the table holds them, so addresses are unique.
    special: HashMap<usize, FilterChain<OutboundFacts>>,
}

impl TargetView {
    /// Makes `snapshot` ready; what did not change since `before` is taken from there.
    ///
    /// # Errors
    ///
    /// A filter cannot be applied here, or the Listener asks for something that is not supported.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        clusters: HashMap<Name, Result<Arc<ClusterHandle>, Error>>,
        filters: &OutboundFilters,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let same = |before: &&Self| Arc::ptr_eq(before.index.table(), &snapshot.routes);
        let index = before
            .filter(same)
            .map_or_else(|| Arc::new(RouteIndex::new(snapshot.routes.clone())), |before| before.index.clone());
        let same_filters = |before: &&Self| same(before) && Arc::ptr_eq(&before.snapshot.http, &snapshot.http);
        let filters = match before.filter(same_filters) {
            Some(before) => before.filters.clone(),
            None => Arc::new(RouteFilters::new(&snapshot.http, &index, filters)?),
        };
        Ok(Self { snapshot, index, clusters, filters, node: None })
    }

    /// As a control plane knows us.
    pub(crate) fn of_node(mut self, id: Option<Name>) -> Self {
        self.node = id;
        self
    }

    pub(crate) fn index(&self) -> &RouteIndex {
        &self.index
    }

    pub(crate) fn table(&self) -> &RouteTable {
        self.index.table()
    }

    pub(crate) fn http(&self) -> &HttpConnection {
        &self.snapshot.http
    }

    pub(crate) fn version(&self) -> u64 {
        self.snapshot.version
    }

    /// What is wrong with its Listener or routes, which are used all the same.
    pub(crate) fn note(&self) -> Option<&Error> {
        self.snapshot.note.as_ref()
    }

    /// The node id, if there is a control plane.
    pub(crate) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The handle of a cluster; None: no route names it.
    pub(crate) fn cluster(&self, name: &str) -> Option<Result<Arc<ClusterHandle>, Error>> {
        self.clusters.get(name).cloned()
    }

    /// The endpoints of all its clusters, by whatever protocol they are reached, with the cluster's name.
    pub(crate) fn candidates(&self) -> Vec<(Name, Arc<Candidate>)> {
        let clusters = self.clusters.values().flatten().map(|handle| handle.state());
        let lanes = clusters.flat_map(|state| state.lanes().iter().map(|lane| (state.name(), lane.load())));
        let named = |(name, view): (&Name, Guard<Arc<LaneView>>)| {
            view.candidates.iter().map(|candidate| (name.clone(), candidate.clone())).collect::<Vec<_>>()
        };
        lanes.flat_map(named).collect()
    }

    /// The filters of a request that takes `route` and the weighted cluster at `weighted`.
    pub(crate) fn filters(&self, route: &Arc<Route>, weighted: Option<usize>) -> FilterChain<OutboundFacts> {
        let RouteFilters { plain, special } = &*self.filters;
        if special.is_empty() {
            return plain.clone();
        }
        let key = key(route);
        let of_cluster = weighted.and_then(|index| special.get(&(key + 1 + index)));
        of_cluster.or_else(|| special.get(&key)).unwrap_or(plain).clone()
    }
}

impl RouteFilters {
    fn new(http: &HttpConnection, index: &RouteIndex, filters: &OutboundFilters) -> Result<Self, Error> {
        let table = index.table();
        let plain = filters.chain(&http.filters, &[])?;
        let mut special = HashMap::new();
        for (host, redirect) in index.tls_redirects() {
            let levels = [&table.overrides, &host.overrides];
            if levels.iter().any(|level| !level.is_empty()) {
                special.insert(key(redirect), filters.chain(&http.filters, &levels)?);
            }
        }
        for host in &table.virtual_hosts {
            for route in &host.routes {
                let levels = [&table.overrides, &host.overrides, &route.overrides];
                if levels.iter().any(|level| !level.is_empty()) {
                    special.insert(key(route), filters.chain(&http.filters, &levels)?);
                }
                for (index, cluster) in super::weighted_of(route).iter().enumerate() {
                    if !cluster.overrides.is_empty() {
                        let levels = [levels[0], levels[1], levels[2], &cluster.overrides];
                        special.insert(key(route) + 1 + index, filters.chain(&http.filters, &levels)?);
                    }
                }
            }
        }
        Ok(Self { plain, special })
    }
}

/// A route's address, shifted so that the entries of its weighted clusters fit behind it.
fn key(route: &Arc<Route>) -> usize {
    (Arc::as_ptr(route) as usize).wrapping_shl(16)
}

/// A target without its configuration.
pub(crate) fn waiting(target: &Name) -> Error {
    Error::new(Code::RESOURCE_TIMEOUT, format!("the configuration of `{target}` has not come yet"))
}
