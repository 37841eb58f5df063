//! Which virtual host serves an authority (`RouteConfiguration.virtual_hosts`, gRFC A27).

use std::collections::HashMap;

use super::prefix::PrefixSet;
use crate::model::{Domain, RouteTable};

/// The domains of a route table, for lookup: exact names first, then suffixes (`*.foo.com`), then prefixes (`foo.*`),
/// then `*`; the longest pattern of its kind; of equal ones, the first listed.
#[derive(Debug)]
pub(super) struct HostIndex {
    exact: HashMap<Box<[u8]>, u32>,
    /// Keys and lookups are reversed.
    suffixes: PrefixSet<u32>,
    prefixes: PrefixSet<u32>,
    any: Option<u32>,
    /// No domain but `*` is named.
    nothing_else: bool,
    ignore_port: bool,
}

impl HostIndex {
    pub(super) fn new(table: &RouteTable) -> Self {
        let mut exact = HashMap::new();
        let mut suffixes = Vec::new();
        let mut prefixes = Vec::new();
        let mut any = None;
        for (host, domain) in every_domain(table) {
            match domain {
                Domain::Exact(name) => {
                    exact.entry(lower(name).into()).or_insert(host);
                }
                Domain::Suffix(suffix) => suffixes.push((lower(suffix).into_iter().rev().collect(), host)),
                Domain::Prefix(prefix) => prefixes.push((lower(prefix), host)),
                Domain::Any => {
                    any.get_or_insert(host);
                }
            }
        }
        let nothing_else = exact.is_empty() && suffixes.is_empty() && prefixes.is_empty();
        let keep_first = |_: &mut u32, _: u32| {};
        Self {
            exact,
            suffixes: PrefixSet::new(suffixes, keep_first),
            prefixes: PrefixSet::new(prefixes, keep_first),
            any,
            nothing_else,
            ignore_port: table.ignore_port_in_host,
        }
    }

    /// The virtual host of `authority`, as its index in the table. Case does not count.
    pub(super) fn find(&self, authority: &str) -> Option<usize> {
        let authority = if self.ignore_port { without_port(authority) } else { authority };
        let mut buffer = [0; 256];
        let found = match buffer.get_mut(..authority.len()) {
            Some(host) => {
                host.copy_from_slice(authority.as_bytes());
                self.find_lower(host)
            }
            // No real host name is that long; a request may still say so.
            None => self.find_lower(&mut authority.as_bytes().to_vec()),
        };
        found.map(|host| host as usize)
    }

    /// The virtual host of `*`, where no other domain is named.
    pub(super) fn only_one_for_everything(&self) -> Option<usize> {
        self.any.filter(|_| self.nothing_else).map(|host| host as usize)
    }

    fn find_lower(&self, host: &mut [u8]) -> Option<u32> {
        host.make_ascii_lowercase();
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        // The star stands for one character at least, so a pattern as long as the host does not match.
        let longest = |set: &PrefixSet<u32>, host: &[u8]| {
            set.prefixes_of(host).find(|(length, _)| *length < host.len()).map(|(_, index)| *index)
        };
        let prefix = longest(&self.prefixes, host);
        host.reverse();
        longest(&self.suffixes, host).or(prefix).or(self.any)
    }
}

fn every_domain(table: &RouteTable) -> impl Iterator<Item = (u32, &Domain)> {
    let hosts = table.virtual_hosts.iter().enumerate();
    hosts.flat_map(|(index, host)| host.domains.iter().map(move |domain| (index as u32, domain)))
}

fn lower(text: &str) -> Vec<u8> {
    text.to_ascii_lowercase().into_bytes()
}

/// `host:port` without the port, `[::1]` left whole; a colon with nothing behind it goes too (Envoy).
pub fn without_port(authority: &str) -> &str {
    match (authority.rfind(':'), authority.rfind(']')) {
        (Some(colon), bracket) if bracket.is_none_or(|bracket| bracket < colon) => &authority[..colon],
        _ => authority,
    }
}
