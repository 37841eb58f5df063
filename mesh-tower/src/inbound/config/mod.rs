//! A Listener as the server applies it: chains with their TLS and their compiled routes, made off every request's way.

mod policy;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use mesh_core::chain::{ChainIndex, ConnectionFacts};
use mesh_core::error::{Code, Error};
use mesh_core::event::Event;
use mesh_core::model::{
    FilterChain, Inspection, RouteSource, RouteTable, ServerListener, Unsupported, UnsupportedEffect,
};
use mesh_core::snapshot::ServerSnapshot;
use tokio::sync::watch;

use super::authorize::doubt;
use super::route::Routes;
use super::{InboundFilters, InboundOptions};
pub(crate) use policy::check;
pub(crate) use tls::{Accepted, BoxedAccept, HelloReader, InboundTls, NoTls, TlsAcceptor, TlsClient};

/// What one Listener means. Connections keep the chain they were accepted by; it is drained when another takes its place.
pub(crate) struct Generation {
    version: AtomicU64,
    server: Arc<ServerListener>,
    index: ChainIndex,
    /// Those of `index`, by its numbers.
    chains: Vec<Arc<ChainState>>,
}

/// One filter chain. Its routes are swapped in place. A chain that the next Listener has too is the next generation's, with its
/// connections.
pub(crate) struct ChainState {
    pub(crate) chain: Arc<FilterChain>,
    /// Ok(None) is plaintext. An error closes the connections that the chain takes.
    pub(crate) tls: Result<Option<Arc<dyn TlsAcceptor>>, Error>,
    routes: ArcSwap<Routes>,
    drain: watch::Sender<bool>,
}

impl Generation {
    /// Builds everything that connections and requests need. What `old` has of it is taken over, with new routes.
    ///
    /// # Errors
    ///
    /// A filter of the Listener cannot be applied here. Nothing of `old` has changed then.
    pub(crate) fn new(
        snapshot: &ServerSnapshot,
        bound: SocketAddr,
        options: &InboundOptions,
        filters: &InboundFilters,
        old: Option<&Self>,
    ) -> Result<Self, Error> {
        if let Some(doubt) = doubt(snapshot, options) {
            tracing::warn!(target: "mesh", "{doubt}");
        }
        tell_left_out(snapshot);
        let index = ChainIndex::new(&snapshot.server, bound.ip());
        let all = index.chains();
        let compiled: Vec<_> = all.iter().map(|chain| compile(chain, snapshot, filters)).collect::<Result<_, _>>()?;
        let old = old.filter(|old| old.selects_as(&snapshot.server));
        let chains = all.iter().zip(compiled).enumerate().map(|(number, (chain, routes))| {
            let same = old.and_then(|old| old.chains.get(number)).filter(|old| old.chain.says_the_same(chain));
            match same {
                Some(state) => {
                    state.swap(snapshot, routes);
                    state.clone()
                }
                None => Arc::new(ChainState::new(chain, snapshot, routes, &*options.tls)),
            }
        });
        let chains = chains.collect();
        Ok(Self { version: AtomicU64::new(snapshot.version), server: snapshot.server.clone(), index, chains })
    }

    /// Whether each connection would have the chain of the same number under `other`.
    fn selects_as(&self, other: &ServerListener) -> bool {
        let own = &*self.server;
        own.inspection == other.inspection
            && own.default_chain.is_some() == other.default_chain.is_some()
            && own.chains.len() == other.chains.len()
            && own.chains.iter().zip(&other.chains).all(|(own, other)| own.matches == other.matches)
    }

    /// Whether `snapshot` has the same Listener.
    pub(crate) fn is_of(&self, snapshot: &ServerSnapshot) -> bool {
        Arc::ptr_eq(&self.server, &snapshot.server)
    }

    /// The number of the configuration.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Swaps the route tables, all of them or none.
    pub(crate) fn update_routes(&self, snapshot: &ServerSnapshot, filters: &InboundFilters) -> Result<(), Error> {
        let compiled: Result<Vec<_>, _> =
            self.chains.iter().map(|state| compile(&state.chain, snapshot, filters)).collect();
        for (state, routes) in self.chains.iter().zip(compiled?) {
            state.swap(snapshot, routes);
        }
        self.version.store(snapshot.version, Ordering::Relaxed);
        Ok(())
    }

    /// What is looked at in the first bytes of its connections.
    pub(crate) fn inspection(&self) -> Option<&Inspection> {
        self.server.inspection.as_ref()
    }

    /// The chain that takes a connection, and the signal that the chain is no longer in force.
    pub(crate) fn select(
        &self,
        facts: &ConnectionFacts<'_>,
    ) -> Result<(Arc<ChainState>, watch::Receiver<bool>), Error> {
        match self.index.select(facts) {
            Ok(number) => {
                let state = &self.chains[number];
                Ok((state.clone(), state.drain.subscribe()))
            }
            Err(why) => {
                Err(Error::new(Code::NO_FILTER_CHAIN, format!("{} to {}: {why}", facts.source, facts.destination))
                    .with_config_version(self.version()))
            }
        }
    }

    /// Has its connections drained, but for those of chains that `next` has taken over.
    pub(crate) fn drain(&self, next: Option<&Self>) {
        for (number, state) in self.chains.iter().enumerate() {
            let next = next.and_then(|next| next.chains.get(number));
            if !next.is_some_and(|next| Arc::ptr_eq(next, state)) {
                state.drain.send_replace(true);
            }
        }
    }
}

impl ChainState {
    fn new(chain: &Arc<FilterChain>, snapshot: &ServerSnapshot, routes: Routes, tls: &dyn InboundTls) -> Self {
        log_routes(snapshot, chain, None, &routes);
        let tls = chain.tls.as_ref().map(|policy| tls.acceptor(policy)).transpose();
        if let Err(error) = &tls {
            tracing::warn!(target: "mesh", "connections of filter chain `{}` are closed: {error}", chain.name);
        }
        Self { chain: chain.clone(), tls, routes: ArcSwap::from_pointee(routes), drain: watch::Sender::new(false) }
    }

    fn swap(&self, snapshot: &ServerSnapshot, routes: Routes) {
        log_routes(snapshot, &self.chain, Some(&self.routes.load()), &routes);
        self.routes.store(Arc::new(routes));
    }

    pub(crate) fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }
}

fn compile(chain: &FilterChain, snapshot: &ServerSnapshot, filters: &InboundFilters) -> Result<Routes, Error> {
    let table = match &chain.http.routes {
        RouteSource::Inline(table) => Ok(table.clone()),
        RouteSource::Rds(name) => snapshot.routes.get(name).cloned().unwrap_or_else(|| {
            Err(Error::new(Code::RESOURCE_NOT_FOUND, format!("RouteConfiguration `{name}` is not there")))
        }),
    };
    Routes::new(&chain.http, table, filters, snapshot.version)
}

/// Says what a Listener asks for and does not get, where requests go on without it; of its routes, what they ask for when it
/// comes.
fn tell_left_out(snapshot: &ServerSnapshot) {
    let connections = snapshot.listener.connections();
    let inline = connections.iter().filter_map(|http| match &http.routes {
        RouteSource::Inline(table) => Some(table),
        RouteSource::Rds(_) => None,
    });
    let of_tables = inline.chain(snapshot.routes.values().flatten()).flat_map(|table| notes_of(table));
    let notes = connections.iter().flat_map(|http| &http.unsupported).chain(of_tables);
    for note in notes.filter(|note| note.effect == UnsupportedEffect::LeftOut) {
        let (resource, field) = (snapshot.target.clone(), note.field.clone());
        tracing::warn!(target: "mesh", "{}", Event::LeftOut { resource, field });
    }
}

fn notes_of(table: &RouteTable) -> impl Iterator<Item = &Unsupported> {
    let of_hosts = table
        .virtual_hosts
        .iter()
        .flat_map(|host| host.unsupported.iter().chain(host.routes.iter().flat_map(|route| &route.unsupported)));
    table.unsupported.iter().chain(of_hosts)
}

/// gRFC A36's logging of configuration errors: a warning for each bad update, one line when it is over.
fn log_routes(snapshot: &ServerSnapshot, chain: &FilterChain, before: Option<&Routes>, now: &Routes) {
    let (target, chain) = (&snapshot.target, &chain.name);
    match (before.and_then(Routes::error), now.error()) {
        (_, Some(error)) => {
            tracing::warn!(target: "mesh", "every request of `{target}`, filter chain `{chain}`, fails: {error}");
        }
        (Some(_), None) => {
            tracing::info!(target: "mesh", "requests of `{target}`, filter chain `{chain}`, are served again");
        }
        (None, None) => {}
    }
}
