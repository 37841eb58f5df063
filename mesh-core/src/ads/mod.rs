//! One xDS client as a state machine without I/O, and what moves its bytes.
//!
//! [`Engine`] decides: it is told what arrived and what time it is, and says what to send and what to believe. Types of
//! resources are rows ([`ResourceTypes`]). [`Driver`] moves bytes over a [`ControlTransport`].

mod transport;
mod settings;
mod types;
mod backoff;
mod message;
mod response;
mod cache;
mod authority;
mod stream;
mod engine;
mod receive;
mod grace;
mod wildcard;
mod failover;
mod last_good;
mod link;
mod driver;

pub use authority::Authorities;
pub(crate) use backoff::Backoff;
pub use driver::Driver;
pub use engine::{Action, Engine, ServerId};
pub use last_good::LastGood;
pub(crate) use link::{Link, StreamEngine};
pub(crate) use message::node as describe_node;
pub use settings::{BackoffSettings, FallbackScope, Jitter, Settings};
pub use transport::{
    AGGREGATED_RESOURCES, ControlStream, ControlTransport, DELTA_AGGREGATED_RESOURCES, DELTA_SECRETS, Opening,
    STREAM_SECRETS, TransportError,
};
pub use types::{ResourceType, ResourceTypes, Service, Subscription, Variant};

#[cfg(test)]
pub(crate) mod tests;
