//! Puts client configuration in force, on the configuration thread.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use mesh_core::error::Error;
use mesh_core::event::{Event, EventSink};
use mesh_core::load::LoadStore;
use mesh_core::model::{Name, UnsupportedEffect};
use mesh_core::publish::Reader;
use mesh_core::snapshot::{Children, ClusterConfig, Snapshot};
use tokio::time::Sleep;

use super::OutboundFilters;
use super::cluster::{ClusterHandle, Limits, Registry, Signal};
use super::target::{NoConfig, TargetState, Targets};
use super::view::TargetView;
use crate::connect::EndpointFactory;

/// The client half of whoever puts configuration in force.
pub(crate) struct OutboundApply {
    targets: Arc<Targets>,
    registry: Registry,
    filters: OutboundFilters,
    events: Arc<dyn EventSink>,
    /// Who we are to the control plane; None: there is none.
    node: Option<Name>,
    changed: Reader<()>,
    /// When pickers change though nothing else does.
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Views that requests may still hold: they are freed here, not by a request.
    retired: Vec<Arc<TargetState>>,
    told: BTreeSet<String>,
}

impl OutboundApply {
    pub(crate) fn new(
        targets: Arc<Targets>,
        factory: Arc<dyn EndpointFactory>,
        signal: &Arc<Signal>,
        filters: OutboundFilters,
        events: Arc<dyn EventSink>,
        loads: Option<Arc<LoadStore>>,
        limits: Limits,
    ) -> Self {
        let registry = Registry::new(factory, signal.clone(), loads, limits);
        Self {
            targets,
            registry,
            filters,
            events,
            node: None,
            changed: signal.reader(),
            due: None,
            timer: None,
            retired: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    /// What a control plane knows us as, for the text of errors.
    pub(crate) fn of_node(mut self, id: Option<Name>) -> Self {
        self.node = id;
        self
    }

    /// Puts a snapshot in force: first the clusters, then the routes to them (gRFC A31).
    pub(crate) fn client(&mut self, snapshot: Arc<Snapshot>) {
        let Some(slot) = self.targets.get(&snapshot.target) else { return };
        self.tell_left_out(&snapshot);
        let clusters = self.clusters(&snapshot);
        self.due = self.registry.refresh();
        let before = slot.view();
        let version = snapshot.version;
        let state = match TargetView::new(snapshot, clusters, &self.filters, before.as_deref()) {
            Ok(view) => TargetState::Ready(Arc::new(view.of_node(self.node.clone()))),
            Err(error) => TargetState::Missing(NoConfig { error: error.with_config_version(version), absent: false }),
        };
        drop(before);
        self.retired.push(slot.publish(state));
        self.collect();
    }

    /// Whether a client still uses it.
    pub(crate) fn is_used(&self) -> bool {
        Arc::strong_count(&self.targets) > 1
    }

    /// The targets that have no configuration yet.
    pub(crate) fn waiting(&self) -> Vec<Name> {
        self.targets.waiting()
    }

    /// A target has no configuration.
    pub(crate) fn missing(&mut self, target: &Name, why: NoConfig) {
        if let Some(slot) = self.targets.get(target) {
            let why = NoConfig { error: naming(target, why.error), ..why };
            self.retired.push(slot.publish(TargetState::Missing(why)));
            self.collect();
        }
    }

    /// A cluster that only requests in flight use has changed.
    pub(crate) fn cluster(&mut self, config: &Arc<ClusterConfig>) {
        self.registry.update(config);
        self.due = self.registry.refresh();
    }

    /// Builds again what changed because of connections, or with time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        while self.changed.poll_changed(cx).is_ready_ok() {
            self.due = self.registry.refresh();
        }
        while self.is_due(cx) {
            self.due = self.registry.refresh();
        }
        self.registry.poll(cx);
        self.collect();
    }

    /// Whether it is time to refresh; the timer wakes the thread when it is.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.due else {
            self.timer = None;
            return false;
        };
        let due = due.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    fn clusters(&mut self, snapshot: &Snapshot) -> HashMap<Name, Result<Arc<ClusterHandle>, Error>> {
        let mut handles: HashMap<Name, Result<Arc<ClusterHandle>, Error>> = HashMap::new();
        let is_aggregate = |config: &ClusterConfig| matches!(config.children, Children::Leaves(_));
        // Leaves first: an aggregate holds the handles of its own.
        for aggregates in [false, true] {
            for (name, config) in &snapshot.clusters {
                let handle = match config {
                    Err(error) => Err(error.clone()),
                    Ok(config) if is_aggregate(config) == aggregates => {
                        let leaves = leaves(config, &handles);
                        self.registry.reconcile(config, leaves)
                    }
                    Ok(_) => continue,
                };
                handles.insert(name.clone(), handle);
            }
        }
        handles
    }

    /// Says once what a configuration asks for and does not get, where requests go on without it.
    fn tell_left_out(&mut self, snapshot: &Snapshot) {
        let table = &snapshot.routes;
        let hosts = table.virtual_hosts.iter();
        let of_hosts = hosts.flat_map(|host| {
            let routes = host.routes.iter().flat_map(|route| &route.unsupported);
            host.unsupported.iter().chain(routes)
        });
        let of_routes = snapshot.http.unsupported.iter().chain(&table.unsupported).chain(of_hosts);
        let of_clusters = snapshot.clusters.values().flatten().flat_map(|config| &config.cluster.unsupported);
        for unsupported in of_routes.chain(of_clusters) {
            let key = format!("{}\0{}", snapshot.target, unsupported.field);
            if unsupported.effect == UnsupportedEffect::LeftOut && self.told.insert(key) {
                let (resource, field) = (snapshot.target.clone(), unsupported.field.clone());
                self.events.event(&Event::LeftOut { resource, field });
            }
        }
        self.tell_unreported(snapshot);
    }

    /// Says once that nobody is told of a cluster's load: no control plane is behind a file or a source of the application.
    fn tell_unreported(&mut self, snapshot: &Snapshot) {
        if self.registry.reports_load() {
            return;
        }
        for config in snapshot.clusters.values().flatten().filter(|config| config.cluster.load.is_some()) {
            let resource = config.cluster.name.clone();
            if self.told.insert(format!("{resource}\0lrs_server")) {
                self.events.event(&Event::LeftOut { resource, field: "lrs_server".to_owned() });
            }
        }
    }

    /// Frees the views that no request holds any more.
    fn collect(&mut self) {
        self.retired.retain(|state| match &**state {
            TargetState::Ready(view) => Arc::strong_count(view) > 1 || Arc::strong_count(state) > 1,
            _ => false,
        });
    }
}

/// `error` with the target's name in it: what fails for all targets at once does not name any.
fn naming(target: &Name, error: Error) -> Error {
    if error.message().contains(&**target) {
        return error;
    }
    let named = Error::new(error.code(), format!("Listener `{target}`: {}", error.message()));
    named.with_next_step(error.next_step()).with_source(error)
}

/// The handles of an aggregate's leaves; one that is not there is passed over (gRFC A37).
fn leaves(
    config: &ClusterConfig,
    handles: &HashMap<Name, Result<Arc<ClusterHandle>, Error>>,
) -> Vec<Arc<ClusterHandle>> {
    let Children::Leaves(names) = &config.children else { return Vec::new() };
    names.iter().filter_map(|name| handles.get(name)?.as_ref().ok().cloned()).collect()
}

trait IsReadyOk {
    fn is_ready_ok(&self) -> bool;
}

impl<T, E> IsReadyOk for std::task::Poll<Result<T, E>> {
    fn is_ready_ok(&self) -> bool {
        matches!(self, Self::Ready(Ok(_)))
    }
}
