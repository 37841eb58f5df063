//! The stages of chain selection, as nested maps: destination, server name, transport, application protocol, kind of source,
//! source, source port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::prefix::PrefixMap;
use super::{FirstBytes, RAW_BUFFER, TLS};
use crate::model::{ChainMatch, SourceType};

/// The first stage: the destination's address.
#[derive(Debug, Default)]
pub(super) struct Tree {
    destinations: PrefixMap<Names>,
}

/// The second stage: the server name, whole or as a suffix, the longest first; lower case.
#[derive(Debug, Default)]
struct Names {
    exact: BTreeMap<String, Transports>,
    /// `.example.com` of `*.example.com`.
    suffixes: BTreeMap<String, Transports>,
    unspecified: Option<Transports>,
}

/// The third stage: chains that say what the transport is hide those that say nothing.
#[derive(Debug, Default)]
struct Transports {
    raw_buffer: Option<Protocols>,
    tls: Option<Protocols>,
    unspecified: Option<Protocols>,
}

/// The fourth stage: the first of the client's protocols that a chain names.
#[derive(Debug, Default)]
struct Protocols {
    exact: BTreeMap<String, Sources>,
    unspecified: Option<Sources>,
}

/// The fifth stage: where the client is. What is specific hides what is not, for good.
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
            let names = self.destinations.entry(destination.copied());
            for name in or_unspecified(&matches.server_names) {
                let protocols = names.entry(name).entry(&matches.transport_protocol);
                for protocol in or_unspecified(&matches.application_protocols) {
                    let by_source = protocols.entry(protocol).entry(matches.source_type);
                    for source in or_unspecified(&matches.source) {
                        by_source.entry(source.copied()).insert(&matches.source_ports, number);
                    }
                }
            }
        }
    }

    /// Call once every chain is in.
    pub(super) fn finish(&mut self) {
        self.destinations.finish(|names| {
            let names = names.exact.values_mut().chain(names.suffixes.values_mut()).chain(&mut names.unspecified);
            let transports = names.flat_map(|it| [&mut it.raw_buffer, &mut it.tls, &mut it.unspecified]).flatten();
            let protocols = transports.flat_map(|it| it.exact.values_mut().chain(&mut it.unspecified));
            let sources = protocols.flat_map(|it| [&mut it.any, &mut it.local, &mut it.external]).flatten();
            sources.for_each(|ranges| ranges.finish(|_| {}));
        });
    }

    /// What takes a connection; `destination` is None where destinations are not looked at.
    pub(super) fn find(
        &self,
        destination: Option<IpAddr>,
        first: &FirstBytes,
        local: bool,
        source: IpAddr,
        port: u16,
    ) -> Option<&Leaf> {
        let names = match destination {
            Some(destination) => self.destinations.find(destination),
            None => self.destinations.unspecified(),
        }?;
        let sources = names.find(first.server_name.as_deref())?.find(first.tls)?.find(&first.protocols)?;
        let specific = if local { &sources.local } else { &sources.external };
        let ports = specific.as_ref().or(sources.any.as_ref())?.find(source)?;
        ports.exact.get(&port).or(ports.unspecified.as_ref())
    }
}

impl Names {
    fn entry(&mut self, name: Option<&String>) -> &mut Transports {
        let Some(name) = name.map(|name| name.to_ascii_lowercase()) else {
            return self.unspecified.get_or_insert_default();
        };
        match name.strip_prefix('*') {
            Some(suffix) => self.suffixes.entry(suffix.to_owned()).or_default(),
            None => self.exact.entry(name).or_default(),
        }
    }

    fn find(&self, name: Option<&str>) -> Option<&Transports> {
        let exact = name.and_then(|name| self.exact.get(name));
        let dots = name.into_iter().flat_map(|name| name.match_indices('.').map(move |(at, _)| &name[at..]));
        exact.or_else(|| dots.into_iter().find_map(|suffix| self.suffixes.get(suffix))).or(self.unspecified.as_ref())
    }
}

impl Transports {
    fn entry(&mut self, transport: &str) -> &mut Protocols {
        let slot = match transport {
            RAW_BUFFER => &mut self.raw_buffer,
            TLS => &mut self.tls,
            _ => &mut self.unspecified,
        };
        slot.get_or_insert_default()
    }

    fn find(&self, tls: bool) -> Option<&Protocols> {
        let specific = if tls { &self.tls } else { &self.raw_buffer };
        specific.as_ref().or(self.unspecified.as_ref())
    }
}

impl Protocols {
    fn entry(&mut self, protocol: Option<&String>) -> &mut Sources {
        match protocol {
            Some(protocol) => self.exact.entry(protocol.clone()).or_default(),
            None => self.unspecified.get_or_insert_default(),
        }
    }

    fn find(&self, offered: &[String]) -> Option<&Sources> {
        offered.iter().find_map(|protocol| self.exact.get(protocol)).or(self.unspecified.as_ref())
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
fn or_unspecified<T>(items: &[T]) -> impl Iterator<Item = Option<&T>> {
    let none = items.is_empty().then_some(None);
    items.iter().map(Some).chain(none)
}
