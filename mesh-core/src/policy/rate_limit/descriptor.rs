//! What a request is described by, for limits that are not for all.

use std::net::IpAddr;

use http::HeaderValue;
use ipnet::IpNet;

use crate::model::matcher::MatchName;
use crate::model::{HostRules, LimitAction, LimitRule, LocalRateLimit};
use crate::route::Binary;
use crate::route::format::{FormatFacts, expand};

/// Keys and values, in order.
pub type Descriptor = Vec<(String, String)>;

/// Where rules come from, beside the filter itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// The route's.
    pub route: &'a [LimitRule],
    /// The virtual host's.
    pub host: &'a [LimitRule],
    /// The route's `include_vh_rate_limits`.
    pub include_host: bool,
}

/// The descriptors of a request that goes to `cluster`. A rule whose actions have nothing to say makes none.
pub fn describe(
    policy: &LocalRateLimit,
    rules: Rules<'_>,
    facts: &FormatFacts<'_>,
    cluster: Option<&str>,
) -> Vec<Descriptor> {
    // Nobody would ask for them.
    if policy.descriptors.is_empty() {
        return Vec::new();
    }
    let make = |rule: &LimitRule| describe_by(rule, facts, cluster);
    if !policy.rules.is_empty() {
        return policy.rules.iter().filter_map(make).collect();
    }
    let include = rules.include_host || policy.host_rules == HostRules::Include;
    let host = match policy.host_rules {
        _ if include => rules.host,
        HostRules::Override if rules.route.is_empty() => rules.host,
        _ => &[],
    };
    rules.route.iter().chain(host).filter(|rule| rule.stage == policy.stage).filter_map(make).collect()
}

fn describe_by(rule: &LimitRule, facts: &FormatFacts<'_>, cluster: Option<&str>) -> Option<Descriptor> {
    let mut descriptor = Descriptor::with_capacity(rule.actions.len());
    for action in &rule.actions {
        match entry(action, facts, cluster) {
            Entry::Is(key, value) => descriptor.push((key.to_owned(), value)),
            Entry::Skip => {}
            Entry::None => return None,
        }
    }
    // A rule all of whose actions were skipped describes everybody, which is what no rule does.
    (!descriptor.is_empty()).then_some(descriptor)
}

enum Entry<'a> {
    Is(&'a str, String),
    Skip,
    None,
}

fn entry<'a>(action: &'a LimitAction, facts: &FormatFacts<'_>, cluster: Option<&str>) -> Entry<'a> {
    let request = &facts.request;
    let is = |key: &'a str, value: Option<String>| value.map_or(Entry::None, |value| Entry::Is(key, value));
    let matching = |key: &'a str, value: &str, holds: bool| is(key, holds.then(|| value.to_owned()));
    match action {
        LimitAction::DestinationCluster => is("destination_cluster", cluster.map(str::to_owned)),
        LimitAction::Header { name, key, skip_if_absent } => match header(name, facts) {
            None if *skip_if_absent => Entry::Skip,
            value => is(key, value),
        },
        LimitAction::Query { name, key, skip_if_absent } => match request.query_parameter(name) {
            None if *skip_if_absent => Entry::Skip,
            value => is(key, value.map(str::to_owned)),
        },
        LimitAction::RemoteAddress => is("remote_address", request.source_ip.map(|address| address.to_string())),
        LimitAction::MaskedRemoteAddress { v4, v6 } => {
            is("masked_remote_address", request.source_ip.and_then(|address| network(address, *v4, *v6)))
        }
        LimitAction::Generic { key, value, default } => is(key, Some(generic(value, default, facts))),
        LimitAction::HeaderMatch { key, value, expect, headers } => {
            matching(key, value, headers.iter().all(|header| header.is_match(request, Binary::Visible)) == *expect)
        }
        LimitAction::QueryMatch { key, value, expect, parameters } => {
            matching(key, value, parameters.iter().all(|parameter| parameter.is_match(request)) == *expect)
        }
    }
}

/// The values of a header, joined by commas as Envoy does; bytes that are no text are spelled out.
fn header(name: &MatchName, facts: &FormatFacts<'_>) -> Option<String> {
    let request = &facts.request;
    let name = match name {
        MatchName::Method => return Some(request.method.as_str().to_owned()),
        MatchName::Authority => return Some(request.authority.to_owned()),
        MatchName::Path => return Some(request.path.to_owned()),
        MatchName::Scheme => return Some(request.scheme.to_owned()),
        MatchName::Impossible(_) => return None,
        MatchName::Header(name) => name,
    };
    let values = request.headers.get_all(name).iter();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let joined = values.map(text).reduce(|all, next| all + "," + &next);
    // What says nothing is as good as absent, as it would be a limit for all others together (Envoy).
    joined.filter(|joined| !joined.is_empty())
}

fn network(address: IpAddr, v4: u8, v6: u8) -> Option<String> {
    let length = if address.is_ipv4() { v4 } else { v6 };
    IpNet::new(address, length).ok().map(|net| net.trunc().to_string())
}

fn generic(value: &HeaderValue, default: &str, facts: &FormatFacts<'_>) -> String {
    let made = expand(value, facts.request.headers, facts);
    let made = made.map(|made| String::from_utf8_lossy(made.as_bytes()).into_owned()).unwrap_or_default();
    if made.is_empty() { default.to_owned() } else { made }
}
