//! The endpoints of a cluster as one wire protocol reaches them: candidates, ways, and the picker over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_core::balance::{Candidate, Pick, PickInput, Picker};
use mesh_core::error::Error;
use mesh_core::publish::{Publisher, Reader};
use tokio::sync::Semaphore;

use super::Signal;
use crate::connect::{EndpointHandle, StateListener, WireProtocol};

/// Endpoints of a lane that are connected to at the same time. Connections beside each other take the application's threads
/// from requests: each waits for as many handshakes as there are before it.
const CONNECTING: usize = 32;

/// One protocol's way to the endpoints of a cluster. It is empty until a request needs it.
pub(crate) struct Lane {
    protocol: WireProtocol,
    view: Publisher<LaneView>,
    wanted: AtomicBool,
    /// Turns to connect to an endpoint.
    connecting: Arc<Semaphore>,
    changes: Arc<Changes>,
}

/// Notes that endpoints of a lane have changed, and has the configuration thread look.
pub(super) struct Changes {
    dirty: AtomicBool,
    signal: Arc<Signal>,
}

/// What requests see of a lane: immutable.
#[derive(Debug)]
pub(crate) struct LaneView {
    /// The picker; None until the lane is built.
    picker: Option<Arc<dyn Picker>>,
    /// What it was built from.
    pub(crate) candidates: Arc<[Arc<Candidate>]>,
    /// The way to each candidate.
    pub(crate) ways: Arc<[Arc<dyn EndpointHandle>]>,
}

impl Lane {
    pub(super) fn new(protocol: WireProtocol, signal: Arc<Signal>) -> Self {
        let view = LaneView { picker: None, candidates: Arc::default(), ways: Arc::new([]) };
        Self {
            protocol,
            view: Publisher::new(Arc::new(view)),
            wanted: AtomicBool::new(false),
            connecting: Arc::new(Semaphore::new(CONNECTING)),
            changes: Arc::new(Changes { dirty: AtomicBool::new(false), signal }),
        }
    }

    pub(super) fn protocol(&self) -> WireProtocol {
        self.protocol
    }

    /// Says that requests use the lane: the first time, the configuration thread builds it.
    pub(crate) fn want(&self) {
        if !self.wanted.load(Ordering::Relaxed) && !self.wanted.swap(true, Ordering::AcqRel) {
            self.changes.state_changed();
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub(super) fn connecting(&self) -> &Arc<Semaphore> {
        &self.connecting
    }

    pub(super) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Whether it must be built again; asking forgets.
    pub(super) fn take_dirty(&self) -> bool {
        self.changes.dirty.swap(false, Ordering::AcqRel)
    }

    /// What requests see now.
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<LaneView>> {
        self.view.load()
    }

    /// Waits for the next view.
    pub(crate) fn reader(&self) -> Reader<LaneView> {
        self.view.reader()
    }

    /// Puts a view in force; gives the last one back, to be freed by the caller.
    pub(super) fn publish(&self, view: LaneView) -> Arc<LaneView> {
        self.view.publish(Arc::new(view))
    }

    /// Whether a request may be sent there now or soon.
    pub(super) fn may_work(&self) -> bool {
        let view = self.view.load();
        view.picker.is_none() || view.candidates.iter().any(|candidate| !candidate.state.is_failed())
    }
}

impl LaneView {
    pub(super) fn new(
        picker: Arc<dyn Picker>,
        candidates: Arc<[Arc<Candidate>]>,
        ways: Arc<[Arc<dyn EndpointHandle>]>,
    ) -> Self {
        Self { picker: Some(picker), candidates, ways }
    }

    pub(super) fn picker(&self) -> Option<&Arc<dyn Picker>> {
        self.picker.as_ref()
    }

    /// Chooses an endpoint; waits while the lane is not built yet.
    pub(crate) fn pick(&self, input: &PickInput<'_>) -> Pick {
        self.picker.as_ref().map_or(Pick::Wait { connect: None }, |picker| picker.pick(input))
    }

    /// Whether somebody could take a request.
    pub(crate) fn any_ready(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.state.is_ready())
    }

    /// Why the last endpoint that could not be connected to could not.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.ways.iter().find_map(|way| way.last_error())
    }
}

impl Changes {
    /// Has the lane built again in the round that is under way.
    pub(super) fn mark(&self) {
        self.dirty.store(true, Ordering::Release);
    }
}

impl StateListener for Changes {
    fn state_changed(&self) {
        self.mark();
        self.signal.raise();
    }
}
