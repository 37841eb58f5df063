//! The decision on a request: its route and its cluster, made once and kept for all its attempts.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::explain::Observer;
use super::facts::RequestFacts;
use super::hash::request_hash;
use super::index::RouteIndex;
use super::matcher::parse_number;
use crate::balance::mix;
use crate::model::{Action, ClusterChoice, Forward, Name, Route, VirtualHost, WeightedClusters};
use crate::resource::canonical_name;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The virtual host that serves it.
    pub host: Arc<VirtualHost>,
    /// The route it takes; its action says the rest.
    pub route: Arc<Route>,
    /// Where it goes, if the action is to forward it.
    pub cluster: Option<ChosenCluster>,
}

/// The cluster of a forwarded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenCluster {
    /// Its name.
    pub name: Name,
    /// Which entry of the weighted clusters it is, if they were asked.
    pub weighted: Option<WeightedPick>,
}

/// How one of several weighted clusters was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedPick {
    /// The entry's index in [`WeightedClusters::clusters`].
    pub index: usize,
    /// The number drawn, below `total`.
    pub drawn: u32,
    /// The sum of the weights.
    pub total: u32,
}

/// Why there is no decision.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NoDecision {
    /// No virtual host serves the authority: Envoy's 404, gRPC's UNAVAILABLE.
    NoVirtualHost,
    /// No route of the virtual host matches: Envoy's 404, gRPC's UNAVAILABLE.
    NoRoute {
        /// The virtual host.
        host: Arc<VirtualHost>,
    },
    /// The route takes its cluster's name from a header that is absent, empty or no text: answered with the route's
    /// `cluster_not_found`.
    NoClusterHeader {
        /// The route.
        route: Arc<Route>,
        /// The header.
        header: HeaderName,
    },
}

impl fmt::Display for NoDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVirtualHost => f.write_str("no virtual host serves this authority"),
            Self::NoRoute { host } => write!(f, "no route of virtual host `{}` matches", host.name),
            Self::NoClusterHeader { route, header } => {
                write!(f, "route `{}` takes its cluster from header {header}, which names none", route.name)
            }
        }
    }
}

impl RouteIndex {
    /// Decides on the request `facts`. `authority` chooses the virtual host: the request's own, or a fixed target's.
    ///
    /// `random` is all the chance there is: the same number decides the same.
    pub fn decide(&self, authority: &str, facts: &RequestFacts<'_>, random: u64) -> Result<Decision, NoDecision> {
        self.decide_observed(authority, facts, random, &mut ())
    }

    pub(super) fn decide_observed<O: Observer>(
        &self,
        authority: &str,
        facts: &RequestFacts<'_>,
        random: u64,
        observer: &mut O,
    ) -> Result<Decision, NoDecision> {
        let host_index = self.host_of(authority, facts).ok_or(NoDecision::NoVirtualHost)?;
        let host = &self.table().virtual_hosts[host_index];
        observer.host(host);
        if let Some(route) = self.tls_redirect(host_index, facts) {
            return Ok(Decision { host: host.clone(), route: route.clone(), cluster: None });
        }
        let try_route = |position: usize| {
            let route = &host.routes[position];
            let mismatch = route.matches.mismatch(facts, fraction_draw(facts, random, position));
            observer.tried(position, route, mismatch);
            mismatch.is_none().then_some(route)
        };
        let route = if O::SEES_ALL {
            (0..host.routes.len()).find_map(try_route)
        } else {
            self.paths[host_index].candidates(facts.path_only().as_bytes(), try_route)
        };
        let Some(route) = route else { return Err(NoDecision::NoRoute { host: host.clone() }) };
        let cluster = match &route.action {
            Action::Forward(forward) => Some(choose_cluster(route, forward, facts, random)?),
            _ => None,
        };
        Ok(Decision { host: host.clone(), route: route.clone(), cluster })
    }
}

/// The number that decides a route's fraction. gRPC draws for each route; in Envoy, one number serves the whole request,
/// so that two routes of 50 % each take the same half.
fn fraction_draw(facts: &RequestFacts<'_>, random: u64, position: usize) -> u64 {
    if facts.is_grpc { mix(random ^ mix(position as u64 + 1)) } else { random }
}

fn choose_cluster(
    route: &Arc<Route>,
    forward: &Forward,
    facts: &RequestFacts<'_>,
    random: u64,
) -> Result<ChosenCluster, NoDecision> {
    match &forward.cluster {
        ClusterChoice::Cluster(name) => Ok(ChosenCluster { name: name.clone(), weighted: None }),
        ClusterChoice::Header(header) => Ok(ChosenCluster { name: named_by(header, route, facts)?, weighted: None }),
        ClusterChoice::Weighted(weighted) => {
            let pick = pick_weighted(weighted, forward, facts, random);
            let cluster = &weighted.clusters[pick.index];
            let name = match &cluster.header {
                Some(header) => named_by(header, route, facts)?,
                None => cluster.name.clone(),
            };
            Ok(ChosenCluster { name, weighted: Some(pick) })
        }
    }
}

/// The cluster that a header of the request names.
fn named_by(header: &HeaderName, route: &Arc<Route>, facts: &RequestFacts<'_>) -> Result<Name, NoDecision> {
    match facts.headers.get(header).and_then(|value| value.to_str().ok()) {
        Some(name) if !name.is_empty() => Ok(canonical_name(name)),
        _ => Err(NoDecision::NoClusterHeader { route: route.clone(), header: header.clone() }),
    }
}

fn pick_weighted(
    weighted: &WeightedClusters,
    forward: &Forward,
    facts: &RequestFacts<'_>,
    random: u64,
) -> WeightedPick {
    let number = number_from_header(weighted, facts)
        .or_else(|| weighted.use_hash.then(|| request_hash(&forward.hash, facts).value).flatten())
        .unwrap_or(random);
    // `max`: a table of no weight is refused long before, and must not divide by zero here.
    let drawn = (number % u64::from(weighted.total.max(1))) as u32;
    let mut end = 0_u32;
    let index = weighted.clusters.iter().position(|cluster| {
        end = end.saturating_add(cluster.weight);
        drawn < end
    });
    WeightedPick { index: index.unwrap_or(0), drawn, total: weighted.total }
}

/// The number in `header_name`, if there is exactly one value and it is a number of 64 bits; else the dice decide (Envoy).
fn number_from_header(weighted: &WeightedClusters, facts: &RequestFacts<'_>) -> Option<u64> {
    let mut values = facts.headers.get_all(weighted.random_header.as_ref()?).into_iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    parse_number(only.as_bytes())
}
