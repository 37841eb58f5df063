//! Holds back a connection's first response until the inbound layer has seen a request of it.

use std::io;

use mesh_core::error::{Code, Error};

use super::Half;
use crate::inbound::identify::Connection;

/// HTTP/2's frame type of a response's head.
const HEADERS: u8 = 1;
/// The length of an HTTP/2 frame's header.
const FRAME_HEADER: usize = 9;

/// What a server has written so far on a connection that the layer has seen nothing of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gate {
    /// Nothing.
    Start,
    /// An HTTP/1 response.
    Http1,
    /// HTTP/2 frames: bytes of the current frame's header, and how much of its payload is still to come.
    Frames { header: [u8; FRAME_HEADER], have: usize, payload: usize },
    /// The layer has seen a request: everything passes.
    Open,
}

impl Gate {
    /// Whether `bytes` may be written.
    pub(super) fn check(&mut self, connection: &Connection, half: &Half, bytes: &[u8]) -> io::Result<()> {
        if matches!(self, Self::Open) {
            return Ok(());
        }
        if connection.is_seen() {
            *self = Self::Open;
            return Ok(());
        }
        // What is tried again after a short write is checked again; a response is one write as long as it is small.
        if !self.after(bytes).1 || half.take_refusal() {
            return Ok(());
        }
        let error = Error::new(Code::HALF_SERVER, "a request was answered that the inbound layer has not seen")
            .with_next_step("install the layer outside of everything that answers, after all routes are added");
        tracing::warn!(target: "mesh", "{error}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
    }

    /// `bytes` were written.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        if !matches!(self, Self::Open) {
            *self = self.after(bytes).0;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// The state after `bytes`, and whether a response is among them.
    fn after(self, bytes: &[u8]) -> (Self, bool) {
        let empty = Self::Frames { header: [0; FRAME_HEADER], have: 0, payload: 0 };
        match self {
            Self::Start if bytes.is_empty() => (self, false),
            // An HTTP/1 response starts with `HTTP/`. As a frame's length that would be 4.7 MB, far over the default limit.
            Self::Start if bytes[0] == b'H' => (Self::Http1, true),
            Self::Start => empty.after(bytes),
            Self::Http1 => (self, !bytes.is_empty()),
            Self::Frames { header, have, payload } => frames(header, have, payload, bytes),
            Self::Open => (self, false),
        }
    }
}

fn frames(mut header: [u8; FRAME_HEADER], mut have: usize, mut payload: usize, mut bytes: &[u8]) -> (Gate, bool) {
    let mut found = false;
    while !bytes.is_empty() {
        let skip = payload.min(bytes.len());
        payload -= skip;
        bytes = &bytes[skip..];
        let take = if payload == 0 { bytes.len().min(FRAME_HEADER - have) } else { 0 };
        header[have..have + take].copy_from_slice(&bytes[..take]);
        have += take;
        bytes = &bytes[take..];
        if have == FRAME_HEADER {
            payload = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            found |= header[3] == HEADERS;
            have = 0;
        }
    }
    (Gate::Frames { header, have, payload }, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of `kind` with `length` bytes of payload, all of them the type of a response's head.
    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend(std::iter::repeat_n(HEADERS, usize::from(length)));
        bytes
    }

    fn finds(chunks: &[&[u8]]) -> bool {
        let mut gate = Gate::Start;
        chunks.iter().any(|chunk| {
            let (next, found) = gate.after(chunk);
            gate = next;
            found
        })
    }

    #[test]
    fn an_http1_response_is_seen_at_once() {
        assert!(finds(&[b"HTTP/1.1 200 OK\r\n"]));
        assert!(finds(&[b"H"]));
    }

    #[test]
    fn an_http2_response_is_told_from_other_frames_however_it_is_cut() {
        let quiet = [frame(4, 18), frame(8, 4), frame(4, 0), frame(6, 8)].concat();
        let loud = [quiet.clone(), frame(HEADERS, 3)].concat();
        for size in 1..loud.len() {
            assert!(!finds(&quiet.chunks(size).collect::<Vec<_>>()), "{size}");
            assert!(finds(&loud.chunks(size).collect::<Vec<_>>()), "{size}");
        }
    }
}
