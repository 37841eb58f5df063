//! Envoy's `%COMMAND%` substitutions, as far as header values use them.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::facts::RequestFacts;
use crate::identity::{PeerIdentity, Sans};
use crate::resource::percent;

/// What a substitution may speak of, beside the headers that are being changed.
#[derive(Debug, Clone, Copy)]
pub struct FormatFacts<'a> {
    /// The request.
    pub request: RequestFacts<'a>,
    /// The request's HTTP version.
    pub version: Version,
    /// The address the request came from.
    pub remote: Option<SocketAddr>,
    /// The address the request came to.
    pub local: Option<SocketAddr>,
    /// Who sent it, if it showed a certificate.
    pub peer: Option<&'a PeerIdentity>,
    /// The response's status, once there is one.
    pub status: Option<StatusCode>,
}

/// One piece of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t [u8]),
    Command { name: &'t str, argument: Option<&'t str>, limit: Option<usize> },
}

/// Why a text is no format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadFormat {
    /// It has a `%` without its partner.
    Broken,
    /// It has a command with an argument or a length that it does not take, or without the one that it needs.
    Misused(String),
    /// It has a command that is not computed here.
    Unknown(String),
}

/// Whether `value` is a format that [`expand`] understands: a configuration with another one asks for something we cannot
/// do.
///
/// # Errors
///
/// Why it is none.
pub fn check(value: &HeaderValue) -> Result<(), BadFormat> {
    pieces(value.as_bytes(), |piece| match piece {
        Piece::Command { name, argument, limit } => is_known(name, argument, limit),
        Piece::Text(_) => Ok(()),
    })
    .map_err(|error| error.unwrap_or(BadFormat::Broken))
}

fn is_known(name: &str, argument: Option<&str>, limit: Option<usize>) -> Result<(), BadFormat> {
    let good = match name {
        "REQ" | "RESP" | "QUERY_PARAM" => argument.is_some_and(|argument| !argument.is_empty()),
        "PROTOCOL"
        | "RESPONSE_CODE"
        | "DOWNSTREAM_REMOTE_ADDRESS"
        | "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"
        | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS"
        | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT"
        | "DOWNSTREAM_LOCAL_ADDRESS"
        | "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT"
        | "DOWNSTREAM_LOCAL_PORT"
        | "DOWNSTREAM_PEER_URI_SAN"
        | "DOWNSTREAM_PEER_DNS_SAN" => argument.is_none() && limit.is_none(),
        _ => return Err(BadFormat::Unknown(name.to_owned())),
    };
    if good { Ok(()) } else { Err(BadFormat::Misused(name.to_owned())) }
}

/// Envoy 1.40's commands, sorted.
const COMMANDS: [&str; 153] = [
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_RETRANSMITTED",
    "BYTES_SENT",
    "CEL",
    "CLUSTER_METADATA",
    "COALESCE",
    "COMMON_DURATION",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_GROUP",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "DYNAMIC_METADATA",
    "EMIT_TIME",
    "EMIT_TIME_LOCAL",
    "ENVIRONMENT",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "PACKETS_RETRANSMITTED",
    "PATH",
    "PER_REQUEST_STATE",
    "PROTOCOL",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "REQ",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESP",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "SPAN_ID",
    "START_TIME",
    "START_TIME_LOCAL",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "TRAILER",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_IP_SAN",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_SERVER_NAME",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_GROUP",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

/// Whether Envoy knows the command, computed here or not.
pub fn is_command(name: &str) -> bool {
    COMMANDS.binary_search(&name).is_ok()
}

/// The value that a format makes: what is not there is empty. `current` are the headers being changed: those of the
/// request while it goes out, those of the response while it comes back. None if it is no header value, or no format.
pub fn expand(value: &HeaderValue, current: &HeaderMap, facts: &FormatFacts<'_>) -> Option<HeaderValue> {
    expand_or(value, current, facts, b"")
}

/// [`expand`] with `missing` in place of what is not there: rewrites say `-` (Envoy's formats outside of headers).
pub fn expand_or(
    value: &HeaderValue,
    current: &HeaderMap,
    facts: &FormatFacts<'_>,
    missing: &[u8],
) -> Option<HeaderValue> {
    if !value.as_bytes().contains(&b'%') {
        return Some(value.clone());
    }
    let mut out = Vec::with_capacity(value.len());
    pieces(value.as_bytes(), |piece| {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Command { name, argument, limit } => {
                let start = out.len();
                command(name, argument, current, facts, &mut out);
                if out.len() == start {
                    out.extend_from_slice(missing);
                }
                out.truncate(start.saturating_add(limit.unwrap_or(usize::MAX)));
            }
        }
        Ok(())
    })
    .ok()?;
    HeaderValue::from_bytes(&out).ok()
}

fn command(name: &str, argument: Option<&str>, current: &HeaderMap, facts: &FormatFacts<'_>, out: &mut Vec<u8>) {
    let mut text = |text: &dyn std::fmt::Display| out.extend_from_slice(text.to_string().as_bytes());
    match (name, argument) {
        ("REQ", Some(argument)) => {
            // While the request goes out, what was added before is seen.
            let headers = if facts.status.is_none() { current } else { facts.request.headers };
            request_header(argument, headers, &facts.request, out);
        }
        ("RESP", Some(argument)) if facts.status.is_some() => {
            let value = argument.split('?').find_map(|name| current.get(name));
            out.extend_from_slice(value.map_or(b"", HeaderValue::as_bytes));
        }
        ("QUERY_PARAM", Some(name)) => {
            let parameters = facts.request.query().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut values = parameters.filter(|(key, _)| percent::bytes(key) == name.as_bytes());
            out.extend(values.next().map(|(_, value)| percent::bytes(value)).unwrap_or_default());
        }
        ("PROTOCOL", None) => text(&format_args!("{:?}", facts.version)),
        ("RESPONSE_CODE", None) => text(&facts.status.map_or(0, |status| status.as_u16())),
        ("DOWNSTREAM_PEER_URI_SAN", None) => text(&names(facts, |sans| &sans.uris)),
        ("DOWNSTREAM_PEER_DNS_SAN", None) => text(&names(facts, |sans| &sans.dns)),
        ("DOWNSTREAM_LOCAL_PORT", None) => {
            if let Some(local) = facts.local {
                text(&local.port());
            }
        }
        (name, None) => {
            let address = if name.contains("LOCAL") { facts.local } else { facts.remote };
            match address {
                Some(address) if name.ends_with("WITHOUT_PORT") => text(&address.ip()),
                Some(address) => text(&address),
                None => {}
            }
        }
        _ => {}
    }
}

/// The names of one kind in the peer's certificate.
fn names(facts: &FormatFacts<'_>, kind: impl Fn(&Sans) -> &Vec<String>) -> String {
    facts.peer.map(|peer| kind(peer.sans()).join(",")).unwrap_or_default()
}

/// `%REQ(a?b)%`: the first of the two that is there; names with a colon are pseudo-headers.
fn request_header(names: &str, headers: &HeaderMap, request: &RequestFacts<'_>, out: &mut Vec<u8>) {
    for name in names.split('?') {
        let value = match name.to_ascii_lowercase().as_str() {
            ":method" => Some(request.method.as_str().as_bytes()),
            ":path" => Some(request.path.as_bytes()),
            ":authority" | "host" => Some(request.authority.as_bytes()),
            ":scheme" => Some(request.scheme.as_bytes()),
            other => headers.get(other).map(HeaderValue::as_bytes),
        };
        if let Some(value) = value {
            out.extend_from_slice(value);
            return;
        }
    }
}

/// Takes a format apart: text, `%%`, and `%NAME%`, `%NAME(argument)%`, `%NAME(argument):limit%`. The outer error is
/// `None` where a command has no end.
fn pieces<'t>(
    format: &'t [u8],
    mut visit: impl FnMut(Piece<'t>) -> Result<(), BadFormat>,
) -> Result<(), Option<BadFormat>> {
    let mut rest = format;
    while let Some(start) = rest.iter().position(|byte| *byte == b'%') {
        visit(Piece::Text(&rest[..start])).map_err(Some)?;
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix(b"%") {
            visit(Piece::Text(b"%")).map_err(Some)?;
            rest = after;
            continue;
        }
        let (piece, after) = parse_command(rest).ok_or(None)?;
        visit(piece).map_err(Some)?;
        rest = after;
    }
    visit(Piece::Text(rest)).map_err(Some)
}

fn parse_command(text: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let name_end = text.iter().position(|byte| !(byte.is_ascii_uppercase() || matches!(byte, b'_' | b'0'..=b'9')))?;
    let name = std::str::from_utf8(&text[..name_end]).ok().filter(|name| !name.is_empty())?;
    let mut rest = &text[name_end..];
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix(b"(") {
        let end = inside.iter().position(|byte| *byte == b')')?;
        // `%NAME()%` is `%NAME%`.
        argument = Some(std::str::from_utf8(&inside[..end]).ok()?).filter(|argument| !argument.is_empty());
        rest = &inside[end + 1..];
    }
    let mut limit = None;
    if let Some(digits) = rest.strip_prefix(b":") {
        let end = digits.iter().position(|byte| *byte == b'%')?;
        limit = Some(std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?);
        rest = &digits[end..];
    }
    Some((Piece::Command { name, argument, limit }, rest.strip_prefix(b"%")?))
}
