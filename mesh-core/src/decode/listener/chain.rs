//! `FilterChainMatch`: rules 37 to 39.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use ipnet::IpNet;

use crate::decode::at::At;
use crate::decode::value::cidr;
use crate::model::{ChainMatch, FilterChain, SourceType};

/// So many ways to match are compared at most; more than that is no configuration.
const MOST_WAYS: usize = 100_000;

/// Which connections a chain takes.
pub(super) fn chain_match(value: &pb::FilterChainMatch, at: &At<'_>) -> ChainMatch {
    let refused = [
        ("address_suffix", !value.address_suffix.is_empty()),
        ("suffix_len", value.suffix_len.is_some()),
        ("direct_source_prefix_ranges", !value.direct_source_prefix_ranges.is_empty()),
    ];
    for (name, _) in refused.into_iter().filter(|(_, present)| *present) {
        at.field(name).fault("is not supported, and leaving it out would take more connections than was meant");
    }
    ChainMatch {
        destination_port: value.destination_port.and_then(|port| port_of(port.value, &at.field("destination_port"))),
        destination: ranges(&value.prefix_ranges, "prefix_ranges", at),
        source_type: source_type(value.source_type, at),
        source: ranges(&value.source_prefix_ranges, "source_prefix_ranges", at),
        source_ports: value
            .source_ports
            .iter()
            .enumerate()
            .filter_map(|(index, port)| port_of(*port, &at.item("source_ports", index)))
            .collect(),
        server_names: value.server_names.clone(),
        transport_protocol: value.transport_protocol.clone(),
        application_protocols: value.application_protocols.clone(),
    }
}

fn port_of(value: u32, at: &At<'_>) -> Option<u16> {
    let port = u16::try_from(value).ok();
    if port.is_none() {
        at.fault("must be at most 65535");
    }
    port
}

/// Rule 38.
fn source_type(value: i32, at: &At<'_>) -> SourceType {
    match value {
        0 => SourceType::Any,
        1 => SourceType::SameIpOrLoopback,
        2 => SourceType::External,
        other => {
            at.field("source_type").fault(format!("is {other}, which is not known"));
            SourceType::Any
        }
    }
}

pub(super) fn ranges(values: &[CidrRange], name: &str, at: &At<'_>) -> Vec<IpNet> {
    values.iter().enumerate().filter_map(|(index, value)| cidr(value, &at.item(name, index))).collect()
}

/// Everything a connection is matched by, one value each.
type Way<'a> = (Option<u16>, Option<IpNet>, u8, Option<IpNet>, Option<u16>, &'a str, &'a str, &'a str);

/// Rule 39: no two chains may take the same connections with the same precision. Compared after normalisation, as a
/// product of the repeated fields; chains that can never match take part.
pub(super) fn check_unique(chains: &[FilterChain], at: &At<'_>) {
    let mut seen: BTreeMap<Way<'_>, usize> = BTreeMap::new();
    for (index, chain) in chains.iter().enumerate() {
        for way in ways(&chain.matches) {
            if seen.len() >= MOST_WAYS {
                at.field("filter_chains").fault(format!("can be matched in more than {MOST_WAYS} ways"));
                return;
            }
            match seen.insert(way, index) {
                Some(first) if first != index => {
                    at.item("filter_chains", index)
                        .field("filter_chain_match")
                        .fault(format!("takes connections that filter_chains[{first}] takes"));
                    break;
                }
                _ => {}
            }
        }
    }
}

/// One way for each combination, made lazily: their number is a product that a hostile resource chooses.
fn ways(value: &ChainMatch) -> impl Iterator<Item = Way<'_>> {
    let source_type = match value.source_type {
        SourceType::Any => 0,
        SourceType::SameIpOrLoopback => 1,
        SourceType::External => 2,
    };
    let transport = value.transport_protocol.as_str();
    optional(&value.destination).flat_map(move |destination| {
        optional(&value.source).flat_map(move |source| {
            optional(&value.source_ports).flat_map(move |port| {
                optional(&value.server_names).flat_map(move |name| {
                    optional(&value.application_protocols).map(move |protocol| {
                        (
                            value.destination_port,
                            destination.copied(),
                            source_type,
                            source.copied(),
                            port.copied(),
                            name.map_or("", String::as_str),
                            protocol.map_or("", String::as_str),
                            transport,
                        )
                    })
                })
            })
        })
    })
}

/// Its values, or the one absence of any.
fn optional<T>(values: &[T]) -> impl Iterator<Item = Option<&T>> {
    let none = values.is_empty().then_some(None);
    values.iter().map(Some).chain(none)
}
