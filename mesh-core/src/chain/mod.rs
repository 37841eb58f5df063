//! Which filter chain of a server's Listener takes a connection (gRFC A36, `FilterChainMatch`).
//!
//! The stages run in a fixed order and never go back: a chain that is the most specific at one stage and fails at a later one
//! leaves the connection to the default chain, not to a chain that was less specific earlier. [`ChainIndex`] is built once
//! for each Listener and asked once for each connection.

mod prefix;
mod tree;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{ChainMatch, FilterChain, ServerListener};
use tree::{Leaf, Tree};

/// The filter chains of one Listener, arranged for lookup.
#[derive(Debug)]
pub struct ChainIndex {
    tree: Tree,
    default: Option<usize>,
    chains: Vec<Arc<FilterChain>>,
    wildcard: bool,
}

/// What chain selection knows of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// The client's address.
    pub source: SocketAddr,
    /// What its first bytes say; [`FirstBytes::unseen`] where nobody looks.
    pub first: &'a FirstBytes,
}

/// What the first bytes of a connection say, where the Listener has them looked at (`listener_filters`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstBytes {
    /// Whether they begin TLS.
    pub tls: bool,
    /// The server name of a ClientHello, in lower case.
    pub server_name: Option<String>,
    /// The protocols of a ClientHello, the preferred first; without TLS `http/1.0`, `http/1.1` or `h2c`, if it is HTTP and that
    /// is looked at.
    pub protocols: Vec<String>,
}

impl FirstBytes {
    /// Nobody has looked: it is taken for plaintext, of no known protocol.
    pub fn unseen() -> &'static Self {
        static UNSEEN: FirstBytes = FirstBytes { tls: false, server_name: None, protocols: Vec::new() };
        &UNSEEN
    }
}

/// Why no chain takes a connection: it must be closed without sending a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChain {
    /// None matches, and there is no default chain.
    NoMatch,
    /// Several match equally well. Decoding refuses Listeners with duplicate matchers, but on a specific address
    /// `prefix_ranges` are not looked at, and chains that differ in nothing else become equal.
    Ambiguous,
}

impl fmt::Display for NoChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMatch => "no filter chain matches, and there is no default filter chain",
            Self::Ambiguous => "several filter chains match equally well",
        })
    }
}

impl ChainIndex {
    /// Arranges the chains of `listener` for a server that is bound to `bound`. `prefix_ranges` count only where that is a
    /// wildcard address, as the field's documentation says.
    pub fn new(listener: &ServerListener, bound: IpAddr) -> Self {
        let wildcard = bound.to_canonical().is_unspecified();
        let mut tree = Tree::default();
        for (number, chain) in listener.chains.iter().enumerate() {
            if can_match(&chain.matches, listener.inspection.is_some()) {
                tree.insert(&chain.matches, number, wildcard);
            }
        }
        tree.finish();
        let mut chains = listener.chains.clone();
        let default = listener.default_chain.as_ref().map(|chain| {
            chains.push(chain.clone());
            chains.len() - 1
        });
        Self { tree, default, chains, wildcard }
    }

    /// Every chain: those of the Listener in order, then the default one.
    pub fn chains(&self) -> &[Arc<FilterChain>] {
        &self.chains
    }

    /// The number, in [`chains`](Self::chains), of the chain that takes the connection.
    ///
    /// # Errors
    ///
    /// [`NoChain`]: the connection must be closed without sending a byte.
    pub fn select(&self, facts: &ConnectionFacts<'_>) -> Result<usize, NoChain> {
        let destination = facts.destination.ip().to_canonical();
        let source = facts.source.ip().to_canonical();
        let local = source == destination || source.is_loopback();
        let destination = self.wildcard.then_some(destination);
        match self.tree.find(destination, facts.first, local, source, facts.source.port()) {
            Some(Leaf::One(number)) => Ok(*number),
            Some(Leaf::Several) => Err(NoChain::Ambiguous),
            None => self.default.ok_or(NoChain::NoMatch),
        }
    }
}

/// Chains that ask for what this server does not know never match: without an inspection of the first bytes that is all that a
/// ClientHello says (gRFC A36).
fn can_match(matches: &ChainMatch, inspected: bool) -> bool {
    let seen = matches.server_names.is_empty() && matches.application_protocols.is_empty();
    let transport = matches.transport_protocol.as_str();
    matches.destination_port.is_none()
        && (inspected || seen)
        && (matches!(transport, "" | RAW_BUFFER) || (inspected && transport == TLS))
}

/// The `transport_protocol` of a connection that is not TLS, or that nobody has looked into.
const RAW_BUFFER: &str = "raw_buffer";
/// The `transport_protocol` of TLS.
const TLS: &str = "tls";
