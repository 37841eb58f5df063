//! Request targets with a fragment, which HTTP/1 does not allow.
//!
//! hyper drops a fragment without a word, and Envoy answers 400. Where a request's line is plainly in sight, its `#` is made
//! a byte that hyper refuses, and hyper answers 400 too. Where it is not (HTTP/2, pipelined requests, a connection on which
//! a request had a body or an upgrade), the fragment is dropped: everyone still sees the same path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether all that comes from a client are heads of requests.
#[derive(Clone, Default)]
pub(crate) struct Heads {
    mixed: Arc<AtomicBool>,
}

impl Heads {
    /// A body or an upgraded stream comes, too.
    pub(super) fn mix(&self) {
        self.mixed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn only(&self) -> bool {
        !self.mixed.load(Ordering::Relaxed)
    }
}

/// What takes the `#`'s place: no request line may hold it.
const REFUSED: u8 = 0x01;

/// Spoils the request line that `bytes` begin with, if its target has a fragment.
pub(crate) fn refuse_fragment(bytes: &mut [u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let line = &mut bytes[..end];
    let Some(at) = line.iter().position(|byte| *byte == b'#') else { return };
    if is_request_line(line) {
        line[at] = REFUSED;
    }
}

/// `METHOD target HTTP/1.x`.
fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().is_some_and(|word| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase));
    let target = words.next().is_some_and(|word| !word.is_empty());
    let version = words.next().is_some_and(|word| matches!(word, b"HTTP/1.1" | b"HTTP/1.0"));
    method && target && version && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::refuse_fragment;

    #[test]
    fn only_the_fragment_of_a_request_line_is_touched() {
        let rows: [(&[u8], &[u8]); 6] = [
            (b"GET /a#b HTTP/1.1\r\nx: #\r\n\r\n", b"GET /a\x01b HTTP/1.1\r\nx: #\r\n\r\n"),
            (b"GET /a HTTP/1.1\r\nx: #\r\n\r\n", b"GET /a HTTP/1.1\r\nx: #\r\n\r\n"),
            (b"GET /a#b", b"GET /a#b"),
            (b"x: y#z HTTP/1.1\r\n", b"x: y#z HTTP/1.1\r\n"),
            (b"PRI * HTTP/2.0\r\n#", b"PRI * HTTP/2.0\r\n#"),
            (b"", b""),
        ];
        for (bytes, want) in rows {
            let mut bytes = bytes.to_vec();
            refuse_fragment(&mut bytes);
            assert_eq!(bytes, want);
        }
    }
}
