//! Small values: durations, shares, header names, JSON.

use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::{address, socket_address};
use envoy_types::pb::envoy::r#type::v3 as types;
use envoy_types::pb::google::protobuf::{self, value::Kind};
use http::HeaderName;
use ipnet::IpNet;

use super::Dialect;
use super::at::At;
use crate::model::listener::canonical;
use crate::model::{Fraction, Metadata};

/// The most seconds a `Duration` can say: 10,000 years.
const MOST_SECONDS: u64 = 315_576_000_000;
/// Envoy counts in nanoseconds of 63 bits.
const MOST_SECONDS_ENVOY: u64 = 9_223_372_036;
/// Envoy's bound for header names and values in a configuration.
pub(super) const LONGEST_HEADER: usize = 16_384;

/// A duration that is not negative: rules 15, 83, 123.
pub(super) fn duration(value: Option<&protobuf::Duration>, at: &At<'_>) -> Option<Duration> {
    let value = value?;
    let seconds = u64::try_from(value.seconds).ok().filter(|seconds| *seconds <= MOST_SECONDS);
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            at.fault("must be a duration from 0 to 315576000000 s, with less than a second of nanos");
            None
        }
    }
}

/// A duration that gRPC reads as long as it is none below zero, and that Envoy must be able to count.
pub(super) fn countable_duration(value: Option<&protobuf::Duration>, at: &At<'_>) -> Option<Duration> {
    if Dialect::is_envoy() { short_duration(value, at) } else { duration(value, at) }
}

/// A duration that Envoy can count, where gRPC has no word.
pub(super) fn short_duration(value: Option<&protobuf::Duration>, at: &At<'_>) -> Option<Duration> {
    let value = duration(value, at)?;
    if value.as_secs() >= MOST_SECONDS_ENVOY {
        at.fault("must be less than 9223372036 s");
        return None;
    }
    Some(value)
}

/// A duration that must be longer than nothing.
pub(super) fn positive_duration(value: Option<&protobuf::Duration>, at: &At<'_>) -> Option<Duration> {
    let value = short_duration(value, at)?;
    if value.is_zero() {
        at.fault("must be longer than 0");
        return None;
    }
    Some(value)
}

/// A share: rule 65. More than the whole means always.
pub(super) fn fraction(value: &types::FractionalPercent, at: &At<'_>) -> Fraction {
    let denominator = match value.denominator {
        0 => 100,
        1 => 10_000,
        2 => 1_000_000,
        other => {
            at.field("denominator").fault(format!("is {other}, which is not HUNDRED, TEN_THOUSAND or MILLION"));
            100
        }
    };
    Fraction { numerator: value.numerator, denominator }
}

/// The share of a `RuntimeFractionalPercent`; its runtime key is Envoy's own and is not read.
pub(super) fn runtime_fraction(value: &core::RuntimeFractionalPercent, at: &At<'_>) -> Option<Fraction> {
    if value.default_value.is_none() {
        at.field("default_value").envoy_fault("is missing");
    }
    value.default_value.as_ref().map(|share| fraction(share, &at.field("default_value")))
}

/// A percentage from 0 to 100.
pub(super) fn percent(value: &types::Percent, at: &At<'_>) -> f64 {
    if (0.0..=100.0).contains(&value.value) {
        return value.value;
    }
    at.field("value").fault("must be from 0 to 100");
    0.0
}

/// A whole number of percent from 0 to 100: rule 124.
pub(super) fn percent_u32(value: Option<&protobuf::UInt32Value>, default: u32, at: &At<'_>) -> u32 {
    match value.map(|value| value.value) {
        None => default,
        Some(value) if value <= 100 => value,
        Some(_) => {
            at.fault("must be from 0 to 100");
            default
        }
    }
}

/// The name of a header.
pub(super) fn header_name(name: &str, at: &At<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| name.len() <= LONGEST_HEADER);
    if parsed.is_none() {
        at.fault(if name.is_empty() { "is empty" } else { "is not the name of a header" });
    }
    parsed
}

/// Whether HTTP can carry a header of this name. None: nobody may have it in a configuration, as it is empty or would break a
/// line.
pub(super) fn is_sendable(name: &str) -> Option<bool> {
    let broken = name.is_empty() || name.bytes().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n'));
    (!broken).then(|| HeaderName::from_bytes(name.as_bytes()).is_ok())
}

/// The name of a header that is looked for. Envoy takes names that no message can have; such a header is never there, so that
/// None, without a fault, is the same.
pub(super) fn wanted_header(name: &str, at: &At<'_>) -> Option<HeaderName> {
    if Dialect::is_envoy() && is_sendable(name) == Some(false) { None } else { header_name(name, at) }
}

/// Refuses what would break a line of HTTP/1.1: NUL, CR and LF.
pub(super) fn check_line(text: &str, at: &At<'_>) {
    if text.bytes().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
        at.fault("contains a NUL, CR or LF");
    }
}

/// An address range: rule 37. A length beyond the address is the whole address (gRFC A36); without one it is 0.
pub(super) fn cidr(value: &core::CidrRange, at: &At<'_>) -> Option<IpNet> {
    let Ok(address) = value.address_prefix.parse::<IpAddr>() else {
        at.field("address_prefix").fault("must be an IPv4 or IPv6 address");
        return None;
    };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = value.prefix_len.map_or(0, |length| length.value);
    let length = u8::try_from(length).unwrap_or(most).min(most);
    IpNet::new(address, length).ok().map(canonical)
}

/// `filter_metadata` as JSON.
pub(super) fn metadata(value: Option<core::Metadata>) -> Metadata {
    value
        .map(|value| value.filter_metadata.into_iter().map(|(key, fields)| (key, json_struct(fields))).collect())
        .unwrap_or_default()
}

/// A `Struct` as JSON.
pub(crate) fn json_struct(value: protobuf::Struct) -> serde_json::Value {
    serde_json::Value::Object(value.fields.into_iter().map(|(key, value)| (key, json(value))).collect())
}

/// A `Value` as JSON. prost bounds the depth.
pub(super) fn json(value: protobuf::Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(truth)) => truth.into(),
        Some(Kind::StructValue(fields)) => json_struct(fields),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
    }
}

/// A `Struct` has floating-point numbers only; a whole one becomes an integer, as it was written: `3.0` cannot be read as
/// one. What JSON cannot say becomes null.
fn number(value: f64) -> serde_json::Value {
    /// Beyond it not every integer has a number.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= LARGEST {
        // It is whole and fits.
        #[allow(clippy::cast_possible_truncation)]
        return (value as i64).into();
    }
    value.into()
}

/// The TCP port of a socket address: rules 31, 100, 136.
pub(super) fn port(value: &core::SocketAddress, at: &At<'_>) -> Option<u16> {
    let at = at.field("port_value");
    let Some(socket_address::PortSpecifier::PortValue(port)) = value.port_specifier else {
        at.fault("is missing");
        return None;
    };
    let port = u16::try_from(port).ok();
    if port.is_none() {
        at.fault("must be at most 65535");
    }
    port
}

/// The `socket_address` of an address.
pub(super) fn socket<'a>(value: Option<&'a core::Address>, at: &At<'_>) -> Option<&'a core::SocketAddress> {
    match value.and_then(|value| value.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            if socket.protocol != 0 {
                at.field("socket_address").field("protocol").fault("must be TCP");
            }
            Some(socket)
        }
        Some(_) => {
            at.fault("must be a socket_address");
            None
        }
        None => {
            at.fault("is missing");
            None
        }
    }
}

/// An address that is an IP literal with a port: rule 136.
pub(super) fn ip_and_port(value: Option<&core::Address>, at: &At<'_>) -> Option<std::net::SocketAddr> {
    let socket = socket(value, at)?;
    let at = at.field("socket_address");
    let port = port(socket, &at);
    let ip: Option<IpAddr> = socket.address.parse().ok();
    if ip.is_none() {
        at.field("address").fault("must be an IPv4 or IPv6 address");
    }
    Some(std::net::SocketAddr::new(ip?, port?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_integers_and_what_is_no_number_is_null() {
        for (value, text) in [
            (3.0, "3"),
            (-3.0, "-3"),
            (0.5, "0.5"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(number(value).to_string(), text);
        }
    }
}
