//! From a listening socket to connections: accepting, choosing the filter chain, TLS, each within bounds.

mod acceptor;
mod io;
mod places;

pub(crate) use acceptor::{Acceptor, Deliver, run};
pub use io::{Addresses, InboundIo, InboundListener, TcpIo};
pub(crate) use places::Place;
