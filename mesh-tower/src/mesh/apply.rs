//! Puts configuration in force: hands each update to the clients and servers that it is for. On the configuration thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "server")]
use std::sync::{RwLock, Weak};
use std::task::Context;

#[cfg(feature = "server")]
use mesh_core::error::Error;
use mesh_core::model::Name;
#[cfg(feature = "server")]
use mesh_core::snapshot::ServerSnapshot;
use mesh_core::snapshot::{Apply, Snapshot, Update};

#[cfg(feature = "server")]
use crate::inbound::InboundSlot;
use crate::outbound::{NoConfig, OutboundApply, Watches};

/// The listening addresses of a mesh, by their Listener's name.
#[cfg(feature = "server")]
#[derive(Default)]
pub(crate) struct Servers(RwLock<BTreeMap<Name, Vec<Weak<InboundSlot>>>>);

#[cfg(feature = "server")]
impl Servers {
    /// Has updates of the slot's Listener applied to it.
    pub(crate) fn add(&self, slot: &Arc<InboundSlot>) {
        let mut all = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.values_mut().for_each(|slots| slots.retain(|slot| slot.strong_count() > 0));
        all.retain(|_, slots| !slots.is_empty());
        all.entry(slot.target().clone()).or_default().push(Arc::downgrade(slot));
    }

    fn of(&self, target: &str) -> Vec<Arc<InboundSlot>> {
        let all = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.get(target).map(|slots| slots.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
    }

    fn apply(&self, snapshot: &Arc<ServerSnapshot>) {
        self.of(&snapshot.target).iter().for_each(|slot| slot.apply(snapshot.clone()));
    }

    fn fail(&self, target: &str, error: &Error) {
        self.of(target).iter().for_each(|slot| slot.fail(error.clone()));
    }
}

/// Clients with connections of their own that are to be configured from now on.
pub(crate) type Joining = Arc<Mutex<Vec<OutboundApply>>>;

/// Whoever puts configuration in force.
pub(super) struct MeshApply {
    /// What is in force, for clients that come to a target later than others.
    latest: BTreeMap<Name, Result<Arc<Snapshot>, NoConfig>>,
    pub(super) outbounds: Vec<OutboundApply>,
    pub(super) joining: Joining,
    watches: Arc<Watches>,
    #[cfg(feature = "server")]
    pub(super) servers: Arc<Servers>,
}

impl MeshApply {
    #[cfg(feature = "server")]
    pub(super) fn new(outbound: OutboundApply, joining: Joining, watches: Arc<Watches>, servers: Arc<Servers>) -> Self {
        Self { latest: BTreeMap::new(), outbounds: vec![outbound], joining, watches, servers }
    }

    #[cfg(not(feature = "server"))]
    pub(super) fn new(outbound: OutboundApply, joining: Joining, watches: Arc<Watches>) -> Self {
        Self { latest: BTreeMap::new(), outbounds: vec![outbound], joining, watches }
    }

    fn missing(&mut self, target: Name, why: NoConfig) {
        #[cfg(feature = "server")]
        self.servers.fail(&target, &why.error);
        self.outbounds.iter_mut().for_each(|outbound| outbound.missing(&target, why.clone()));
        self.latest.insert(target, Err(why));
    }

    fn forget_dropped(&mut self) {
        for target in self.watches.take_dropped() {
            self.latest.remove(&target);
        }
    }

    /// Tells clients that came later what the others were told.
    fn catch_up(&mut self) {
        self.outbounds.append(&mut self.joining.lock().unwrap_or_else(PoisonError::into_inner));
        self.outbounds.retain(OutboundApply::is_used);
        for outbound in &mut self.outbounds {
            for target in outbound.waiting() {
                match self.latest.get(&target) {
                    Some(Ok(snapshot)) => outbound.client(snapshot.clone()),
                    Some(Err(why)) => outbound.missing(&target, why.clone()),
                    None => {}
                }
            }
        }
    }
}

impl Apply for MeshApply {
    fn apply(&mut self, update: Update) {
        self.forget_dropped();
        match update {
            Update::Client(snapshot) => {
                self.outbounds.iter_mut().for_each(|outbound| outbound.client(snapshot.clone()));
                self.latest.insert(snapshot.target.clone(), Ok(snapshot));
            }
            #[cfg(feature = "server")]
            Update::Server(snapshot) => self.servers.apply(&snapshot),
            Update::Failed { target, error, absent } => self.missing(target, NoConfig { error, absent }),
            Update::Cluster(config) => self.outbounds.iter_mut().for_each(|outbound| outbound.cluster(&config)),
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        self.forget_dropped();
        self.catch_up();
        self.outbounds.iter_mut().for_each(|outbound| outbound.poll(cx));
    }
}
