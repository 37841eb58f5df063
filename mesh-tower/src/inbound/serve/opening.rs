//! A connection before it is HTTP's: until its first request's head is whole, or, in HTTP/2, what comes with its preface. Until then
//! it costs what its client has sent, and not HTTP's buffers.

use std::pin::pin;

use tokio::time::{Instant, timeout_at};

use super::ending;
use crate::frames::{Frames, kind};
use crate::inbound::early::Early;
use crate::inbound::identify::PeerInfo;
use crate::inbound::options::InboundLimits;
use crate::io::BoxStream;

/// How HTTP/2 begins. Until so much has come, nobody knows which HTTP it is.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection has become.
pub(super) struct Opened {
    pub(super) io: Early,
    pub(super) version: Version,
    /// When it must be gone, where it is drained already.
    pub(super) deadline: Option<Instant>,
}

/// Which HTTP it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Reads as far as it takes. None: the connection is over before its first request.
pub(super) async fn open(io: BoxStream, peer: &PeerInfo, room: usize) -> Option<Opened> {
    let options = peer.connection().slot.options();
    let mut io = Early::new(io);
    let mut head = Head::new(room);
    let mut ending = pin!(ending(peer, options.drain_grace));
    let (mut timing, mut deadline) = (Timing::new(), None::<Instant>);
    loop {
        if let Some(version) = head.version(io.seen()) {
            return Some(Opened { io, version, deadline });
        }
        let until = timing.limit(io.seen().len(), &options.limits);
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        tokio::select! {
            more = timeout_at(until, io.more()) => match more {
                Ok(Ok(true)) => {}
                Ok(_) => return None,
                Err(_) => {
                    tracing::debug!(target: "mesh", "closed a connection of {}: no request in time", peer.remote_addr());
                    return None;
                }
            },
            at = ending.as_mut(), if deadline.is_none() => {
                // What has begun may end.
                if io.seen().is_empty() {
                    return None;
                }
                deadline = Some(at);
            }
        }
    }
}

/// How long the client may take.
struct Timing {
    ready: Instant,
    /// When its first byte was there.
    begun: Option<Instant>,
}

impl Timing {
    fn new() -> Self {
        Self { ready: Instant::now(), begun: None }
    }

    /// Until when there must be more than these bytes. No request of HTTP/1.1 is shorter than the preface.
    fn limit(&mut self, seen: usize, limits: &InboundLimits) -> Instant {
        if seen > 0 {
            self.begun.get_or_insert_with(Instant::now);
        }
        match self.begun {
            Some(begun) if seen >= PREFACE.len() => begun + limits.header_timeout,
            _ => self.ready + limits.handshake_timeout,
        }
    }
}

/// Looks for the end of the first request's head.
struct Head {
    /// A head that has more bytes is whole enough: HTTP will refuse it.
    room: usize,
    /// So many bytes need not be looked at again.
    looked_at: usize,
    /// HTTP/2's frames, as far as they were looked at.
    frames: Frames,
    /// Whether there is a head among them, and what follows it has begun.
    headed: bool,
    followed: bool,
}

impl Head {
    fn new(room: usize) -> Self {
        Self { room, looked_at: 0, frames: Frames::default(), headed: false, followed: false }
    }

    /// What `seen` begins; None: it takes more to know.
    fn version(&mut self, seen: &[u8]) -> Option<Version> {
        let common = seen.len().min(PREFACE.len());
        if seen[..common] == PREFACE[..common] {
            return (common == PREFACE.len() && self.is_between_frames(seen)).then_some(Version::Http2);
        }
        (seen.len() > self.room || is_no_http(seen) || self.ends(seen)).then_some(Version::Http1)
    }

    /// Whether no frame is under way, up to the first head: between frames the client may wait for our SETTINGS.
    fn is_between_frames(&mut self, seen: &[u8]) -> bool {
        let Self { frames, headed, followed, .. } = self;
        let from = self.looked_at.max(PREFACE.len());
        frames.read(&seen[from..], |frame| {
            *followed |= *headed;
            *headed |= frame.kind == kind::HEADERS;
        });
        self.looked_at = seen.len();
        self.frames.is_between() || self.followed || seen.len() > self.room
    }

    /// Whether there is a line without a character after one that has some.
    fn ends(&mut self, seen: &[u8]) -> bool {
        let text = seen.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(seen.len());
        // An end may have begun in what was looked at.
        let from = self.looked_at.saturating_sub(2).max(text);
        self.looked_at = seen.len();
        let rest = &seen[from..];
        let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| &rest[at + 1..]);
        ends.any(|after| after.starts_with(b"\n") || after.starts_with(b"\r\n"))
    }
}

/// Whether nothing of HTTP begins so. HTTP says that at once: a client that speaks TLS here must not wait for an answer.
fn is_no_http(seen: &[u8]) -> bool {
    let first = seen.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_some_and(|first| !first.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 100;

    /// What is known at the earliest, and after how many bytes, however they come.
    fn known(bytes: &[u8]) -> Option<(Version, usize)> {
        let found = (1..=bytes.len()).map(|step| {
            let mut head = Head::new(ROOM);
            let mut ends = (step..=bytes.len()).step_by(step).chain([bytes.len()]);
            ends.find_map(|end| Some((head.version(&bytes[..end])?, end)))
        });
        let found: Vec<_> = found.collect();
        let earliest = found[0];
        for (index, later) in found.iter().enumerate() {
            let step = index + 1;
            let rounded = earliest.map(|(version, end)| (version, end.next_multiple_of(step).min(bytes.len())));
            assert_eq!(*later, rounded, "in pieces of {step}: {bytes:?}");
        }
        earliest
    }

    #[test]
    fn a_first_head_is_whole_at_its_empty_line() {
        for (bytes, end) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], 27),
            (b"GET / HTTP/1.0\r\n\r\nbody", 18),
            (b"GET / HTTP/1.0\n\nbody", 16),
            (b"GET / HTTP/1.0\n\r\nbody", 17),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 22),
            (b"PRI * HTTP/1.1\r\n\r\n", 18),
        ] {
            assert_eq!(known(bytes), Some((Version::Http1, end)), "{bytes:?}");
        }
        assert_eq!(known(b"GET / HTTP/1.1\r\nhost: a\r\n"), None);
        assert_eq!(known(b"\r\n\r\n"), None);
    }

    #[test]
    fn nobody_waits_for_the_head_of_what_is_no_http() {
        for (bytes, end) in [(&b"\x16\x03\x01\x02\x00"[..], 1), (b"\r\n\x80", 3), (b" GET / HTTP/1.1", 1)] {
            assert_eq!(known(bytes), Some((Version::Http1, end)), "{bytes:?}");
        }
    }

    #[test]
    fn http2_is_known_by_its_preface_and_what_is_too_long_is_left_to_http() {
        assert_eq!(known(PREFACE), Some((Version::Http2, PREFACE.len())));
        assert_eq!(known(&PREFACE[..23]), None);
        assert_eq!(known(&[b'a'; ROOM + 9]), Some((Version::Http1, ROOM + 1)));
    }

    /// What is handed over of these frames, all of which but the last byte come at once.
    fn handed_over(frames: &[&[u8]]) -> bool {
        let bytes = [&[PREFACE], frames].concat().concat();
        Head::new(ROOM).version(&bytes[..bytes.len() - 1]).is_some()
    }

    #[test]
    fn a_first_head_of_http2_is_waited_for_once_it_has_begun() {
        let settings = &b"\0\0\0\x04\0\0\0\0\0"[..];
        let head = &b"\0\0\x04\x01\x04\0\0\0\x01\x82\x86\x84\x81"[..];
        let data = &b"\0\0\x05\0\0\0\0\0\x01hello"[..];
        assert!(!handed_over(&[settings, head]), "its last byte is on its way");
        assert!(handed_over(&[settings, head, b"!"]), "it is whole");
        assert!(handed_over(&[settings, b"!"]), "the client may wait for our SETTINGS");
        assert!(handed_over(&[settings, head, data]), "bodies are the application's");
        let long = [&b"\0\x40\0\x01\x04\0\0\0\x01"[..], &[0; ROOM]].concat();
        assert!(handed_over(&[settings, &long]), "HTTP says what becomes of it");
        // Byte by byte it comes to the same.
        let (mut slow, bytes) = (Head::new(ROOM), [PREFACE, settings, &head[..6]].concat());
        let between = PREFACE.len() + settings.len();
        assert!((between + 1..=bytes.len()).all(|end| slow.version(&bytes[..end]).is_none()));
    }
}
