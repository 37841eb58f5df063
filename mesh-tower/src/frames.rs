//! HTTP/2 frames, told apart as they pass: what hyper and h2 keep to themselves can be read off their headers.

/// The length of a frame's header (RFC 9113, section 4.1).
const HEADER: usize = 9;

/// The types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// DATA and HEADERS: the last frame of its stream.
const END_STREAM: u8 = 0x1;
/// HEADERS and CONTINUATION: the last frame of its field block.
const END_HEADERS: u8 = 0x4;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its type.
    pub(crate) kind: u8,
    flags: u8,
    /// How many bytes its payload has.
    pub(crate) length: usize,
    /// Its stream; 0 is the connection.
    pub(crate) stream: u32,
}

impl Frame {
    /// Whether it ends its stream.
    pub(crate) fn ends_stream(self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// Whether more of its field block follows.
    pub(crate) fn is_head_to_be_continued(self) -> bool {
        self.is_head() && self.flags & END_HEADERS == 0
    }

    /// Whether it holds header fields.
    pub(crate) fn is_head(self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }
}

/// Where in a stream of frames we are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frames {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes left of the frame's payload.
    payload: usize,
}

impl Frames {
    /// Calls `saw` with each frame whose header is complete.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut saw: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skip = self.payload.min(bytes.len());
            self.payload -= skip;
            bytes = &bytes[skip..];
            let take = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled == HEADER {
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                // The first bit means nothing.
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.filled = 0;
                saw(Frame { kind, flags, length: self.payload, stream });
            }
        }
    }

    /// Whether the next byte begins a frame.
    pub(crate) fn is_between(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }

    /// Whether a frame's header has begun, and is not complete.
    pub(crate) fn is_in_header(&self) -> bool {
        self.filled > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SETTINGS with one setting, DATA of 300 bytes that look like GOAWAYs, PING, GOAWAY.
    fn stream() -> Vec<u8> {
        let mut bytes = vec![0, 0, 6, kind::SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        bytes.extend([0, 1, 44, 0, 1, 0, 0, 0, 1]);
        bytes.extend([kind::GOAWAY; 300]);
        bytes.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        for cut in 1..40 {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for bytes in stream().chunks(cut) {
                frames.read(bytes, |frame| seen.push((frame.kind, frame.length, frame.stream, frame.ends_stream())));
            }
            assert!(frames.is_between());
            let want = [
                (kind::SETTINGS, 6, 0, false),
                (kind::DATA, 300, 1, true),
                (6, 8, 0, false),
                (kind::GOAWAY, 8, 0, false),
            ];
            assert_eq!(seen, want, "cut into {cut}");
        }
    }
}
