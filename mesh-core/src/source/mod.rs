//! Where resources come from: an xDS server, a file, or memory. One trait for all of them.
//!
//! A [`Source`] says how to get resources; started on the configuration thread it becomes a [`Feed`], which is told what is
//! wanted and says what it knows. All three of ours end in the same stream engine: the file and memory sources answer it
//! from a [`responder`] in this process, so that there is one meaning of every resource and one set of rules.

pub mod responder;
mod local;
mod memory;
mod ads;
mod last_good;
#[cfg(feature = "file")]
pub mod file;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::decode::{DecodeResource, Dialect};
use crate::error::Error;
use crate::event::EventSink;
use crate::model::Name;
use crate::resource::{ResourceEvent, ResourceKey};
use crate::status::ClientStatus;

pub use ads::AdsSource;
pub use local::LocalTransport;
pub use memory::MemorySource;

/// Where resources come from.
pub trait Source: Send {
    /// Starts it. Called once, on the configuration thread and inside its Tokio runtime, so that it may spawn tasks there.
    ///
    /// # Errors
    ///
    /// When it cannot work at all; a control plane that is merely away is not such a reason.
    fn start(self: Box<Self>, setup: Setup) -> Result<Box<dyn Feed>, Error>;

    /// Whose rules its resources are made for. By default gRPC's, as those of an xDS server; files and memory go by Envoy's.
    fn dialect(&self) -> Dialect {
        Dialect::Grpc
    }
}

/// What a source gets from the thread it runs on.
#[derive(Clone)]
pub struct Setup {
    /// Turns bytes into the model.
    pub decoder: Arc<dyn DecodeResource>,
    /// Who is told what happens.
    pub events: Arc<dyn EventSink>,
    /// All the randomness it may use.
    pub seed: u64,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A running source.
///
/// A round is: [`poll_event`](Self::poll_event) until it is pending, with the subscriptions that follow from each event in
/// between, then [`poll_settled`](Self::poll_settled). A feed takes nothing new from its origin before the round is settled,
/// so that a slow reader slows the sender, and what it answers to the origin goes out then, so that the subscriptions that a
/// response caused travel with its acknowledgement.
pub trait Feed {
    /// Someone wants this resource. If it is wanted already, what is known of it is told again.
    fn subscribe(&mut self, key: &ResourceKey);

    /// No one wants this resource any more; what is known of it is forgotten.
    fn unsubscribe(&mut self, key: &ResourceKey);

    /// A target uses this resource, which is wanted already. A feed that treats targets one by one, as gRFC A71 has them fall
    /// back, wants to know; for others it means nothing, and by default nothing happens.
    fn claim(&mut self, _key: &ResourceKey, _target: &Name) {}

    /// The target uses it no more.
    fn release(&mut self, _key: &ResourceKey, _target: &Name) {}

    /// The next thing it has to say about what is wanted.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ResourceEvent>;

    /// All that was said has been dealt with. Ready: there is more, so begin another round at once. Pending: begin one when
    /// `cx`'s waker is woken, or when something else is wanted.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What it knows of everything that is wanted, one for each xDS client in it. Asked seldom, when a person or a tool looks
    /// on. By default it has nothing to show.
    fn status(&self) -> Vec<ClientStatus> {
        Vec::new()
    }
}
