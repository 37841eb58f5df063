//! Which targets the configuration thread follows, where several clients of one mesh may want the same one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mesh_core::config::ConfigHandle;
use mesh_core::model::Name;

use super::cluster::Signal;

/// Counts who wants each target.
pub(crate) struct Watches {
    counts: Mutex<BTreeMap<Name, usize>>,
    /// Targets that nobody wants any more, for whoever remembers their configuration.
    dropped: Mutex<Vec<Name>>,
    config: OnceLock<ConfigHandle>,
    signal: Arc<Signal>,
}

impl Watches {
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self { counts: Mutex::default(), dropped: Mutex::default(), config: OnceLock::new(), signal }
    }

    /// Gives it the configuration thread, which is started with what needs this.
    pub(crate) fn start(&self, config: ConfigHandle) {
        // Set once, by whoever builds the mesh.
        let _ = self.config.set(config);
    }

    pub(super) fn watch(&self, target: &Name) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(target.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            // What is known already is not said again: whoever applies it must look.
            self.signal.raise();
        } else if let Some(config) = self.config.get() {
            config.watch_client(target.clone());
        }
    }

    pub(super) fn unwatch(&self, target: &Name) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(target) else { return };
        *count -= 1;
        if *count == 0 {
            counts.remove(target);
            // Before the thread can hear of it, so that a target that comes back is not taken for the old one.
            self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(target.clone());
            if let Some(config) = self.config.get() {
                config.unwatch_client(target.clone());
            }
        }
    }

    /// The targets that were dropped since this was asked last.
    pub(crate) fn take_dropped(&self) -> Vec<Name> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn want_cluster(&self, target: &Name, cluster: &Name) {
        if let Some(config) = self.config.get() {
            config.want_cluster(target.clone(), cluster.clone());
        }
    }
}
