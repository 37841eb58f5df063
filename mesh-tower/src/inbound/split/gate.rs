//! Holds back a connection's requests while the inbound layer is nowhere, and its first response until the layer has seen
//! a request of it.

use std::io::{self, IoSlice};

use mesh_core::error::{Code, Error};

use super::Half;
use crate::frames::{Frames, kind::HEADERS};
use crate::inbound::identify::Connection;

/// What a server has written so far on a connection that the layer has seen nothing of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gate {
    /// Nothing.
    Start,
    /// An HTTP/1 response.
    Http1,
    /// HTTP/2 frames.
    Frames(Frames),
    /// The layer has seen a request: everything passes.
    Open,
}

impl Gate {
    /// Whether a request may be read: not while the layer is around no service at all.
    pub(super) fn check_read(&self, half: &Half) -> io::Result<()> {
        if matches!(self, Self::Open) || half.is_installed() {
            return Ok(());
        }
        refuse(half, "the listener of split() is used without the inbound layer")
    }

    /// Whether `slices` may be written.
    pub(super) fn check(&mut self, connection: &Connection, half: &Half, slices: &[IoSlice<'_>]) -> io::Result<()> {
        if matches!(self, Self::Open) {
            return Ok(());
        }
        if connection.is_seen() {
            *self = Self::Open;
            return Ok(());
        }
        // What is tried again after a short write is checked again; a response is one write as long as it is small.
        let mut gate = *self;
        let responds = slices.iter().any(|slice| {
            let (after, found) = gate.after(slice);
            gate = after;
            found
        });
        if !responds || half.take_refusal() {
            return Ok(());
        }
        refuse(half, "a request was answered that the inbound layer has not seen")
    }

    /// The first `count` bytes of `slices` were written.
    pub(super) fn wrote(&mut self, slices: &[IoSlice<'_>], mut count: usize) {
        if matches!(self, Self::Open) {
            return;
        }
        for slice in slices {
            let written = count.min(slice.len());
            *self = self.after(&slice[..written]).0;
            count -= written;
        }
    }

    /// The state after `bytes`, and whether a response is among them.
    fn after(self, bytes: &[u8]) -> (Self, bool) {
        match self {
            Self::Start if bytes.is_empty() => (self, false),
            // An HTTP/1 response starts with `HTTP/`. As a frame's length that would be 4.7 MB, far over the default limit.
            Self::Start if bytes[0] == b'H' => (Self::Http1, true),
            Self::Start => Self::Frames(Frames::default()).after(bytes),
            Self::Http1 => (self, !bytes.is_empty()),
            Self::Frames(mut frames) => {
                let mut found = false;
                frames.read(bytes, |frame| found |= frame.kind == HEADERS);
                (Self::Frames(frames), found)
            }
            Self::Open => (self, false),
        }
    }
}

fn refuse(half: &Half, why: &str) -> io::Result<()> {
    let error = Error::new(Code::HALF_SERVER, why)
        .with_next_step("install the layer of split() outside of everything that answers, after all routes are added");
    half.complain(&error);
    Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
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
