//! The streams that are open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_core::ads::Variant;
use mesh_core::model::Name;
use mesh_core::resource::ResourceKey;
use tokio::sync::mpsc;

/// An open stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its number, from 1.
    pub id: u64,
    /// Who opened it.
    pub peer: SocketAddr,
    /// The protocol it is spoken in; None: it is one of load reports.
    pub variant: Option<Variant>,
    /// The client's `node.id`; empty until it said it.
    pub node: Name,
    /// What it is subscribed to.
    pub subscriptions: Vec<ResourceKey>,
    /// The version that the client uses, by type (without `type.googleapis.com/`). Empty in incremental xDS.
    pub versions: BTreeMap<Name, String>,
}

/// What is done once to a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Strike {
    Tear,
    Garbage,
}

#[derive(Default)]
pub(super) struct Registry {
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    last: u64,
    open: BTreeMap<u64, (StreamInfo, mpsc::UnboundedSender<Strike>)>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Nothing panics while it is held, and what is in it is whole at any time.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, peer: SocketAddr, variant: Option<Variant>) -> (u64, mpsc::UnboundedReceiver<Strike>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut streams = self.lock();
        streams.last += 1;
        let id = streams.last;
        let info =
            StreamInfo { id, peer, variant, node: "".into(), subscriptions: Vec::new(), versions: BTreeMap::new() };
        streams.open.insert(id, (info, sender));
        (id, receiver)
    }

    pub(super) fn update(&self, id: u64, update: impl FnOnce(&mut StreamInfo)) {
        if let Some((info, _)) = self.lock().open.get_mut(&id) {
            update(info);
        }
    }

    pub(super) fn close(&self, id: u64) {
        self.lock().open.remove(&id);
    }

    pub(super) fn infos(&self) -> Vec<StreamInfo> {
        self.lock().open.values().map(|(info, _)| info.clone()).collect()
    }

    /// Tells every open stream, and gives their number.
    pub(super) fn strike(&self, strike: Strike) -> usize {
        self.lock().open.values().filter(|(_, sender)| sender.send(strike).is_ok()).count()
    }
}
