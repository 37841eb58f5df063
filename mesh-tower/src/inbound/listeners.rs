//! Every listening address of one mesh.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use mesh_core::error::Error;
use mesh_core::model::Name;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::options::InboundOptions;
use super::slot::{InboundSlot, Owner};
use super::split::{Bound, listen};
use crate::connect::TcpKeepalive;

/// The listening addresses of one mesh, so that they can be shut down together.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    slots: Mutex<Vec<Weak<InboundSlot>>>,
}

impl Listeners {
    /// Listens on `address`. `name_of` makes the Listener resource's name of the address that was bound; `owner` lives as
    /// long as the server does.
    ///
    /// The slot must then be made known to the configuration thread; until it gets a configuration it is not serving.
    pub(crate) async fn bind(
        &self,
        address: SocketAddr,
        options: InboundOptions,
        owner: Owner,
        name_of: impl FnOnce(SocketAddr) -> Result<Name, Error>,
    ) -> Result<Bound, Error> {
        let (listener, address) = listen(address).await?;
        // A connection that nobody is at the other end of costs what a flood's costs, and lasts longer.
        if let Err(error) = TcpKeepalive::default().watch_accepted(&listener, options.limits.write_timeout) {
            tracing::warn!(target: "mesh", "{address} finds clients that vanish late: {error}");
        }
        let slot = InboundSlot::owned(name_of(address)?, address, options, Some(owner));
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(std::sync::Arc::downgrade(&slot));
        Ok(Bound::new(slot, listener))
    }

    /// Those that are in use.
    pub(crate) fn all(&self) -> Vec<std::sync::Arc<InboundSlot>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has every server stop accepting and drain, and waits until they have ended: `deadline` from now at the latest.
    pub(crate) async fn shutdown(&self, deadline: Duration) {
        let at = Instant::now() + deadline;
        let slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ends = JoinSet::new();
        for slot in slots.iter().filter_map(Weak::upgrade) {
            slot.shutdown(at);
            ends.spawn(async move { slot.ended().await });
        }
        while ends.join_next().await.is_some() {}
    }
}
