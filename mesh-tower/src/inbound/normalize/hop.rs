//! What HTTP/1 says about one connection goes no further than that connection (RFC 9110 7.6.1), as Envoy has it.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, request};
use hyper::ext::Protocol;
use mesh_core::error::Error;

use super::{Refusal, bad};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const TO_HTTP2: &[u8] = b"h2c";
/// How `upgrade_configs` call a CONNECT.
const TUNNEL: &[u8] = b"CONNECT";

/// So many headers can a client have taken out: fewer than Envoy's 10.
const MOST_NAMED: usize = 9;
/// A `te` that is named must be shorter.
const LONGEST_TE: usize = 256;

/// What nobody can have taken out: it would hide where a request comes from.
const NOT_TO_NAME: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// The upgrades that are allowed: the Listener's, and the application's.
type Allowed<'a> = [&'a [Box<str>]; 2];

/// Takes out what is for this hop alone, and refuses upgrades that nobody allows.
pub(super) fn normalize(request: &mut request::Parts, allowed: &[&Vec<Box<str>>; 2]) -> Result<(), Box<Refusal>> {
    let allowed: Allowed<'_> = [allowed[0], allowed[1]];
    let headers = &mut request.headers;
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(bad("the request says its length twice").into());
    }
    // Whoever waits for a go-ahead gets it from the server, once the application reads.
    if headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(EXPECT);
    }
    let protocol = request.extensions.get::<Protocol>();
    // What goes through a tunnel is under no policy, just as what comes after an upgrade.
    if request.method == Method::CONNECT && protocol.is_none() {
        check_upgrade(TUNNEL, allowed)?;
    }
    if request.version == Version::HTTP_2 {
        // The rest of what is below has no place in HTTP/2, and h2 refuses it.
        return protocol.map_or(Ok(()), |protocol| extended_connect(headers, protocol, allowed));
    }
    encoding(headers)?;
    let upgrades = named(headers)?;
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if upgrades && headers.get_all(UPGRADE).iter().nth(1).is_some() {
        // Whoever reads the other one would do what nobody has allowed.
        return Err(Refusal::with_status(bad("the request has several upgrade headers"), StatusCode::FORBIDDEN));
    }
    let to = headers.get(UPGRADE).filter(|_| upgrades);
    match to.filter(|to| !to.as_bytes().eq_ignore_ascii_case(TO_HTTP2)) {
        Some(to) => {
            check_upgrade(to.as_bytes(), allowed)?;
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        None => {
            if to.is_some() {
                headers.remove(HTTP2_SETTINGS);
            }
            headers.remove(UPGRADE);
            headers.remove(CONNECTION);
            te(headers);
        }
    }
    Ok(())
}

/// An extended CONNECT (RFC 8441) is an upgrade, and policies see it as the one of HTTP/1 that it is, as Envoy's codec
/// makes it: the method is `GET` ([`method_of`]), and these are its headers.
fn extended_connect(headers: &mut HeaderMap, protocol: &Protocol, allowed: Allowed<'_>) -> Result<(), Box<Refusal>> {
    check_upgrade(protocol.as_str().as_bytes(), allowed)?;
    let to = HeaderValue::from_bytes(protocol.as_str().as_bytes()).map_err(|_| bad(":protocol can't be a header"))?;
    headers.insert(UPGRADE, to);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    Ok(())
}

/// The method as policies see it: a rule about `GET` is about an upgrade over either version of HTTP.
pub(crate) fn method_of(request: &request::Parts) -> &Method {
    static GET: Method = Method::GET;
    let upgrades = request.method == Method::CONNECT && request.extensions.get::<Protocol>().is_some();
    if upgrades { &GET } else { &request.method }
}

/// Takes out what only policies see of an extended CONNECT: in HTTP/2 no request has such headers.
pub(crate) fn restore<B>(request: &mut Request<B>) {
    if *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some() {
        request.headers_mut().remove(UPGRADE);
        request.headers_mut().remove(CONNECTION);
    }
}

/// What an HTTP/1 request asks its connection to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// What `upgrade` says.
    Upgrade,
    /// A tunnel.
    Connect,
}

impl Asked {
    /// What `request` asks for. Nobody upgrades to HTTP/2 here.
    pub(crate) fn of(request: &request::Parts) -> Option<Self> {
        let mut upgrades = request.headers.get_all(UPGRADE).iter();
        match request.version {
            Version::HTTP_2 => None,
            _ if request.method == Method::CONNECT => Some(Self::Connect),
            _ => upgrades.any(|to| !to.as_bytes().eq_ignore_ascii_case(TO_HTTP2)).then_some(Self::Upgrade),
        }
    }

    /// Whether `status` grants it.
    pub(crate) fn is_granted(self, status: StatusCode) -> bool {
        match self {
            Self::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Connect => status.is_success(),
        }
    }
}

fn check_upgrade(to: &[u8], allowed: Allowed<'_>) -> Result<(), Box<Refusal>> {
    if allowed.iter().copied().flatten().any(|known| known.as_bytes().eq_ignore_ascii_case(to)) {
        return Ok(());
    }
    let text = format!("an upgrade to {:?} is not among upgrade_configs", String::from_utf8_lossy(to));
    Err(Refusal::with_status(bad(text), StatusCode::FORBIDDEN))
}

/// One reader's way to find the end of a body must be everybody's.
fn encoding(headers: &mut HeaderMap) -> Result<(), Box<Refusal>> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = values.next() else { return Ok(()) };
    if values.next().is_some() || !first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::with_status(bad("a transfer encoding that is not chunked"), StatusCode::NOT_IMPLEMENTED));
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("the request has both a length and a transfer encoding").into());
    }
    headers.remove(TRANSFER_ENCODING);
    Ok(())
}

/// Takes out what `connection` names; whether it says `upgrade`.
fn named(headers: &mut HeaderMap) -> Result<bool, Error> {
    if !headers.contains_key(CONNECTION) {
        return Ok(false);
    }
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    let mut options = values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut upgrades = false;
    for option in options.by_ref().take(MOST_NAMED).map(<[u8]>::trim_ascii) {
        match option.to_ascii_lowercase().as_slice() {
            b"upgrade" => upgrades = true,
            b"" | b"close" | b"connection" => {}
            b"te" => named_te(headers)?,
            name => {
                if name.contains(&b':') || NOT_TO_NAME.iter().any(|kept| kept.as_bytes() == name) {
                    return Err(bad(
                        "connection names a header that says whom a request is for or where it comes from",
                    ));
                }
                if let Ok(name) = HeaderName::from_bytes(name) {
                    headers.remove(name);
                }
            }
        }
    }
    match options.next() {
        Some(_) => Err(bad("connection names too many headers")),
        None => Ok(upgrades),
    }
}

/// Of a `te` that `connection` names, `trailers` stays.
fn named_te(headers: &mut HeaderMap) -> Result<(), Error> {
    let Some(said) = headers.get(TE) else { return Ok(()) };
    if said.len() >= LONGEST_TE {
        return Err(bad("te is too long"));
    }
    if options_of(said).any(|option| option.eq_ignore_ascii_case(TRAILERS.as_bytes())) {
        headers.insert(TE, TRAILERS);
    } else {
        headers.remove(TE);
    }
    Ok(())
}

/// The only thing that `te` can say to the next hop, and what gRPC says in each request.
fn te(headers: &mut HeaderMap) {
    let Some(said) = headers.get(TE).filter(|said| **said != TRAILERS && !said.is_empty()) else { return };
    if options_of(said).any(|option| option == TRAILERS.as_bytes()) {
        headers.insert(TE, TRAILERS);
    } else {
        headers.remove(TE);
    }
}

fn options_of(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers, and what is left of them.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

    /// What is left of the headers, or the status of the refusal.
    fn run(headers: &[(&str, &str)]) -> Result<Vec<String>, u16> {
        let mut builder = http::Request::builder().version(Version::HTTP_11);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let mut parts = builder.body(()).unwrap().into_parts().0;
        let allowed = (vec!["websocket".into()], vec!["mine".into()]);
        normalize(&mut parts, &[&allowed.0, &allowed.1]).map_err(|refusal| refusal.reply.status.as_u16())?;
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        Ok(parts.headers.iter().map(line).collect())
    }

    #[test]
    fn what_is_said_of_the_connection_ends_here() {
        let rows: &[Row<'_>] = &[
            (&[("proxy-connection", "keep-alive"), ("keep-alive", "timeout=5"), ("connection", "close")], &[]),
            (&[("connection", "X-Secret, close"), ("x-secret", "1"), ("x-other", "2")], &["x-other: 2"]),
            (&[("connection", "a"), ("connection", "b"), ("a", "1"), ("b", "2")], &[]),
            (&[("connection", "authorization"), ("authorization", "b")], &[]),
            (&[("transfer-encoding", "Chunked")], &[]),
            (&[("expect", "100-Continue")], &[]),
            (&[("expect", "other")], &["expect: other"]),
            (&[("upgrade", "h2c"), ("connection", "upgrade, http2-settings"), ("http2-settings", "A")], &[]),
            (&[("upgrade", "websocket")], &[]),
        ];
        for (headers, want) in rows {
            assert_eq!(run(headers).unwrap(), *want, "{headers:?}");
        }
    }

    #[test]
    fn a_client_names_nothing_that_says_who_it_is() {
        for name in ["host", "X-Forwarded-For", "x-forwarded-host", "x-forwarded-proto", ":path"] {
            assert_eq!(run(&[("connection", name), ("x-forwarded-for", "10.0.0.1")]), Err(400), "{name}");
        }
        assert_eq!(run(&[("connection", "a,b,c,d,e,f,g,h,i"), ("a", "1")]), Ok(vec![]));
        assert_eq!(run(&[("connection", "a,b,c,d,e,f,g,h,i,j"), ("a", "1")]), Err(400));
    }

    #[test]
    fn te_says_trailers_or_nothing() {
        let long = "a".repeat(256);
        let rows = [
            ("trailers", Ok(true), Ok(true)),
            ("gzip, trailers", Ok(true), Ok(true)),
            ("gzip", Ok(false), Ok(false)),
            ("trailers;q=0.5", Ok(false), Ok(false)),
            ("TRAILERS", Ok(false), Ok(true)),
            (&long, Ok(false), Err(400)),
        ];
        for (te, alone, when_named) in rows {
            let want = |kept: Result<bool, u16>| {
                kept.map(|kept| if kept { vec!["te: trailers".to_owned()] } else { Vec::new() })
            };
            assert_eq!(run(&[("te", te)]), want(alone), "{te}");
            assert_eq!(run(&[("te", te), ("connection", "te")]), want(when_named), "{te}, named");
        }
    }

    #[test]
    fn bodies_end_in_one_way() {
        for encoding in ["gzip, chunked", "chunked, chunked", "chunked;q=1", "identity", ""] {
            assert_eq!(run(&[("transfer-encoding", encoding)]), Err(501), "{encoding}");
        }
        assert_eq!(run(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]), Err(501));
        assert_eq!(run(&[("content-length", "1"), ("transfer-encoding", "chunked")]), Err(400));
        assert_eq!(run(&[("content-length", "1"), ("content-length", "1")]), Err(400));
    }

    #[test]
    fn only_upgrades_that_are_allowed_pass() {
        let to = |name| run(&[("upgrade", name), ("connection", "Upgrade, x"), ("x", "1")]);
        for name in ["websocket", "WebSocket", "mine"] {
            assert_eq!(to(name), Ok(vec![format!("upgrade: {name}"), "connection: upgrade".to_owned()]), "{name}");
        }
        for name in ["h2c, websocket", "TLS/1.0", "", "websocket2"] {
            assert_eq!(to(name), Err(403), "{name}");
        }
    }

    #[test]
    fn one_upgrade_is_asked_for_at_a_time() {
        for second in ["other", "websocket", "h2c"] {
            for pair in [["websocket", second], [second, "websocket"]] {
                let both = [("connection", "upgrade"), ("upgrade", pair[0]), ("upgrade", pair[1])];
                assert_eq!(run(&both), Err(403), "{pair:?}");
                assert_eq!(run(&both[1..]), Ok(vec![]), "nobody asks: {pair:?}");
            }
        }
    }

    #[test]
    fn a_tunnel_must_be_allowed() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for (allowed, want) in [("", Err(403)), ("websocket", Err(403)), ("connect", Ok(()))] {
                let request = http::Request::connect("a.test:1").version(version).body(()).unwrap();
                let done = normalize(&mut request.into_parts().0, &[&vec![allowed.into()], &Vec::new()]);
                assert_eq!(done.map_err(|refusal| refusal.reply.status.as_u16()), want, "{version:?} {allowed:?}");
            }
        }
    }

    #[test]
    fn an_extended_connect_is_an_upgrade() {
        let run = |protocol: &'static str| {
            let request = http::Request::connect("http://a.test/chat").version(Version::HTTP_2);
            let mut parts = request.body(()).unwrap().into_parts().0;
            parts.extensions.insert(Protocol::from_static(protocol));
            normalize(&mut parts, &[&vec!["websocket".into()], &Vec::new()]).map(|()| parts)
        };
        assert_eq!(run("connect-udp").map_err(|refusal| refusal.reply.status.as_u16()).err(), Some(403));
        let parts = run("websocket").unwrap();
        assert_eq!((method_of(&parts), parts.headers["upgrade"].as_bytes()), (&Method::GET, &b"websocket"[..]));
        let mut request = Request::from_parts(parts, ());
        restore(&mut request);
        assert_eq!((request.method(), request.headers().len()), (&Method::CONNECT, 0), "the application sees CONNECT");
    }
}
