//! Percent-encoding of URIs (RFC 3986), as far as names of resources and targets need it.

use std::fmt::Write;

/// Sub-delimiters and unreserved characters beyond letters and digits: what every part of a URI may hold as it is.
const PLAIN: &[u8] = b"-._~!$&'()*+,;=";
/// Beyond letters and digits, what means the same encoded and not (RFC 3986, section 2.3).
const UNRESERVED: &[u8] = b"-._~";

/// Percent-encodes what a URI's authority cannot hold (RFC 3986, section 3.2).
pub(crate) fn encode_authority(text: &str) -> String {
    encode(text, b":@[]")
}

/// Percent-encodes what a URI's path cannot hold (RFC 3986, section 3.3).
pub(crate) fn encode_path(text: &str) -> String {
    encode(text, b":@/")
}

/// Keeps plain characters and `also`.
fn encode(text: &str, also: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte, also) {
            encoded.push(char::from(byte));
        } else {
            push_escape(&mut encoded, byte);
        }
    }
    encoded
}

/// Undoes percent-encoding; None if it is malformed or gives no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { escaped(&mut rest)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

/// Undoes percent-encoding; what is malformed stays as it is.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let after = &mut rest.clone();
        match escaped(after).filter(|_| byte == b'%') {
            Some(escaped) => {
                bytes.push(escaped);
                rest = after.clone();
            }
            None => bytes.push(byte),
        }
    }
    bytes
}

/// Spells a path or a query in the one way that is equal to it (RFC 3986, section 6.2.2): what needs no escape has none, what
/// has one has it in upper case. An escaped delimiter stays escaped, as it means something else. None if it is malformed.
pub(crate) fn normalize(text: &str) -> Option<String> {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            if is_plain(byte, b":@/?") {
                normal.push(char::from(byte));
            } else {
                push_escape(&mut normal, byte);
            }
            continue;
        }
        let byte = escaped(&mut rest)?;
        if byte.is_ascii_alphanumeric() || UNRESERVED.contains(&byte) {
            normal.push(char::from(byte));
        } else {
            push_escape(&mut normal, byte);
        }
    }
    Some(normal)
}

fn is_plain(byte: u8, also: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) || also.contains(&byte)
}

/// The byte whose `%` was read.
pub(crate) fn escaped(rest: &mut std::str::Bytes<'_>) -> Option<u8> {
    let mut digit = || char::from(rest.next()?).to_digit(16);
    let (high, low) = (digit()?, digit()?);
    u8::try_from(high * 16 + low).ok()
}

/// Appends `%XX`.
pub(crate) fn push_escape(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "%{byte:02X}");
}
