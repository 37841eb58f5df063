//! An xDS client that says exactly what a test tells it to.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_core::ads::AGGREGATED_RESOURCES;
use mesh_core::resource::TYPE_URL_PREFIX;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tower_service::Service;

pub(super) struct Client {
    requests: mpsc::UnboundedSender<Bytes>,
    responses: Streaming<Bytes>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Client {
        Self::call(address, AGGREGATED_RESOURCES).await.unwrap()
    }

    pub(super) async fn call(address: SocketAddr, method: &'static str) -> Result<Client, Status> {
        let mut grpc =
            tonic::client::Grpc::new(channel(address).await.map_err(|error| Status::unavailable(error.to_string()))?)
                .max_decoding_message_size(usize::MAX);
        grpc.ready().await.unwrap();
        let (requests, outgoing) = mpsc::unbounded_channel();
        let outgoing = Request::new(UnboundedReceiverStream::new(outgoing));
        let responses = grpc.streaming(outgoing, method.parse().unwrap(), Raw).await?.into_inner();
        Ok(Client { requests, responses })
    }

    pub(super) fn say(&self, request: &DiscoveryRequest) {
        self.requests.send(request.encode_to_vec().into()).unwrap();
    }

    pub(super) fn say_delta(&self, request: &DeltaDiscoveryRequest) {
        self.requests.send(request.encode_to_vec().into()).unwrap();
    }

    pub(super) async fn delta(&mut self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse::decode(self.message().await.unwrap().unwrap()).unwrap()
    }

    pub(super) fn subscribe(&self, type_url: &str, names: &[&str]) {
        let node = Node { id: "tester".to_owned(), ..Node::default() };
        self.say(&DiscoveryRequest { node: Some(node), ..request(type_url, names) });
    }

    /// Takes `response` and stays subscribed to `names`.
    pub(super) fn ack(&self, response: &DiscoveryResponse, names: &[&str]) {
        self.say(&DiscoveryRequest {
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            ..request(&response.type_url, names)
        });
    }

    pub(super) fn nack(&self, response: &DiscoveryResponse, names: &[&str], why: &str) {
        let error_detail = Some(rpc::Status { code: 3, message: why.to_owned(), details: Vec::new() });
        let response_nonce = response.nonce.clone();
        self.say(&DiscoveryRequest { response_nonce, error_detail, ..request(&response.type_url, names) });
    }

    /// The next message, whatever is in it. None: the stream ended with OK.
    pub(super) async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        self.responses.message().await
    }

    /// Says nothing more.
    pub(super) fn finish(&mut self) {
        self.requests = mpsc::unbounded_channel().0;
    }

    pub(super) async fn response(&mut self) -> DiscoveryResponse {
        let message = self.message().await.unwrap().unwrap();
        DiscoveryResponse::decode(message).unwrap()
    }
}

/// What a stream that asks once gives, as HTTP/2's data frames without gRPC's meaning; None at its end is a reset.
pub(super) struct Frames {
    body: tonic::body::Body,
    /// Open as long as the request is.
    _requests: mpsc::UnboundedSender<Bytes>,
}

impl Frames {
    pub(super) async fn ask(address: SocketAddr, type_url: &str, names: &[&str]) -> Self {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let message = request(type_url, names).encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        requests.send([&[0], &length[..], &message].concat().into()).unwrap();
        let frames = UnboundedReceiverStream::new(outgoing).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
        let request = http::Request::post(format!("http://{address}{AGGREGATED_RESOURCES}"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .body(tonic::body::Body::new(StreamBody::new(frames)))
            .unwrap();
        let mut channel = channel(address).await.unwrap();
        poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
        let body = channel.call(request).await.unwrap().into_body();
        Self { body, _requests: requests }
    }

    pub(super) async fn next(&mut self) -> Option<Bytes> {
        Some(self.body.frame().await?.ok()?.into_data().unwrap())
    }
}

pub(super) async fn channel(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await
}

fn request(type_url: &str, names: &[&str]) -> DiscoveryRequest {
    let type_url = format!("{TYPE_URL_PREFIX}{}", type_url.trim_start_matches(TYPE_URL_PREFIX));
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    DiscoveryRequest { type_url, resource_names, ..DiscoveryRequest::default() }
}

#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
