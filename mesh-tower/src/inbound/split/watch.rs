//! What a client does with its connection beside making requests: floods of frames that cost work and carry nothing, heads
//! that never end, and answers that are never taken.
//!
//! h2 has limits of its own: of heads (their size, and how many frames one may be cut into), of streams that are reset
//! before anybody has seen them, of small DATA frames. It has none of PING, SETTINGS, PRIORITY, WINDOW_UPDATE and unknown
//! frames, nor of resets of requests that are being handled; and no time after which it gives up. Those are here, for the
//! server that hyper runs and for one that the application runs on our listener.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::frames::{Frame, Frames, kind};
use crate::inbound::options::InboundLimits;

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Each frame of an answer excuses so many that say nothing: two WINDOW_UPDATEs and a PING for each DATA frame are what
/// clients with small windows and a bandwidth estimate send. Envoy's number.
const EXCUSED: u32 = 10;
/// The length of a GOAWAY that says no more than it must (RFC 9113, section 6.8).
const GOAWAY: usize = 9 + 8;
/// Why a connection ends: it is not the client's fault.
pub(super) const NO_ERROR: u32 = 0x0;
/// The client asks for more work than it may.
pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;
/// What was spent comes back within so many milliseconds.
const REFILL: u128 = 10_000;

/// A connection that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    speaks: Speaks,
    written: Frames,
    /// Whether the server has begun, with its own SETTINGS, and not said goodbye.
    may_end: bool,
    resets: Budget,
    control: Budget,
    head_timeout: Duration,
    write_timeout: Duration,
    /// Runs while a head has begun and not ended.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing of what is to be written.
    write: Option<Pin<Box<Sleep>>>,
}

/// What the client speaks.
#[derive(Debug)]
enum Speaks {
    /// So many bytes of the preface have come.
    Preface(usize),
    Http2(Reading),
    /// Anything else.
    Other,
}

/// The client's frames.
#[derive(Debug, Default)]
struct Reading {
    frames: Frames,
    /// Whether the frame at hand holds header fields.
    in_head: bool,
    /// Whether more of its field block must follow it.
    continued: bool,
    /// The last stream that the client has opened.
    last: u32,
}

impl Watch {
    pub(super) fn new(limits: &InboundLimits) -> Self {
        Self {
            speaks: Speaks::Preface(0),
            written: Frames::default(),
            may_end: false,
            resets: Budget::new(limits.max_resets),
            control: Budget::new(limits.max_control_frames),
            head_timeout: limits.header_timeout,
            write_timeout: limits.write_timeout,
            head: None,
            write: None,
        }
    }

    /// These bytes came.
    ///
    /// # Errors
    ///
    /// They are over a budget.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Speaks::Preface(have) = self.speaks {
            let rest = &PREFACE[have..];
            let length = rest.len().min(bytes.len());
            self.speaks = match bytes[..length] == rest[..length] {
                false => Speaks::Other,
                true if length == rest.len() => Speaks::Http2(Reading::default()),
                true => Speaks::Preface(have + length),
            };
            bytes = &bytes[length..];
        }
        let Speaks::Http2(reading) = &mut self.speaks else { return Ok(()) };
        let (mut resets, mut control) = (0, 0);
        let Reading { frames, in_head, continued, last } = reading;
        // Whether the next frame begins in these bytes.
        let mut begins = !frames.is_in_header();
        frames.read(bytes, |frame| {
            if begins && frame.kind != kind::CONTINUATION {
                // A head that follows another has time of its own.
                self.head = None;
            }
            begins = true;
            *in_head = frame.is_head();
            *continued = frame.is_head_to_be_continued();
            *last = if frame.is_head() { frame.stream.max(*last) } else { *last };
            resets += u32::from(frame.kind == kind::RST_STREAM);
            control += u32::from(says_nothing(frame));
        });
        self.resets.spend(resets, "resets more requests than it waits for")?;
        self.control.spend(control, "sends frames that say nothing")
    }

    /// These bytes were written.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        if matches!(self.speaks, Speaks::Other) {
            return;
        }
        self.may_end |= !bytes.is_empty();
        let Self { written, resets, control, .. } = self;
        written.read(bytes, |frame| match frame.kind {
            kind::HEADERS => {
                resets.earn(1);
                control.earn(EXCUSED);
            }
            kind::DATA => control.earn(EXCUSED),
            _ => {}
        });
    }

    /// What an HTTP/2 client is told before its connection is cut; None: there is no place for it in what is being written.
    /// It is said once.
    pub(super) fn goodbye(&mut self, reason: u32) -> Option<[u8; GOAWAY]> {
        let Speaks::Http2(reading) = &self.speaks else { return None };
        if !self.written.is_between() || !std::mem::take(&mut self.may_end) {
            return None;
        }
        let mut frame = [0; GOAWAY];
        (frame[2], frame[3]) = (8, kind::GOAWAY);
        frame[9..13].copy_from_slice(&reading.last.to_be_bytes());
        frame[13..].copy_from_slice(&reason.to_be_bytes());
        Some(frame)
    }

    /// Whether a head takes too long. HTTP/1's are timed by hyper.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Speaks::Http2(reading) = &self.speaks else { return Ok(()) };
        let in_payload = reading.in_head && !reading.frames.is_between();
        if !(reading.continued || in_payload || reading.frames.is_in_header()) {
            self.head = None;
            return Ok(());
        }
        due(&mut self.head, self.head_timeout, cx, "does not end a request's head")
    }

    /// What came of an attempt to write.
    pub(super) fn poll_written<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write = None;
            return polled;
        }
        match due(&mut self.write, self.write_timeout, cx, "takes nothing of what it is sent") {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Whether a frame is neither part of a request nor of its body.
fn says_nothing(frame: Frame) -> bool {
    match frame.kind {
        kind::DATA => frame.length == 0 && !frame.ends_stream(),
        kind::HEADERS | kind::RST_STREAM => false,
        _ => true,
    }
}

/// Starts a clock that does not run yet, and asks it.
fn due(clock: &mut Option<Pin<Box<Sleep>>>, limit: Duration, cx: &mut Context<'_>, why: &str) -> io::Result<()> {
    let clock = clock.get_or_insert_with(|| Box::pin(sleep(limit)));
    match clock.as_mut().poll(cx) {
        Poll::Pending => Ok(()),
        Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("the client {why}, for {limit:?}"))),
    }
}

/// How much of something a client may do at a stretch. A tenth of it comes back each second.
#[derive(Debug)]
struct Budget {
    left: u32,
    most: u32,
    at: Instant,
}

impl Budget {
    fn new(most: u32) -> Self {
        Self { left: most, most, at: Instant::now() }
    }

    fn spend(&mut self, count: u32, why: &str) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let back = now.duration_since(self.at).as_millis() * u128::from(self.most) / REFILL;
        if back > 0 {
            self.at = now;
            self.earn(u32::try_from(back).unwrap_or(u32::MAX));
        }
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            io::Error::new(io::ErrorKind::ConnectionAborted, format!("the client {why}: over {} of them", self.most))
        })?;
        Ok(())
    }

    fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn limits() -> InboundLimits {
        InboundLimits { max_resets: 20, max_control_frames: 20, ..InboundLimits::default() }
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn http2() -> Watch {
        let mut watch = Watch::new(&limits());
        watch.read(PREFACE).unwrap();
        watch
    }

    /// How many of these a client may send at once.
    fn passes(watch: &mut Watch, frame: &[u8]) -> usize {
        (0..1000).take_while(|_| watch.read(frame).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_has_a_budget_that_comes_back_with_time() {
        let empty_data = frame(kind::DATA, 0, b"");
        for flood in [frame(PING, 0, &[0; 8]), frame(kind::SETTINGS, 0, b""), empty_data, frame(99, 0, b"x")] {
            let mut watch = http2();
            assert_eq!(passes(&mut watch, &flood), 20, "{flood:?}");
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(passes(&mut watch, &flood), 10, "{flood:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resets_have_a_budget_of_their_own_and_answers_excuse_them() {
        let reset = frame(kind::RST_STREAM, 0, &[0, 0, 0, 8]);
        let mut watch = http2();
        assert_eq!(passes(&mut watch, &reset), 20);
        for _ in 0..7 {
            watch.wrote(&frame(kind::HEADERS, 4, b"head"));
        }
        assert_eq!(passes(&mut watch, &reset), 7);
        assert!(watch.read(&frame(PING, 0, &[0; 8])).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_excuses_the_windows_it_needs() {
        let mut watch = http2();
        for _ in 0..1000 {
            watch.wrote(&frame(kind::DATA, 0, b"data"));
            for _ in 0..3 {
                watch.read(&frame(WINDOW_UPDATE, 0, &[0, 0, 0, 9])).unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_their_bodies_cost_nothing() {
        let mut watch = http2();
        assert_eq!(passes(&mut watch, &frame(kind::HEADERS, 5, b"head")), 1000);
        assert_eq!(passes(&mut watch, &frame(kind::DATA, 0, b"x")), 1000);
        assert_eq!(passes(&mut watch, &frame(kind::DATA, 1, b"")), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_goaway_names_the_last_stream_and_is_put_into_no_other_frame() {
        let mut watch = http2();
        assert_eq!(watch.goodbye(ENHANCE_YOUR_CALM), None, "the server's SETTINGS come first");
        let settings = frame(kind::SETTINGS, 0, b"");
        watch.wrote(&settings);
        for stream in [5, 3] {
            let mut head = frame(kind::HEADERS, 5, b"head");
            head[8] = stream;
            watch.read(&head).unwrap();
        }
        let goodbye = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0xb];
        assert_eq!(watch.goodbye(ENHANCE_YOUR_CALM), Some(goodbye));
        assert_eq!(watch.goodbye(ENHANCE_YOUR_CALM), None, "once");
        watch.wrote(&settings[..4]);
        assert_eq!(watch.goodbye(NO_ERROR), None);
        let mut other = Watch::new(&limits());
        other.read(b"GET / HTTP/1.1").unwrap();
        other.wrote(b"HTTP/1.1 200 OK");
        assert_eq!(other.goodbye(NO_ERROR), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_http2_is_not_read_as_frames() {
        let mut watch = Watch::new(&limits());
        watch.read(b"PRI * HTTP/1.1\r\n").unwrap();
        assert_eq!(passes(&mut watch, &frame(PING, 0, &[0; 8])), 1000);
    }

    /// How long it takes until the head is given up on, while these pieces come, one each second.
    async fn gives_up(pieces: &[&[u8]]) -> Option<Duration> {
        let (mut watch, began) = (http2(), Instant::now());
        let mut pieces = pieces.iter();
        for _ in 0..100 {
            if let Some(piece) = pieces.next() {
                watch.read(piece).unwrap();
            }
            if poll_fn(|cx| Poll::Ready(watch.poll_head(cx))).await.is_err() {
                return Some(began.elapsed());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_must_end_however_it_trickles() {
        let limit = Some(limits().header_timeout);
        let open = frame(kind::HEADERS, 0, b"head");
        let bytes: Vec<&[u8]> = open.chunks(1).collect();
        assert_eq!(gives_up(&bytes).await, limit, "a byte each second, and then nothing");
        let more = frame(kind::CONTINUATION, 0, b"");
        let endless: Vec<&[u8]> = std::iter::once(&*open).chain(std::iter::repeat_n(&*more, 19)).collect();
        assert_eq!(gives_up(&endless).await, limit, "frame after frame");
        assert_eq!(gives_up(&[b"\0\0"]).await, limit, "not even a frame's header");
        let whole = frame(kind::HEADERS, 4, b"head");
        assert_eq!(gives_up(&[&*whole]).await, None);
        let upload = frame(kind::DATA, 0, &[0; 99]);
        assert_eq!(gives_up(&[&*whole, &upload[..12]]).await, None, "a body may take its time");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_given_up_on() {
        let mut watch = http2();
        let began = Instant::now();
        let stuck = poll_fn(|cx| watch.poll_written(Poll::<io::Result<usize>>::Pending, cx));
        let error = stuck.await.unwrap_err();
        assert_eq!((began.elapsed(), error.kind()), (limits().write_timeout, io::ErrorKind::TimedOut));
        let mut watch = http2();
        for _ in 0..10 {
            let waits = poll_fn(|cx| Poll::Ready(watch.poll_written(Poll::<io::Result<usize>>::Pending, cx)));
            assert!(waits.await.is_pending());
            tokio::time::advance(limits().write_timeout - Duration::from_secs(1)).await;
            let takes = poll_fn(|cx| Poll::Ready(watch.poll_written(Poll::Ready(Ok(1)), cx)));
            assert!(takes.await.is_ready(), "a byte at a time is slow, and not nothing");
        }
    }
}
