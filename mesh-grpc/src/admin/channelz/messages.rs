//! The messages of `grpc.channelz.v1` that are served, derived by hand: names and numbers are those of `channelz.proto`, which
//! reflection tells, and a test compares the two.

use std::fmt::Debug;

use prost::{Message, Oneof};
use prost_types::Timestamp;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Channel {
    #[prost(message, optional, tag = "1")]
    pub(super) r#ref: Option<ChannelRef>,
    #[prost(message, optional, tag = "2")]
    pub(super) data: Option<ChannelData>,
    #[prost(message, repeated, tag = "4")]
    pub(super) subchannel_ref: Vec<SubchannelRef>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Subchannel {
    #[prost(message, optional, tag = "1")]
    pub(super) r#ref: Option<SubchannelRef>,
    #[prost(message, optional, tag = "2")]
    pub(super) data: Option<ChannelData>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ChannelConnectivityState {
    #[prost(enumeration = "State", tag = "1")]
    pub(super) state: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum State {
    Unknown = 0,
    Idle = 1,
    Connecting = 2,
    Ready = 3,
    TransientFailure = 4,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ChannelData {
    #[prost(message, optional, tag = "1")]
    pub(super) state: Option<ChannelConnectivityState>,
    #[prost(string, tag = "2")]
    pub(super) target: String,
    #[prost(int64, tag = "4")]
    pub(super) calls_started: i64,
    #[prost(int64, tag = "5")]
    pub(super) calls_succeeded: i64,
    #[prost(int64, tag = "6")]
    pub(super) calls_failed: i64,
    #[prost(message, optional, tag = "7")]
    pub(super) last_call_started_timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ChannelRef {
    #[prost(int64, tag = "1")]
    pub(super) channel_id: i64,
    #[prost(string, tag = "2")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SubchannelRef {
    #[prost(int64, tag = "7")]
    pub(super) subchannel_id: i64,
    #[prost(string, tag = "8")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SocketRef {
    #[prost(int64, tag = "3")]
    pub(super) socket_id: i64,
    #[prost(string, tag = "4")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerRef {
    #[prost(int64, tag = "5")]
    pub(super) server_id: i64,
    #[prost(string, tag = "6")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Server {
    #[prost(message, optional, tag = "1")]
    pub(super) r#ref: Option<ServerRef>,
    #[prost(message, optional, tag = "2")]
    pub(super) data: Option<ServerData>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerData {
    #[prost(int64, tag = "2")]
    pub(super) calls_started: i64,
    #[prost(int64, tag = "3")]
    pub(super) calls_succeeded: i64,
    #[prost(int64, tag = "4")]
    pub(super) calls_failed: i64,
    #[prost(message, optional, tag = "5")]
    pub(super) last_call_started_timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Socket {
    #[prost(message, optional, tag = "1")]
    pub(super) r#ref: Option<SocketRef>,
    #[prost(message, optional, tag = "3")]
    pub(super) local: Option<Address>,
    #[prost(message, optional, tag = "4")]
    pub(super) remote: Option<Address>,
    #[prost(message, optional, tag = "5")]
    pub(super) security: Option<Security>,
    #[prost(string, tag = "6")]
    pub(super) remote_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Address {
    /// Of the protocol's kinds of address, all that the mesh listens on.
    #[prost(oneof = "Kind", tags = "1")]
    pub(super) address: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    TcpipAddress(TcpIpAddress),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TcpIpAddress {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ip_address: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub(super) port: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Security {
    #[prost(oneof = "Model", tags = "1")]
    pub(super) model: Option<Model>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Model {
    #[prost(message, tag = "1")]
    Tls(Tls),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tls {
    #[prost(bytes = "vec", tag = "4")]
    pub(super) remote_certificate: Vec<u8>,
}

/// `GetTopChannelsRequest` and `GetServersRequest`, which are alike.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Page {
    #[prost(int64, tag = "1")]
    pub(super) start_id: i64,
    #[prost(int64, tag = "2")]
    pub(super) max_results: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetTopChannelsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) channel: Vec<Channel>,
    #[prost(bool, tag = "2")]
    pub(super) end: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetServersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) server: Vec<Server>,
    #[prost(bool, tag = "2")]
    pub(super) end: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct GetServerSocketsRequest {
    #[prost(int64, tag = "1")]
    pub(super) server_id: i64,
    #[prost(int64, tag = "2")]
    pub(super) start_socket_id: i64,
    #[prost(int64, tag = "3")]
    pub(super) max_results: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetServerSocketsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) socket_ref: Vec<SocketRef>,
    #[prost(bool, tag = "2")]
    pub(super) end: bool,
}

/// `GetChannelRequest`, `GetSubchannelRequest`, `GetServerRequest` and `GetSocketRequest`, which begin alike.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct One {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

/// `GetChannelResponse`, `GetSubchannelResponse`, `GetServerResponse` and `GetSocketResponse`: the one that was asked for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Found<T: Message + Default + Debug> {
    #[prost(message, optional, tag = "1")]
    pub(super) found: Option<T>,
}
