//! The one body type inside the mesh. Bodies of applications are erased here, once, so that everything behind the public
//! client is compiled once.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use crate::BoxError;

/// The body of a request or a response: bytes and trailers, streamed, of any origin.
///
/// ```
/// use mesh_tower::body::MeshBody;
///
/// let body = MeshBody::from("hello");
/// let none = MeshBody::empty();
/// # drop((body, none));
/// ```
pub struct MeshBody(Kind);

/// What is common is held without a box: an allocation for each request is an allocation too many.
enum Kind {
    Empty,
    Full(Full<Bytes>),
    Incoming(hyper::body::Incoming),
    Tonic(tonic::body::Body),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl MeshBody {
    /// A body without a byte.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Erases `body`. What is one already, one of hyper's or one of tonic's costs no allocation.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        let mut body = Some(body);
        if let Some(own) = take::<_, Self>(&mut body) {
            return own;
        }
        let known = take(&mut body)
            .map(Kind::Tonic)
            .or_else(|| take(&mut body).map(Kind::Incoming))
            .or_else(|| take(&mut body).map(Kind::Full));
        match (known, body) {
            (Some(kind), _) => Self(kind),
            (None, Some(body)) => Self(Kind::Boxed(body.map_err(Into::into).boxed_unsync())),
            (None, None) => Self::empty(),
        }
    }
}

/// What `from` holds, if it is a `T`.
fn take<B: 'static, T: 'static>(from: &mut Option<B>) -> Option<T> {
    (from as &mut dyn Any).downcast_mut::<Option<T>>()?.take()
}

impl Body for MeshBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Tonic(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(body) => body.is_end_stream(),
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Tonic(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(body) => body.size_hint(),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Tonic(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl Default for MeshBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for MeshBody {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Full(Full::new(bytes)) })
    }
}

impl From<String> for MeshBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for MeshBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for MeshBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Incoming(_) => "incoming",
            Kind::Tonic(_) => "tonic",
            Kind::Boxed(_) => "boxed",
        };
        f.debug_tuple("MeshBody").field(&kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    async fn text(body: MeshBody) -> (String, Option<HeaderMap>) {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        (String::from_utf8(collected.to_bytes().to_vec()).unwrap(), trailers)
    }

    #[tokio::test]
    async fn every_kind_says_what_it_was_made_of() {
        assert_eq!(text(MeshBody::empty()).await.0, "");
        assert_eq!(text("a".into()).await.0, "a");
        assert_eq!(text(MeshBody::new(Full::new(Bytes::from("b")))).await.0, "b");
        assert_eq!(text(MeshBody::new(tonic::body::Body::new(Full::new(Bytes::from("c"))))).await.0, "c");
        assert_eq!(text(MeshBody::new("d".to_owned())).await.0, "d");
    }

    #[tokio::test]
    async fn trailers_pass() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from("x"))), Ok(Frame::trailers(trailers.clone()))];
        let body = MeshBody::new(StreamBody::new(tokio_stream(frames)));
        assert_eq!(text(body).await, ("x".to_owned(), Some(trailers)));
    }

    fn tokio_stream<T: Unpin>(items: impl IntoIterator<Item = T>) -> impl futures_core::Stream<Item = T> {
        struct Iter<I>(I);
        impl<I: Iterator + Unpin> futures_core::Stream for Iter<I> {
            type Item = I::Item;
            fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
                Poll::Ready(self.0.next())
            }
        }
        Iter(items.into_iter().collect::<Vec<_>>().into_iter())
    }

    #[test]
    fn what_is_known_is_not_boxed() {
        let kind = |body: MeshBody| format!("{body:?}");
        assert!(kind(MeshBody::new(MeshBody::from("x"))).contains("full"));
        assert!(kind(MeshBody::new(tonic::body::Body::new(Full::new(Bytes::from("x"))))).contains("tonic"));
        assert!(kind(MeshBody::new(Full::new(Bytes::new()))).contains("empty"));
        assert!(kind(MeshBody::new("x".to_owned())).contains("boxed"));
    }
}
