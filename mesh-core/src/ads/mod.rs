//! One xDS client as a state machine without I/O.

mod transport;

pub use transport::{AGGREGATED_RESOURCES, ControlStream, ControlTransport, Opening, TransportError};
