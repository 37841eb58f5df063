//! Which resources depend on which (gRFC A74).
//!
//! Roots are client targets and listening addresses. From each root the graph walks Listener, routes, clusters and endpoints;
//! what it meets it subscribes to, what it no longer meets it unsubscribes from (mark and sweep). A configuration is published
//! only when every resource on the walk has a verdict, a value or an error, so that no route ever names a cluster that is not
//! there. Until then the one before stays in force, and all that belongs to it is kept up to date. That no server can be
//! reached is no verdict for who has a configuration in force.
//!
//! There is no I/O and no clock here. The order of use: [`handle_event`](Graph::handle_event) and the commands;
//! then [`poll_wants`](Graph::poll_wants) until it is empty; then [`poll_update`](Graph::poll_update) until it is empty;
//! then sleep until [`poll_timeout`](Graph::poll_timeout), and say so with [`handle_time`](Graph::handle_time).

mod clusters;
mod direct;
mod dynamic;
mod nodes;
mod target;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::Name;
use crate::resource::{ResourceEvent, ResourceKey};
use crate::snapshot::Update;

use clusters::Clusters;
use nodes::Nodes;
use target::{Target, TargetId};

/// How often clusters that only requests in flight still use are looked at: whether any of them still does.
const LEASE_SWEEP: Duration = Duration::from_millis(500);

/// What the graph wants of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// This resource.
    Subscribe(ResourceKey),
    /// Not this one any more.
    Unsubscribe(ResourceKey),
    /// A target uses this resource, which was subscribed to before.
    Claim(ResourceKey, Name),
    /// It uses it no more.
    Release(ResourceKey, Name),
}

/// The dependency graph.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Nodes,
    clusters: Clusters,
    targets: BTreeMap<TargetId, Target>,
    dirty: BTreeSet<TargetId>,
    wants: VecDeque<Want>,
    updates: VecDeque<Update>,
    version: u64,
    sweep: Option<Instant>,
    /// When the clusters that requests named are looked at next.
    look: Option<Instant>,
    /// The last time it was told.
    now: Option<Instant>,
}

impl Graph {
    /// A graph without roots.
    pub fn new() -> Self {
        Self::default()
    }

    /// Configures the client target whose Listener is `name`.
    pub fn add_client(&mut self, name: &Name, now: Instant) {
        self.now = Some(now);
        self.add(TargetId::Client(name.clone()));
    }

    /// Configures it no more.
    pub fn remove_client(&mut self, name: &Name, now: Instant) {
        self.remove(&TargetId::Client(name.clone()), now);
    }

    /// Configures the listening address whose Listener is `name`.
    pub fn add_server(&mut self, name: &Name, now: Instant) {
        self.now = Some(now);
        self.add(TargetId::Server(name.clone()));
    }

    /// Configures it no more.
    pub fn remove_server(&mut self, name: &Name, now: Instant) {
        self.remove(&TargetId::Server(name.clone()), now);
    }

    /// Adds a cluster that a request named itself to the snapshots of `target`, until no request has taken it for 5 minutes (see
    /// [`Lease::touch`](crate::snapshot::Lease::touch)). Names over 1,024 are ignored.
    pub fn add_dynamic_cluster(&mut self, target: &Name, cluster: &Name, now: Instant) {
        self.now = Some(now);
        let id = TargetId::Client(target.clone());
        if let Some(target) = self.targets.get_mut(&id)
            && target.add_dynamic(cluster, now)
        {
            self.dirty.insert(id);
            self.look.get_or_insert(now + dynamic::LOOK);
        }
    }

    /// Whether nothing is left in it: no root, no resource, no cluster.
    pub fn is_idle(&self) -> bool {
        self.targets.is_empty() && self.nodes.is_empty() && self.clusters.is_empty()
    }

    fn add(&mut self, id: TargetId) {
        self.targets.entry(id.clone()).or_default();
        self.dirty.insert(id);
    }

    fn remove(&mut self, id: &TargetId, now: Instant) {
        let Some(target) = self.targets.remove(id) else { return };
        self.dirty.remove(id);
        for key in &target.needs {
            self.nodes.release(key, id);
        }
        self.retire(now);
    }

    /// Takes what the source says.
    pub fn handle_event(&mut self, event: ResourceEvent, now: Instant) {
        self.now = Some(now);
        let key = event.key().clone();
        if !self.nodes.take(event) {
            return;
        }
        self.dirty.extend(self.nodes.users(&key).cloned());
        if self.clusters.has_left() {
            self.refresh_left(&key);
            self.sweep.get_or_insert(now + LEASE_SWEEP);
        }
    }

    /// The next thing to tell the source.
    pub fn poll_wants(&mut self) -> Option<Want> {
        self.settle();
        self.wants.pop_front()
    }

    /// The next configuration to put in force.
    pub fn poll_update(&mut self) -> Option<Update> {
        self.settle();
        self.updates.pop_front()
    }

    /// When [`handle_time`](Self::handle_time) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep.into_iter().chain(self.look).min()
    }

    /// Time has come to `now`.
    pub fn handle_time(&mut self, now: Instant) {
        self.now = Some(now);
        if self.look.is_some_and(|at| at <= now) {
            self.let_go_of_dynamic(now);
        }
        if self.sweep.is_some_and(|at| at <= now) {
            self.clusters.drop_unleased();
            self.sweep = self.clusters.has_left().then(|| now + LEASE_SWEEP);
            self.unsubscribe();
        }
    }

    /// Lets go of clusters that requests named and take no more.
    fn let_go_of_dynamic(&mut self, now: Instant) {
        let named: BTreeSet<Name> = self.targets.values().flat_map(Target::dynamic_names).cloned().collect();
        // Asked once for all targets, as it is forgotten with that.
        let taken = named.into_iter().filter(|name| self.clusters.was_taken(name)).collect();
        for (id, target) in &mut self.targets {
            if target.let_go_of_dynamic(&taken, now) {
                self.dirty.insert(id.clone());
            }
        }
        let is_left = self.targets.values().any(|target| target.dynamic_names().next().is_some());
        self.look = is_left.then(|| now + dynamic::LOOK);
    }

    /// Walks every target that something changed for.
    fn settle(&mut self) {
        while let Some(id) = self.dirty.pop_first() {
            self.walk(&id);
        }
        self.subscribe();
    }

    fn walk(&mut self, id: &TargetId) {
        let Some(mut target) = self.targets.remove(id) else { return };
        let walked = target.walk(id, &self.nodes, &mut self.clusters, self.version + 1);
        for key in walked.needs.difference(&target.needs) {
            self.nodes.claim(key, id);
        }
        for key in target.needs.difference(&walked.needs) {
            self.nodes.release(key, id);
        }
        target.needs = walked.needs;
        if let Some(update) = walked.update {
            self.version += u64::from(!matches!(update, Update::Failed { .. } | Update::ServerFailed { .. }));
            // Of one target only the newest configuration is worth putting in force.
            self.updates.retain(|waiting| !target::is_for(waiting, id));
            self.updates.push_back(update);
        }
        self.targets.insert(id.clone(), target);
    }

    fn subscribe(&mut self) {
        self.wants.extend(self.nodes.take_new().into_iter().map(Want::Subscribe));
        self.wants.extend(self.nodes.take_uses());
        let used = self.clusters_in_use();
        self.clusters.retain_used(&used);
        if self.clusters.has_left() && self.sweep.is_none() {
            self.sweep = self.now.map(|now| now + LEASE_SWEEP);
        }
        self.unsubscribe();
    }

    fn clusters_in_use(&self) -> BTreeSet<Name> {
        self.targets.values().flat_map(|target| target.clusters.iter().cloned()).collect()
    }

    fn unsubscribe(&mut self) {
        let leased = self.clusters.left_keys();
        self.wants.extend(self.nodes.take_unused(&leased).into_iter().map(Want::Unsubscribe));
    }

    fn retire(&mut self, now: Instant) {
        let used = self.clusters_in_use();
        self.clusters.retain_used(&used);
        if self.clusters.has_left() {
            self.sweep.get_or_insert(now + LEASE_SWEEP);
        }
        self.unsubscribe();
    }

    /// A cluster that only requests in flight use has changed.
    fn refresh_left(&mut self, key: &ResourceKey) {
        for config in self.clusters.refresh_left(key, &self.nodes) {
            self.updates.push_back(Update::Cluster(config));
        }
    }
}
