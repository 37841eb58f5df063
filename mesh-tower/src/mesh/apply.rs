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
            #[cfg(feature = "server")]
            Update::ServerFailed { target, error } => self.servers.fail(&target, &error),
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

#[cfg(feature = "server")]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::error::Code;
    use mesh_core::source::MemorySource;
    use mesh_core::source::file::resource_from_json;
    use serde_json::json;

    use crate::Mesh;
    use crate::inbound::ServingState;

    const HCM: &str =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

    /// A Listener is one side's, and the other side may ask for it by mistake.
    #[tokio::test]
    async fn a_client_that_fails_does_not_stop_the_server_of_its_listeners_name() {
        let source = MemorySource::new(Vec::new());
        let mesh = Mesh::builder().source(source.clone()).build().unwrap();
        let bound = mesh.bind("127.0.0.1:0").await.unwrap();
        let router = json!({"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
        let listener = json!({
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": &**bound.slot().target(),
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": bound.local_addr().port()}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                "@type": HCM, "http_filters": [router], "route_config": {"name": "r"}}}]}],
        });
        source.set([resource_from_json(&listener).unwrap()]);
        tokio::time::timeout(Duration::from_secs(10), bound.slot().serving()).await.expect("it serves");
        let client = mesh.client(&format!("xds:///{}", bound.slot().target())).unwrap();
        let error = client.get("http://a/").await.expect_err("the Listener is for servers");
        assert_eq!(error.code(), Code::NOT_A_CLIENT_LISTENER, "{error}");
        assert!(matches!(bound.slot().state(), ServingState::Serving { .. }), "{:?}", bound.slot().state());
    }
}
