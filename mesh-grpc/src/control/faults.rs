//! The ways in which it can fail.

use std::time::Duration;

use mesh_core::error::Error;

use super::ControlPlane;
use super::invalid::{Instead, garbage, invalid};
use super::registry::Strike;

/// The ways in which a [`ControlPlane`] can fail, on demand.
///
/// [`stall`](Self::stall), [`refuse`](Self::refuse) and [`delay`](Self::delay) last until [`resume`](Self::resume), for streams
/// that are open and for those to come. [`tear`](Self::tear) and [`garbage`](Self::garbage) happen once, to the streams that are
/// open.
#[derive(Debug, Clone, Copy)]
pub struct Faults<'a> {
    plane: &'a ControlPlane,
}

/// What lasts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    pub(super) mode: Mode,
    pub(super) delay: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Answer,
    Stall,
    Refuse,
}

impl<'a> Faults<'a> {
    pub(super) fn new(plane: &'a ControlPlane) -> Self {
        Self { plane }
    }

    /// Takes streams and reads requests, and answers nothing.
    pub fn stall(self) {
        self.mode(Mode::Stall);
    }

    /// Ends every stream with `UNAVAILABLE`, and new ones at once.
    pub fn refuse(self) {
        self.mode(Mode::Refuse);
    }

    /// Waits so long before each response. Default: zero.
    pub fn delay(self, delay: Duration) {
        self.plane.shared.faults.send_modify(|state| state.delay = delay);
    }

    /// Ends [`stall`](Self::stall), [`refuse`](Self::refuse) and [`delay`](Self::delay). What was asked while it stalled is
    /// answered now, in order.
    pub fn resume(self) {
        self.plane.shared.faults.send_replace(State::default());
    }

    /// Serves every resource of this name with contents that all clients must refuse (its name can still be read), until
    /// [`heal`](Self::heal). The client's NACK is in the [log](ControlPlane::log).
    pub fn spoil(self, name: impl Into<String>) {
        self.put(name.into(), invalid);
    }

    /// Serves bytes that are no message in the place of every resource of this name, until [`heal`](Self::heal). An incremental
    /// server says the name beside them; in the state of the world there is nothing that says whose they are.
    pub fn scramble(self, name: impl Into<String>) {
        self.put(name.into(), garbage);
    }

    fn put(self, name: String, instead: Instead) {
        self.plane.shared.change(|wanted| wanted.spoiled.push((name, instead)));
    }

    /// Serves what is wanted again in the place of all that is [spoiled](Self::spoil) or [scrambled](Self::scramble).
    pub fn heal(self) {
        self.plane.shared.change(|wanted| wanted.spoiled.clear());
    }

    /// Sends half of a response on each open stream and resets the stream. Gives their number.
    pub fn tear(self) -> usize {
        self.plane.shared.streams.strike(Strike::Tear)
    }

    /// Sends a message on each open stream that is no `DiscoveryResponse`. Gives their number.
    pub fn garbage(self) -> usize {
        self.plane.shared.streams.strike(Strike::Garbage)
    }

    /// Stops listening and closes every connection. The port stays reserved where the system allows it, so that
    /// [`come_back`](Self::come_back) finds it free.
    pub async fn vanish(self) {
        self.plane.door.close().await;
    }

    /// Listens again, on the same address. Does nothing if it did not [`vanish`](Self::vanish).
    ///
    /// # Errors
    ///
    /// `BIND` when another process took the address.
    pub async fn come_back(self) -> Result<(), Error> {
        self.plane.door.reopen(&self.plane.shared).await
    }

    fn mode(self, mode: Mode) {
        self.plane.shared.faults.send_modify(|state| state.mode = mode);
    }
}
