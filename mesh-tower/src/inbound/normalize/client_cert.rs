//! `x-forwarded-client-cert`: what an application behind this server may believe about the client, as Envoy writes it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::identity::PeerIdentity;
use mesh_core::model::{ClientCertDetails, ForwardClientCert, ForwardClientCertMode};

use crate::inbound::TlsClient;

const HEADER: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Brings the header into the shape that the Listener asks for. Without a certificate only
/// [`AlwaysForwardOnly`](ForwardClientCertMode::AlwaysForwardOnly) leaves one.
pub(super) fn normalize(headers: &mut HeaderMap, rule: ForwardClientCert, client: &TlsClient) {
    use ForwardClientCertMode as Mode;
    match (rule.mode, &client.identity) {
        (Mode::AlwaysForwardOnly, _) | (Mode::ForwardOnly, Some(_)) => {
            // Several are one list, and whoever reads only the first would miss the nearer hops.
            if headers.get_all(HEADER).iter().nth(1).is_some() {
                put(headers, &said(headers));
            }
        }
        (Mode::Sanitize, _) | (_, None) => drop(headers.remove(HEADER)),
        (Mode::SanitizeSet, Some(identity)) => write(headers, Vec::new(), identity, client, rule.details),
        (Mode::AppendForward, Some(identity)) => {
            write(headers, said(headers), identity, client, rule.details);
        }
    }
}

/// What the client said, as one list.
fn said(headers: &HeaderMap) -> Vec<u8> {
    headers.get_all(HEADER).into_iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..])
}

fn put(headers: &mut HeaderMap, value: &[u8]) {
    match HeaderValue::from_bytes(value) {
        Ok(value) if !value.is_empty() => drop(headers.insert(HEADER, value)),
        // Names of a verified certificate are ASCII, so this is nobody's; but nothing is better than what is not ours.
        _ => drop(headers.remove(HEADER)),
    }
}

fn write(
    headers: &mut HeaderMap,
    mut said: Vec<u8>,
    identity: &PeerIdentity,
    client: &TlsClient,
    details: ClientCertDetails,
) {
    let own = element(identity, client, details);
    if !said.is_empty() && !own.is_empty() {
        said.push(b',');
    }
    said.extend(own.as_bytes());
    put(headers, &said);
}

/// Ours, in Envoy's order.
fn element(identity: &PeerIdentity, client: &TlsClient, details: ClientCertDetails) -> String {
    let mut parts: Vec<String> = client.shown_uris.iter().map(|uri| format!("By={uri}")).collect();
    if let Some(hash) = client.hash.as_deref().filter(|hash| !hash.is_empty()) {
        parts.push(format!("Hash={hash}"));
    }
    if details.cert
        && let Some(leaf) = identity.chain().first()
    {
        parts.push(format!("Cert=\"{}\"", pem(leaf)));
    }
    if details.chain {
        let chain: String = identity.chain().iter().map(|certificate| pem(certificate)).collect();
        parts.push(format!("Chain=\"{chain}\""));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", identity.subject()));
    }
    if details.uri {
        let uris = &identity.sans().uris;
        // The key is there even if there is nothing to say.
        let none = uris.is_empty().then(|| "URI=".to_owned());
        parts.extend(uris.iter().map(|uri| format!("URI={uri}")).chain(none));
    }
    if details.dns {
        parts.extend(identity.sans().dns.iter().map(|name| format!("DNS={name}")));
    }
    parts.join(";")
}

/// Percent-encoded, as it stands in a header.
fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = "-----BEGIN%20CERTIFICATE-----%0A".to_owned();
    for (index, letter) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            out.push_str("%0A");
        }
        match letter {
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            other => out.push(other),
        }
    }
    out + "%0A-----END%20CERTIFICATE-----%0A"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_core::identity::CertificateSource as _;

    use super::*;
    use crate::secure::testing::{Ca, Leaf, source};

    const SERVER: &str = "spiffe://mesh.test/ns/a/sa/server";
    const CLIENT: &str = "spiffe://mesh.test/ns/a/sa/client";

    fn client() -> TlsClient {
        let chain = source(&Ca::new(), &Leaf::workload(CLIENT)).identity().expect("it was set").chain.clone();
        TlsClient {
            identity: Some(PeerIdentity::from_verified_chain(chain).expect("a certificate")),
            server_name: None,
            hash: Some("00ff".into()),
            shown_uris: Arc::new([SERVER.to_owned()]),
        }
    }

    fn run(mode: ForwardClientCertMode, client: &TlsClient, said: &[&'static str]) -> Vec<String> {
        let details = ClientCertDetails { uri: true, ..ClientCertDetails::default() };
        let mut headers: HeaderMap = said.iter().map(|&said| (HEADER, HeaderValue::from_static(said))).collect();
        normalize(&mut headers, ForwardClientCert { mode, details }, client);
        headers.get_all(HEADER).into_iter().map(|value| value.to_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn each_mode_does_what_it_does_in_envoy() {
        use ForwardClientCertMode as Mode;
        const LIE: &str = "URI=spiffe://evil";
        let (known, nobody) = (client(), TlsClient::default());
        let own = format!("By={SERVER};Hash=00ff;URI={CLIENT}");
        let list = format!("{LIE},Hash=1");
        let both = format!("{list},{own}");
        for (mode, with, without) in [
            (Mode::Sanitize, vec![], vec![]),
            (Mode::ForwardOnly, vec![list.as_str()], vec![]),
            (Mode::AppendForward, vec![both.as_str()], vec![]),
            (Mode::SanitizeSet, vec![own.as_str()], vec![]),
            (Mode::AlwaysForwardOnly, vec![list.as_str()], vec![list.as_str()]),
        ] {
            assert_eq!(run(mode, &known, &[LIE, "Hash=1"]), with, "{mode:?}");
            assert_eq!(run(mode, &nobody, &[LIE, "Hash=1"]), without, "{mode:?}");
        }
        assert_eq!(run(Mode::AppendForward, &known, &[]), [own]);
    }

    #[test]
    fn a_certificate_in_a_header_has_no_character_that_ends_it() {
        let text = pem(&[0xfb, 0xff, 0xfe].repeat(20));
        assert!(
            text.starts_with("-----BEGIN%20CERTIFICATE-----%0A") && text.ends_with("%0A-----END%20CERTIFICATE-----%0A")
        );
        assert!(!text.contains(['+', '/', '=', ' ', '"', ';', ',']), "{text}");
        assert_eq!(text.matches("%0A").count(), 4, "lines of 64 letters");
    }
}
