//! HTTP/1 heads on their way to hyper, which forgives what another reader of the same bytes may understand otherwise.
//!
//! hyper drops without a word a fragment of the request's target, a second `content-length`, and `content-length` beside
//! `transfer-encoding`. Envoy answers 400 to each; the last two are how requests are smuggled past a proxy (RFC 9112 6.1, 6.3).
//! So the bytes of a connection are followed as far as it takes to know where heads begin. Where a head does one of these, one
//! byte is made one that no head may hold, and hyper answers 400.
//!
//! Should this and hyper ever disagree about where a message ends, hyper's word counts: no byte is held back or let through
//! that would not have been anyway. A connection that becomes HTTP/2, or may become something else by an upgrade, is not
//! followed further; when an upgrade is not granted, the connection ends with its response.

use std::ops::ControlFlow;

/// What takes a byte's place: no head may hold it.
const REFUSED: u8 = 0x01;

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the longest name that matters, and one more to tell when a name is longer.
const WORD: usize = "transfer-encoding".len() + 1;

/// Follows the bytes of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    at: At,
    word: [u8; WORD],
    length: usize,
    message: Message,
}

/// What is known of the message that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Message {
    /// The end of its body is said.
    framed: bool,
    chunked: bool,
    length: u64,
    /// It asks for the connection to become something else.
    upgrades: bool,
}

/// A place in the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many bytes of HTTP/2's preface have come.
    Start(usize),
    /// The request line, or the empty lines before it.
    Line,
    /// The name of a header, from its first byte.
    Name,
    Value(Field),
    /// So many bytes of the body are to come.
    Body(u64),
    /// The size of a chunk, as far as it has come.
    Size(u64),
    /// What follows the size.
    Extension(u64),
    Chunk(u64),
    /// The end of the line after a chunk.
    ChunkEnd,
    /// Whether this line of trailers is empty so far.
    Trailer(bool),
    /// Nothing more is followed.
    Off,
}

/// The headers that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Length,
    Encoding,
    Upgrade,
    Other,
}

impl Heads {
    pub(crate) fn new() -> Self {
        Self { at: At::Start(0), word: [0; WORD], length: 0, message: Message::default() }
    }

    /// Follows what has just been read.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = match &mut self.at {
                At::Off => return,
                At::Body(left) | At::Chunk(left) => {
                    let skip = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= skip as u64;
                    skip
                }
                At::Value(Field::Other) | At::ChunkEnd | At::Extension(_) => {
                    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
                }
                _ => 0,
            };
            rest = &mut rest[skipped..];
            match self.at {
                At::Body(0) => self.at = At::Line,
                At::Chunk(0) => self.at = At::ChunkEnd,
                At::Body(_) | At::Chunk(_) => {}
                _ => {
                    let Some((byte, after)) = rest.split_first_mut() else { return };
                    if self.step(*byte).is_break() {
                        *byte = REFUSED;
                        self.at = At::Off;
                    }
                    rest = after;
                }
            }
        }
    }

    /// One byte; a break refuses it.
    fn step(&mut self, byte: u8) -> ControlFlow<()> {
        match self.at {
            At::Start(have) => return self.start(have, byte),
            At::Line => return self.line(byte),
            At::Name => return self.name(byte),
            At::Value(field) if byte == b'\n' => self.end_value(field),
            At::Value(_) => self.push(byte),
            At::Size(size) => self.at = next_size(size, byte),
            At::Extension(size) if byte == b'\n' => self.at = after_size(size),
            At::ChunkEnd if byte == b'\n' => self.at = At::Size(0),
            At::Trailer(true) if byte == b'\n' => self.at = At::Line,
            At::Trailer(empty) => self.at = At::Trailer(byte == b'\n' || empty && byte == b'\r'),
            At::Extension(_) | At::ChunkEnd | At::Body(_) | At::Chunk(_) | At::Off => {}
        }
        ControlFlow::Continue(())
    }

    fn start(&mut self, have: usize, byte: u8) -> ControlFlow<()> {
        if byte == PREFACE[have] {
            self.push(byte);
            let have = have + 1;
            self.at = if have == PREFACE.len() { At::Off } else { At::Start(have) };
            return ControlFlow::Continue(());
        }
        // In another line than the first it is neither HTTP/2 nor a request that hyper takes.
        self.at = if have > "PRI * HTTP/2.0".len() { At::Off } else { At::Line };
        self.step(byte)
    }

    fn line(&mut self, byte: u8) -> ControlFlow<()> {
        match byte {
            b'#' => return ControlFlow::Break(()),
            b'\n' if self.length == 0 => {}
            b'\n' => {
                let upgrades = self.word[..self.length].starts_with(b"connect ");
                self.message = Message { upgrades, ..Message::default() };
                self.next(At::Name);
            }
            b'\r' => {}
            _ => self.push(byte),
        }
        ControlFlow::Continue(())
    }

    fn name(&mut self, byte: u8) -> ControlFlow<()> {
        match byte {
            b'\n' if self.length == 0 => self.end_head(),
            b'\n' => self.length = 0,
            b'\r' => {}
            b':' => {
                let field = match &self.word[..self.length] {
                    b"content-length" => Field::Length,
                    b"transfer-encoding" => Field::Encoding,
                    b"upgrade" => Field::Upgrade,
                    _ => Field::Other,
                };
                if matches!(field, Field::Length | Field::Encoding) {
                    if self.message.framed {
                        return ControlFlow::Break(());
                    }
                    self.message.framed = true;
                }
                self.next(At::Value(field));
            }
            _ => self.push(byte),
        }
        ControlFlow::Continue(())
    }

    fn end_value(&mut self, field: Field) {
        let value = self.word[..self.length].trim_ascii();
        match field {
            Field::Length => match std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()) {
                Some(length) if self.length < WORD => self.message.length = length,
                // hyper refuses it, or the body has no end that anybody will see.
                _ => return self.at = At::Off,
            },
            // Whatever it says: hyper takes only bodies that end in chunks.
            Field::Encoding => self.message.chunked = true,
            Field::Upgrade => self.message.upgrades |= value != b"h2c",
            Field::Other => {}
        }
        self.next(At::Name);
    }

    fn end_head(&mut self) {
        let Message { upgrades, chunked, length, .. } = self.message;
        let at = match (upgrades, chunked, length) {
            (true, _, _) => At::Off,
            (_, true, _) => At::Size(0),
            (_, _, 0) => At::Line,
            (_, _, length) => At::Body(length),
        };
        self.next(at);
    }

    fn next(&mut self, at: At) {
        (self.at, self.length) = (at, 0);
    }

    /// Notes a byte of a word, in lower case and without spaces before it; of a long one, that it is long.
    fn push(&mut self, byte: u8) {
        let space = matches!(self.at, At::Value(_)) && self.length == 0 && byte.is_ascii_whitespace();
        if !space && self.length < WORD {
            self.word[self.length] = byte.to_ascii_lowercase();
            self.length += 1;
        }
    }
}

fn next_size(size: u64, byte: u8) -> At {
    match (char::from(byte).to_digit(16), byte) {
        (Some(digit), _) => size.checked_mul(16).map_or(At::Off, |size| At::Size(size + u64::from(digit))),
        (None, b'\n') => after_size(size),
        (None, _) => At::Extension(size),
    }
}

fn after_size(size: u64) -> At {
    if size == 0 { At::Trailer(true) } else { At::Chunk(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `bytes`, read in pieces of `size`.
    fn read(bytes: &[u8], size: usize) -> (Vec<u8>, Heads) {
        let (mut out, mut heads) = (bytes.to_vec(), Heads::new());
        out.chunks_mut(size.max(1)).for_each(|piece| heads.read(piece));
        (out, heads)
    }

    /// Which byte of `text` is refused, however it is cut.
    fn refused(text: &str) -> Option<usize> {
        let whole = read(text.as_bytes(), text.len()).0;
        for size in 1..text.len() {
            assert_eq!(read(text.as_bytes(), size).0, whole, "{text:?} in pieces of {size}");
        }
        let changed: Vec<_> = (0..text.len()).filter(|at| whole[*at] != text.as_bytes()[*at]).collect();
        assert!(changed.len() <= 1);
        changed.first().copied()
    }

    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn what_hyper_would_drop_without_a_word_is_refused() {
        let rows = [
            ("GET /a|#b HTTP/1.1\r\nx: #\r\n\r\n", "a fragment"),
            ("\r\n\nGET /a|#b HTTP/1.1\r\n\r\n", "after empty lines"),
            ("POST / HTTP/1.1\r\ncontent-length: 0\r\nContent-Length|: 0\r\n\r\n", "a second length"),
            ("POST / HTTP/1.1\ncontent-length:0\ncontent-length|:0\n\n", "lines that end in LF alone"),
            ("POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length|: 3\r\n\r\n", "both"),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding|: chunked\r\n\r\n", "the other way round"),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n#\n#GET /|# HTTP/1.1\r\n\r\n", "after a body"),
            ("GET / HTTP/1.1\r\nupgrade: h2c\r\n\r\nGET /|# HTTP/1.1\r\n\r\n", "nobody upgrades to HTTP/2"),
            ("PRI /|# HTTP/1.1\r\n\r\n", "almost HTTP/2"),
        ];
        for (text, what) in rows {
            let at = text.find('|').unwrap();
            assert_eq!(refused(&text.replacen('|', "", 1)), Some(at), "{what}: {text:?}");
        }
        for body in
            ["5;x=#\r\n#\r\n##\r\n0\r\n\r\n", "1\r\n#\r\n0\r\nt: #\r\nu: #\r\n\r\n", "A\r\n##########\r\n00\r\n\r\n"]
        {
            let text = format!("{CHUNKED}{body}GET /");
            assert_eq!(refused(&format!("{text}# HTTP/1.1\r\n\r\n")), Some(text.len()), "after chunks: {body:?}");
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        for text in [
            "GET /a HTTP/1.1\r\nx: #\r\ncontent-lengths: 1\r\nx-content-length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n##GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 99\r\n\r\ncontent-length: 1\r\ncontent-length: 2\r\n#",
            "GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n## # #\r\n",
            "CONNECT a.test:1 HTTP/1.1\r\n\r\n## # #\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n# # #\r\n",
            "PRI * HTTP/2.0\r\n#",
            "",
        ] {
            assert_eq!(refused(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_without_measure_end_the_following() {
        let sizes = format!("{CHUNKED}{}", "f".repeat(17));
        let length = "POST / HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n";
        for text in [&sizes, length, "POST / HTTP/1.1\r\ncontent-length: 1 1\r\n"] {
            assert_eq!(read(text.as_bytes(), 7).1.at, At::Off, "{text:?}");
        }
    }
}
