//! tonic, as a server that was not written for this.

use std::convert::Infallible;

use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use super::*;

#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let mut all = BytesMut::new();
        bytes::BufMut::put(&mut all, from);
        Ok(Some(all.freeze()))
    }
}

/// Gives each message back; `bye` ends the stream with a status.
#[derive(Clone)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

type Echoed = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl tonic::server::StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Echoed;
    type Future = std::future::Ready<Result<Response<Echoed>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let echoed = request.into_inner().map(|message| match message {
            Ok(bytes) if bytes == "bye" => Err(Status::resource_exhausted("so long")),
            other => other,
        });
        std::future::ready(Ok(Response::new(Box::pin(echoed))))
    }
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async {
            let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(usize::MAX);
            Ok(grpc.streaming(Echo, request).await)
        })
    }
}

#[tokio::test]
async fn tonic_understands_us() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ServerConfig::insecure(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let routes = tonic::service::Routes::new(Echo);
        let (io, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(routes);
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
    });
    let mut stream = open(&config).await.unwrap();
    for message in [Bytes::from("hello"), Bytes::new(), large()] {
        send(&mut stream, message.clone()).await;
        assert!(receive(&mut stream).await.unwrap().unwrap() == message);
    }
    send(&mut stream, "bye").await;
    assert_eq!(failure(&mut stream).await, "the server ended the call with status RESOURCE_EXHAUSTED: so long");
}
