//! What the first bytes of a connection say, looked at and put back: TLS or not, and for whom.
//!
//! Only where the Listener's `listener_filters` ask for it. A client has a deadline for the few bytes that are needed, and is held
//! to a number of them, so that whoever dribbles holds nothing but a place among the handshakes.

use std::io;
use std::sync::Arc;

use mesh_core::chain::FirstBytes;
use mesh_core::error::{Code, Error};
use mesh_core::model::Inspection;

use super::config::{HelloReader, InboundTls};
use super::early::Early;
use crate::io::BoxStream;

/// The first byte of TLS: a record of a handshake.
const HANDSHAKE: u8 = 22;
/// HTTP/2's preface, until its first line's end. No other client sends it.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
/// The longest request line that is looked for: Envoy's.
const LONGEST_LINE: usize = 8 * 1024;
/// The most bytes of a record of TLS before there are keys (RFC 8446, section 5.1).
const LONGEST_RECORD: usize = 16 * 1024;

/// Reads until it is known what the client speaks.
///
/// # Errors
///
/// [`Code::HANDSHAKE`]: the client hung up, or begins TLS with what is no ClientHello, or with one that is too long.
pub(crate) async fn sniff(
    io: BoxStream,
    inspection: &Inspection,
    tls: &Arc<dyn InboundTls>,
) -> Result<(BoxStream, FirstBytes), Error> {
    let mut early = Early::new(io);
    let mut hello = None;
    loop {
        if let Some(first) = understand(early.seen(), inspection, tls, &mut hello)? {
            return Ok((Box::new(early), first));
        }
        let more = early.more().await;
        if !more.map_err(|error| Error::new(Code::HANDSHAKE, format!("the client is gone: {error}")))? {
            return Err(Error::new(Code::HANDSHAKE, "the client hung up before it said what it speaks"));
        }
    }
}

/// Reads until the client's first record of TLS is whole, or it is clear that there will be none: what to make of it is the
/// handshake's to say.
///
/// # Errors
///
/// The connection is broken.
pub(crate) async fn first_record(io: BoxStream) -> io::Result<BoxStream> {
    let mut early = Early::new(io);
    while !record_is_whole(early.seen()) && early.more().await? {}
    Ok(Box::new(early))
}

/// Whether there is a whole record, or something that can't become one.
fn record_is_whole(seen: &[u8]) -> bool {
    match seen {
        [HANDSHAKE, _, _, high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            length > LONGEST_RECORD || rest.len() >= length
        }
        [] | [HANDSHAKE, ..] => false,
        _ => true,
    }
}

/// What `seen` says; None: more is needed.
fn understand(
    seen: &[u8],
    inspection: &Inspection,
    tls: &Arc<dyn InboundTls>,
    hello: &mut Option<(HelloReader, usize)>,
) -> Result<Option<FirstBytes>, Error> {
    let Some(first) = seen.first() else { return Ok(None) };
    if inspection.tls && *first == HANDSHAKE {
        if !record_is_whole(seen) && seen.len() <= inspection.max_client_hello {
            return Ok(None);
        }
        let (reader, fed) = hello.get_or_insert_with(|| (tls.hello_reader(), 0));
        let new = &seen[*fed..];
        *fed = seen.len();
        return match reader(new)? {
            None if seen.len() > inspection.max_client_hello => {
                let most = inspection.max_client_hello;
                Err(Error::new(Code::HANDSHAKE, format!("the client's ClientHello has more than {most} bytes")))
            }
            found => Ok(found),
        };
    }
    if !inspection.http {
        return Ok(Some(FirstBytes::default()));
    }
    Ok(http(seen).map(|protocol| FirstBytes {
        protocols: protocol.map(str::to_owned).into_iter().collect(),
        ..FirstBytes::default()
    }))
}

/// Which HTTP the bytes begin, by the names that Envoy's `http_inspector` has for them. The inner None: none at all. The outer:
/// more is needed.
fn http(seen: &[u8]) -> Option<Option<&'static str>> {
    let begins = &HTTP2[..seen.len().min(HTTP2.len())];
    if seen.starts_with(begins) {
        return (begins.len() == HTTP2.len()).then_some(Some("h2c"));
    }
    let is_method = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    let method = seen.iter().position(|byte| !is_method(byte)).unwrap_or(seen.len());
    if method == 0 || seen.get(method).is_some_and(|byte| *byte != b' ') {
        return Some(None);
    }
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return (seen.len() > LONGEST_LINE).then_some(None);
    };
    let line = &seen[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(match line.rsplit(|byte| *byte == b' ').next() {
        Some(b"HTTP/1.1") => Some("http/1.1"),
        Some(b"HTTP/1.0") => Some("http/1.0"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_known_by_its_first_line_however_it_is_cut() {
        for (bytes, protocol) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Some("h2c")),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some("http/1.1")),
            (b"M-SEARCH * HTTP/1.0\n", Some("http/1.0")),
            (b"PRINT / HTTP/1.1\r\n", Some("http/1.1")),
            (b"GET / HTTP/3\r\n", None),
            (b"GET\r\n", None),
            (b"\x00\x01", None),
            (b" / HTTP/1.1\r\n", None),
        ] {
            assert_eq!(http(bytes), Some(protocol), "{bytes:?}");
            let known = (0..=bytes.len()).find_map(|end| if end == 0 { None } else { http(&bytes[..end]) });
            assert_eq!(known, Some(protocol), "as soon as it is known it is right: {bytes:?}");
        }
        assert_eq!(http(b"GET /"), None);
        assert_eq!(http(&[b"GET /".as_slice(), &vec![b'a'; LONGEST_LINE]].concat()), Some(None), "lines have an end");
    }

    #[test]
    fn a_handshake_begins_with_a_whole_record_or_with_none() {
        let record = [&[HANDSHAKE, 3, 1, 0, 3][..], b"abc"].concat();
        for end in 0..record.len() {
            assert!(!record_is_whole(&record[..end]), "{end}");
        }
        assert!(record_is_whole(&record));
        assert!(record_is_whole(b"G"), "nobody waits for the rest of what is no TLS");
        assert!(record_is_whole(&[HANDSHAKE, 3, 1, 255, 255]), "nor of what no record may have");
    }
}
