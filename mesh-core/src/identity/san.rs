//! Subject alternative names: reading them from a certificate, and matching them (gRFC A29).

use std::net::IpAddr;

use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{Pattern, SanKind, SanMatch};

/// The subject alternative names of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sans {
    /// URIs.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// Names of other types that are text, each with its type in dotted decimal.
    pub others: Vec<(String, Vec<u8>)>,
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCertificate;

impl std::fmt::Display for BadCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the certificate or one of its subject alternative names cannot be read")
    }
}

impl std::error::Error for BadCertificate {}

impl Sans {
    /// Reads the names of the certificate in `der`.
    ///
    /// # Errors
    ///
    /// When the certificate or any of the names is malformed or not ASCII. Names may have control characters in them, and are
    /// never cut there; see [`is_plain`](Self::is_plain).
    pub fn read(der: &[u8]) -> Result<Self, BadCertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| BadCertificate)?;
        if !rest.is_empty() {
            return Err(BadCertificate);
        }
        Self::of(&certificate)
    }

    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, BadCertificate> {
        let mut sans = Self::default();
        let mut seen = false;
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            // Two lists of names are one too many: which of them counts is anyone's guess.
            if std::mem::replace(&mut seen, true) {
                return Err(BadCertificate);
            }
            for name in &names.general_names {
                sans.add(name)?;
            }
        }
        Ok(sans)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), BadCertificate> {
        match name {
            GeneralName::URI(uri) => self.uris.push(text(uri)?),
            GeneralName::DNSName(dns) => self.dns.push(text(dns)?),
            GeneralName::RFC822Name(email) => self.emails.push(text(email)?),
            GeneralName::IPAddress(bytes) => self.ips.push(address(bytes)?),
            GeneralName::OtherName(oid, value) => {
                self.others.extend(other(value).map(|value| (oid.to_id_string(), value)));
            }
            GeneralName::Invalid(..) => return Err(BadCertificate),
            _ => {}
        }
        Ok(())
    }

    /// Whether no name has a control character, such as NUL: one that two parsers read in two ways must not identify anyone of
    /// the mesh.
    pub fn is_plain(&self) -> bool {
        let names = self.uris.iter().chain(&self.dns).chain(&self.emails);
        names.flat_map(|name| name.bytes()).all(|byte| !byte.is_ascii_control())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.uris.is_empty()
            && self.dns.is_empty()
            && self.emails.is_empty()
            && self.ips.is_empty()
            && self.others.is_empty()
    }

    /// Whether one of the names matches one of `matchers`. No matcher takes every certificate (gRFC A29).
    pub fn match_any(&self, matchers: &[SanMatch]) -> bool {
        matchers.is_empty() || matchers.iter().any(|matcher| self.matches(matcher))
    }

    fn matches(&self, matcher: &SanMatch) -> bool {
        let wants = |kind: SanKind| matcher.kind.as_ref().is_none_or(|wanted| *wanted == kind);
        let text = |name: &String| !name.is_empty() && matcher.matcher.is_match(name.as_bytes());
        (wants(SanKind::Uri) && self.uris.iter().any(text))
            || (wants(SanKind::Dns) && self.dns.iter().any(|name| matches_dns(matcher, name)))
            || (wants(SanKind::Email) && self.emails.iter().any(text))
            || (wants(SanKind::IpAddress)
                && self.ips.iter().any(|ip| matcher.matcher.is_match(ip.to_string().as_bytes())))
            || matches!(&matcher.kind, Some(SanKind::OtherName(oid)) if self.others.iter().any(|(of, name)| {
                of.as_str() == &**oid && !name.is_empty() && matcher.matcher.is_match(name)
            }))
    }

    /// Whether a DNS name equals `host`, wildcards in the certificate included.
    pub fn match_dns(&self, host: &str) -> bool {
        self.dns.iter().any(|name| dns_equal(name, host))
    }
}

impl std::fmt::Display for Sans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names: Vec<String> = Vec::new();
        // Escaped: who wrote them may want to write into logs.
        names.extend(self.uris.iter().map(|uri| format!("URI:{}", uri.escape_default())));
        names.extend(self.dns.iter().map(|dns| format!("DNS:{}", dns.escape_default())));
        names.extend(self.emails.iter().map(|email| format!("email:{}", email.escape_default())));
        names.extend(self.ips.iter().map(|ip| format!("IP:{ip}")));
        names.extend(self.others.iter().map(|(oid, _)| format!("other:{oid}")));
        if names.is_empty() { f.write_str("no names") } else { f.write_str(&names.join(", ")) }
    }
}

/// An exact matcher sees a wildcard certificate as TLS does; the other kinds see the name as it is written.
fn matches_dns(matcher: &SanMatch, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    match &matcher.matcher.pattern {
        Pattern::Exact(wanted) => dns_equal(name, wanted),
        _ => matcher.matcher.is_match(name.as_bytes()),
    }
}

/// Case does not count; `*.` stands for one left-most label.
fn dns_equal(name: &str, wanted: &str) -> bool {
    if name.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let Some(suffix) = name.strip_prefix("*.") else { return false };
    let Some((label, rest)) = wanted.split_once('.') else { return false };
    !label.is_empty() && suffix.contains('.') && rest.eq_ignore_ascii_case(suffix)
}

fn text(name: &str) -> Result<String, BadCertificate> {
    if name.is_ascii() { Ok(name.to_owned()) } else { Err(BadCertificate) }
}

/// The text in another name's value. What is no text is nobody's name.
fn other(value: &[u8]) -> Option<Vec<u8>> {
    let whole = |der| Any::from_der(der).ok().filter(|(rest, _): &(&[u8], _)| rest.is_empty()).map(|(_, any)| any);
    let text = whole(whole(value).filter(|outer| outer.tag() == Tag(0))?.data)?;
    let kinds = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String, Tag::OctetString];
    kinds.contains(&text.tag()).then(|| text.data.to_vec())
}

fn address(bytes: &[u8]) -> Result<IpAddr, BadCertificate> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    <[u8; 16]>::try_from(bytes).map(Into::into).map_err(|_| BadCertificate)
}

#[cfg(test)]
mod tests {
    use crate::model::StringMatch;

    use super::*;

    fn exact(kind: Option<SanKind>, text: &str) -> SanMatch {
        SanMatch { kind, matcher: StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false } }
    }

    #[test]
    fn any_name_of_the_right_kind_may_match() {
        let sans = Sans {
            uris: vec!["spiffe://td/a".to_owned()],
            dns: vec!["*.example.com".to_owned(), "plain.test".to_owned()],
            emails: vec!["me@example.com".to_owned()],
            ips: vec!["2001:db8::1".parse().expect("an address")],
            others: vec![("1.2.3".to_owned(), b"alice@td".to_vec())],
        };
        for (kind, text, expected) in [
            (None, "spiffe://td/a", true),
            (Some(SanKind::Uri), "spiffe://td/a", true),
            (Some(SanKind::Dns), "spiffe://td/a", false),
            (Some(SanKind::Dns), "a.example.com", true),
            (Some(SanKind::Dns), "A.EXAMPLE.com", true),
            (Some(SanKind::Dns), "a.b.example.com", false),
            (Some(SanKind::Dns), ".example.com", false),
            (Some(SanKind::Dns), "PLAIN.test", true),
            (Some(SanKind::Email), "me@example.com", true),
            (Some(SanKind::OtherName("1.2.3".into())), "alice@td", true),
            (Some(SanKind::OtherName("1.2.3".into())), "bob@td", false),
            (Some(SanKind::OtherName("1.2.4".into())), "alice@td", false),
            (None, "alice@td", false),
            (Some(SanKind::IpAddress), "2001:db8::1", true),
            (Some(SanKind::IpAddress), "2001:db8:0::1", false),
        ] {
            assert_eq!(sans.match_any(&[exact(kind.clone(), text)]), expected, "{kind:?} {text}");
        }
        assert!(sans.match_any(&[]), "no matcher takes everything");
        assert!(!Sans::default().match_any(&[exact(None, "")]), "no name matches nothing");
        assert!(!Sans { uris: vec![String::new()], ..Sans::default() }.match_any(&[exact(None, "")]));
    }

    #[test]
    fn names_are_never_cut_at_a_nul_and_are_told_from_plain_ones() {
        let sans = Sans { uris: vec!["spiffe://td/a\0-evil".to_owned()], ..Sans::default() };
        assert!(!sans.is_plain());
        assert!(!sans.match_any(&[exact(Some(SanKind::Uri), "spiffe://td/a")]));
        assert_eq!(sans.to_string(), "URI:spiffe://td/a\\u{0}-evil");
        assert!(Sans { dns: vec!["a.test".to_owned()], ..Sans::default() }.is_plain());
    }

    #[test]
    fn another_name_is_its_text_and_nothing_else_is() {
        // [0] { UTF8String "a" }, [0] { IA5String "a" }, [0] { INTEGER 42 }, without its tag, and with more behind it.
        for (value, text) in [
            (&[0xa0, 3, 0x0c, 1, b'a'][..], Some(&b"a"[..])),
            (&[0xa0, 3, 0x16, 1, b'a'], Some(b"a")),
            (&[0xa0, 3, 0x02, 1, 42], None),
            (&[0x0c, 1, b'a'], None),
            (&[0xa0, 3, 0x0c, 1, b'a', 0], None),
            (&[0xa0, 5, 0x0c, 1, b'a', 5, 0], None),
        ] {
            assert_eq!(other(value).as_deref(), text, "{value:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(Sans::read(b"not a certificate"), Err(BadCertificate));
        assert!(text("ä").is_err() && address(&[1, 2, 3]).is_err());
    }
}
