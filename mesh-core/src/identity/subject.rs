//! A certificate's subject as text: RFC 2253, the last name first, as OpenSSL and so Envoy and gRPC write it.

use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::AttributeTypeAndValue;

/// The subject of a certificate.
pub(super) fn of(certificate: &X509Certificate<'_>) -> String {
    let mut names: Vec<String> = Vec::new();
    for set in certificate.subject().iter_rdn() {
        let parts: Vec<String> = set.iter().map(attribute).collect();
        names.push(parts.join("+"));
    }
    names.reverse();
    names.join(",")
}

/// What has no name or is no text is written as its type's number and its bytes, so that it can't be taken for another.
fn attribute(value: &AttributeTypeAndValue<'_>) -> String {
    let name = oid2abbrev(value.attr_type(), oid_registry()).ok();
    let is_text = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String].contains(&value.attr_value().tag());
    let text = std::str::from_utf8(value.attr_value().data).ok().filter(|_| is_text);
    match (name, text) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(text)),
        (name, _) => {
            let mut out = name.map_or_else(|| value.attr_type().to_id_string(), str::to_owned);
            out.push_str("=#");
            for byte in value.attr_value().data {
                let _ = write!(out, "{byte:02X}");
            }
            out
        }
    }
}

/// RFC 2253, section 2.4; bytes outside of printable ASCII by their number, as OpenSSL does by default.
fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';');
        let at_the_edge = (byte == b'#' && index == 0) || (byte == b' ' && (index == 0 || index == last));
        if special || at_the_edge {
            out.push('\\');
            out.push(char::from(byte));
        } else if matches!(byte, b' '..=b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_read_as_another_name_is_escaped() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,CN=admin", "a\\,CN=admin"),
            ("a+b\"c\\d<e>f;g", "a\\+b\\\"c\\\\d\\<e\\>f\\;g"),
            ("#a#", "\\#a#"),
            (" a b ", "\\ a b\\ "),
            ("é\n", "\\C3\\A9\\0A"),
            ("", ""),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
