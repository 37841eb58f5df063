//! The stages of chain selection, as nested maps: destination, transport, kind of source, source, source port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::RAW_BUFFER;
use super::prefix::PrefixMap;
use crate::model::{ChainMatch, SourceType};

/// The first stage: the destination's address.
#[derive(Debug, Default)]
pub(super) struct Tree {
    destinations: PrefixMap<Transports>,
}

/// The second stage: chains that say `raw_buffer` hide those that say nothing.
#[derive(Debug, Default)]
struct Transports {
    raw_buffer: Option<Sources>,
    unspecified: Option<Sources>,
}

/// The third stage: where the client is. What is specific hides what is not, for good.
#[derive(Debug, Default)]
struct Sources {
    any: Option<PrefixMap<Ports>>,
    local: Option<PrefixMap<Ports>>,
    external: Option<PrefixMap<Ports>>,
}

/// The last stage: the client's port.
#[derive(Debug, Default)]
struct Ports {
    exact: BTreeMap<u16, Leaf>,
    unspecified: Option<Leaf>,
}

/// What is left when every stage is through.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// One chain, by number.
    One(usize),
    /// More than one.
    Several,
}

impl Tree {
    /// Adds chain `number`. Every combination of its repeated fields is an entry of its own.
    pub(super) fn insert(&mut self, matches: &ChainMatch, number: usize, by_destination: bool) {
        let destinations: &[_] = if by_destination { &matches.destination } else { &[] };
        for destination in or_unspecified(destinations) {
            let sources = self.destinations.entry(destination).entry(&matches.transport_protocol);
            let by_source = sources.entry(matches.source_type);
            for source in or_unspecified(&matches.source) {
                by_source.entry(source).insert(&matches.source_ports, number);
            }
        }
    }

    /// Call once every chain is in.
    pub(super) fn finish(&mut self) {
        self.destinations.finish(|transports| {
            for sources in [&mut transports.raw_buffer, &mut transports.unspecified].into_iter().flatten() {
                for ranges in [&mut sources.any, &mut sources.local, &mut sources.external].into_iter().flatten() {
                    ranges.finish(|_| {});
                }
            }
        });
    }

    /// What takes a connection; `destination` is None where destinations are not looked at.
    pub(super) fn find(&self, destination: Option<IpAddr>, local: bool, source: IpAddr, port: u16) -> Option<&Leaf> {
        let transports = match destination {
            Some(destination) => self.destinations.find(destination),
            None => self.destinations.unspecified(),
        }?;
        let sources = transports.raw_buffer.as_ref().or(transports.unspecified.as_ref())?;
        let specific = if local { &sources.local } else { &sources.external };
        let ports = specific.as_ref().or(sources.any.as_ref())?.find(source)?;
        ports.exact.get(&port).or(ports.unspecified.as_ref())
    }
}

impl Transports {
    fn entry(&mut self, transport: &str) -> &mut Sources {
        let slot = if transport == RAW_BUFFER { &mut self.raw_buffer } else { &mut self.unspecified };
        slot.get_or_insert_default()
    }
}

impl Sources {
    fn entry(&mut self, kind: SourceType) -> &mut PrefixMap<Ports> {
        let slot = match kind {
            SourceType::Any => &mut self.any,
            SourceType::SameIpOrLoopback => &mut self.local,
            SourceType::External => &mut self.external,
        };
        slot.get_or_insert_default()
    }
}

impl Ports {
    fn insert(&mut self, ports: &[u16], number: usize) {
        if ports.is_empty() {
            self.unspecified = Some(Leaf::beside(self.unspecified.as_ref(), number));
        }
        for port in ports {
            let leaf = Leaf::beside(self.exact.get(port), number);
            self.exact.insert(*port, leaf);
        }
    }
}

impl Leaf {
    /// The same chain may say one thing twice; two chains must not.
    fn beside(there: Option<&Self>, number: usize) -> Self {
        match there {
            None => Self::One(number),
            Some(Self::One(same)) if *same == number => Self::One(number),
            Some(_) => Self::Several,
        }
    }
}

/// The items, or one None where there are none.
fn or_unspecified<T: Copy>(items: &[T]) -> impl Iterator<Item = Option<T>> {
    let none = items.is_empty().then_some(None);
    items.iter().copied().map(Some).chain(none)
}
