//! How long a body may be, and how long it may say nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use mesh_core::error::{Code, Error};
use tokio::time::{Sleep, sleep};

use crate::inbound::normalize::{Limits, too_long};
use crate::inbound::{BoxError, InboundLimits};

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// Its trailers.
    trailers: Limits,
    /// Its bytes.
    most: Option<u64>,
    /// How long it may say nothing.
    silence: Option<Duration>,
}

impl BodyLimits {
    pub(super) fn of(limits: &InboundLimits, trailers: Limits) -> Self {
        Self { trailers, most: limits.max_body_bytes, silence: limits.body_timeout }
    }

    /// Those of a call of gRPC: a stream may say nothing for as long as its deadline lets it.
    pub(super) fn of_call(self) -> Self {
        Self { silence: None, ..self }
    }
}

/// A body that fails when it is over its limits.
#[derive(Debug)]
pub(super) struct Bounded<B> {
    body: B,
    limits: BodyLimits,
    /// Bytes that have come.
    read: u64,
    /// Until when it may say nothing, while somebody waits for it.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Bounded<B> {
    pub(super) fn new(body: B, limits: BodyLimits) -> Self {
        Self { body, limits, read: 0, patience: None }
    }

    pub(super) fn get(&self) -> &B {
        &self.body
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.poll_silence(cx).map(|silent| Some(Err(silent.into())));
        };
        self.patience = None;
        Poll::Ready(frame.map(|frame| self.allow(frame.map_err(Into::into)?)))
    }

    fn allow(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        if frame.trailers_ref().is_some_and(|trailers| !self.limits.trailers.allow(trailers)) {
            return Err(Error::new(Code::BAD_CLIENT, "the request's trailers are too large").into());
        }
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.read = self.read.saturating_add(length as u64);
        match self.limits.most {
            Some(most) if self.read > most => Err(too_long(most).into()),
            _ => Ok(frame),
        }
    }

    /// Ready when nothing came for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some(silence) = self.limits.silence else { return Poll::Pending };
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(patience.as_mut().poll(cx));
        let why = format!("nothing came of the request's body for {silence:?}, the server's body_timeout");
        Poll::Ready(Error::new(Code::BAD_CLIENT, why))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, advance, timeout};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(300);
    const LIMITS: BodyLimits =
        BodyLimits { trailers: Limits { headers: 2, bytes: 100 }, most: Some(10), silence: Some(SILENCE) };

    /// A body whose frames come one by one.
    struct Coming(mpsc::Receiver<Frame<Bytes>>);

    impl Body for Coming {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }

    fn body(limits: BodyLimits) -> (mpsc::Sender<Frame<Bytes>>, Bounded<Coming>) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Bounded::new(Coming(receiver), limits))
    }

    async fn next(body: &mut Bounded<Coming>) -> Option<Result<Frame<Bytes>, String>> {
        let frame = std::future::poll_fn(|cx| body.poll_read(cx)).await;
        frame.map(|frame| frame.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_it_may_and_no_byte_longer() {
        for (lengths, taken) in [(&[4, 6][..], true), (&[4, 7][..], false), (&[11][..], false)] {
            let (client, mut body) = body(LIMITS);
            let mut last = None;
            for length in lengths {
                client.send(Frame::data(Bytes::from(vec![0; *length]))).await.unwrap();
                last = next(&mut body).await;
            }
            match last.unwrap() {
                Ok(_) => assert!(taken, "{lengths:?}"),
                Err(why) => assert!(!taken && why.contains("longer than 10 bytes"), "{lengths:?}: {why}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_frame_while_somebody_reads() {
        let (client, mut body) = body(LIMITS);
        // Nobody reads: whoever is slow is the application.
        advance(SILENCE * 2).await;
        for _ in 0..3 {
            let began = Instant::now();
            let read = timeout(SILENCE - Duration::from_secs(1), next(&mut body)).await;
            assert!(read.is_err(), "after {:?}", began.elapsed());
            client.send(Frame::data(Bytes::from_static(b"x"))).await.unwrap();
            next(&mut body).await.unwrap().unwrap();
        }
        let began = Instant::now();
        let why = next(&mut body).await.unwrap().unwrap_err();
        assert!(why.contains("body_timeout"), "{why}");
        assert_eq!(began.elapsed().as_secs(), SILENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_grpc_may_be_silent_for_as_long_as_it_likes() {
        let (client, mut body) = body(LIMITS.of_call());
        assert!(timeout(SILENCE * 100, next(&mut body)).await.is_err());
        client.send(Frame::trailers(HeaderMap::new())).await.unwrap();
        assert!(next(&mut body).await.unwrap().unwrap().is_trailers());
    }
}
