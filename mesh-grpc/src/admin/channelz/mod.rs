//! channelz: what the mesh's clients and servers do, as `grpcdebug` and `grpc-channelz` read it (gRFC A38).
//!
//! A channel is a client of the mesh; its subchannels are the endpoints its calls may be sent to. A server is a listening
//! address, its sockets are the connections it took. Sockets of clients are not told: they come and go inside an endpoint.

mod messages;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use bytes::Bytes;
use mesh_tower::Mesh;
use mesh_tower::traffic::{CallCounts, ClientTraffic, ConnectionTraffic, Connectivity, EndpointTraffic, ServerTraffic};
use prost::Message;
use tonic::Status;

use super::raw::Methods;
use messages::{
    Address, Channel, ChannelConnectivityState, ChannelData, ChannelRef, Found, GetServerSocketsRequest,
    GetServerSocketsResponse, GetServersResponse, GetTopChannelsResponse, Kind, Model, One, Page, Security, Server,
    ServerData, ServerRef, Socket, SocketRef, State, Subchannel, SubchannelRef, TcpIpAddress, Tls,
};

/// So many are listed in one answer, as in gRPC's own servers, whatever is asked for.
const PAGE: usize = 100;

/// `grpc.channelz.v1.Channelz`.
pub(super) struct Channelz(Mesh);

impl Channelz {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self(mesh)
    }

    fn channel(&self, id: i64) -> Result<Found<Channel>, Status> {
        let all = self.0.client_traffic();
        found(all.iter().find(|one| signed(one.number) == id).map(channel), "channel", id)
    }

    fn subchannel(&self, id: i64) -> Result<Found<Subchannel>, Status> {
        let all = self.0.client_traffic();
        let mut endpoints = all.iter().flat_map(|client| &client.endpoints);
        found(endpoints.find(|one| signed(one.number) == id).map(subchannel), "subchannel", id)
    }

    fn server(&self, id: i64) -> Result<Found<Server>, Status> {
        let all = self.0.server_traffic();
        found(all.iter().find(|one| signed(one.number) == id).map(server), "server", id)
    }

    fn server_sockets(&self, request: GetServerSocketsRequest) -> Result<GetServerSocketsResponse, Status> {
        let id = request.server_id;
        let server = self.0.server_traffic().into_iter().find(|one| signed(one.number) == id);
        let server = server.ok_or_else(|| unknown("server", id))?;
        let page = Page { start_id: request.start_socket_id, max_results: request.max_results };
        let (connections, end) = paged(&server.connections, page, |one| one.number);
        Ok(GetServerSocketsResponse { socket_ref: connections.iter().map(socket_ref).collect(), end })
    }

    fn socket(&self, id: i64) -> Result<Found<Socket>, Status> {
        let all = self.0.server_traffic();
        let mut connections = all.iter().flat_map(|server| &server.connections);
        found(connections.find(|one| signed(one.number) == id).map(socket), "socket", id)
    }
}

impl Methods for Channelz {
    const NAME: &'static str = "grpc.channelz.v1.Channelz";
    const METHODS: &'static [&'static str] =
        &["GetTopChannels", "GetServers", "GetServer", "GetServerSockets", "GetChannel", "GetSubchannel", "GetSocket"];

    async fn answer(&self, method: &'static str, request: Bytes) -> Result<Bytes, Status> {
        let encoded = match method {
            "GetTopChannels" => {
                let all = self.0.client_traffic();
                let (page, end) = paged(&all, read(request)?, |one| one.number);
                GetTopChannelsResponse { channel: page.iter().map(channel).collect(), end }.encode_to_vec()
            }
            "GetServers" => {
                let all = self.0.server_traffic();
                let (page, end) = paged(&all, read(request)?, |one| one.number);
                GetServersResponse { server: page.iter().map(server).collect(), end }.encode_to_vec()
            }
            "GetChannel" => self.channel(read::<One>(request)?.id)?.encode_to_vec(),
            "GetSubchannel" => self.subchannel(read::<One>(request)?.id)?.encode_to_vec(),
            "GetServer" => self.server(read::<One>(request)?.id)?.encode_to_vec(),
            "GetServerSockets" => self.server_sockets(read(request)?)?.encode_to_vec(),
            "GetSocket" => self.socket(read::<One>(request)?.id)?.encode_to_vec(),
            other => return Err(Status::unimplemented(format!("there is no method {other}"))),
        };
        Ok(encoded.into())
    }
}

fn read<T: Message + Default>(request: Bytes) -> Result<T, Status> {
    T::decode(request).map_err(|error| Status::invalid_argument(format!("the request cannot be decoded: {error}")))
}

fn found<T: Message + Default + Debug>(found: Option<T>, what: &str, id: i64) -> Result<Found<T>, Status> {
    found.map(|found| Found { found: Some(found) }).ok_or_else(|| unknown(what, id))
}

fn unknown(what: &str, id: i64) -> Status {
    Status::not_found(format!("there is no {what} {id}, or it is gone"))
}

/// The page of `all`, which are in order of their numbers, and whether it is the last.
fn paged<T>(all: &[T], page: Page, number: impl Fn(&T) -> u64) -> (&[T], bool) {
    let start = all.partition_point(|one| signed(number(one)) < page.start_id);
    let most = usize::try_from(page.max_results).ok().filter(|most| *most > 0).map_or(PAGE, |most| most.min(PAGE));
    let end = all.len().min(start + most);
    (&all[start..end], end == all.len())
}

/// The protocol's numbers are signed; ours count from one and never get that far.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn channel(client: &ClientTraffic) -> Channel {
    let calls = data(client.state, client.target.clone(), client.calls);
    let endpoints = client.endpoints.iter().map(subchannel_ref);
    let name = client.target.clone();
    let r#ref = Some(ChannelRef { channel_id: signed(client.number), name });
    Channel { r#ref, data: Some(calls), subchannel_ref: endpoints.collect() }
}

fn subchannel(endpoint: &EndpointTraffic) -> Subchannel {
    let data = data(endpoint.state, endpoint.address.to_string(), endpoint.attempts);
    Subchannel { r#ref: Some(subchannel_ref(endpoint)), data: Some(data) }
}

fn subchannel_ref(endpoint: &EndpointTraffic) -> SubchannelRef {
    let name = format!("{} {}", endpoint.cluster, endpoint.address);
    SubchannelRef { subchannel_id: signed(endpoint.number), name }
}

fn data(state: Connectivity, target: String, calls: CallCounts) -> ChannelData {
    let state = match state {
        Connectivity::Idle => State::Idle,
        Connectivity::Connecting => State::Connecting,
        Connectivity::Ready => State::Ready,
        Connectivity::TransientFailure => State::TransientFailure,
        _ => State::Unknown,
    };
    ChannelData {
        state: Some(ChannelConnectivityState { state: state.into() }),
        target,
        calls_started: signed(calls.started),
        calls_succeeded: signed(calls.succeeded),
        calls_failed: signed(calls.failed),
        last_call_started_timestamp: calls.last_started.map(timestamp),
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn server(server: &ServerTraffic) -> Server {
    let calls = server.calls;
    Server {
        r#ref: Some(ServerRef { server_id: signed(server.number), name: server.address.to_string() }),
        data: Some(ServerData {
            calls_started: signed(calls.started),
            calls_succeeded: signed(calls.succeeded),
            calls_failed: signed(calls.failed),
            last_call_started_timestamp: calls.last_started.map(timestamp),
        }),
    }
}

fn socket_ref(connection: &ConnectionTraffic) -> SocketRef {
    SocketRef { socket_id: signed(connection.number), name: connection.peer.remote_addr().to_string() }
}

fn socket(connection: &ConnectionTraffic) -> Socket {
    let peer = &connection.peer;
    let identity = peer.identity();
    let leaf = identity.and_then(|identity| identity.chain().first());
    let certificate = leaf.map(|leaf| leaf.to_vec()).unwrap_or_default();
    let tls = || Security { model: Some(Model::Tls(Tls { remote_certificate: certificate })) };
    Socket {
        r#ref: Some(socket_ref(connection)),
        local: Some(address(peer.local_addr())),
        remote: Some(address(peer.remote_addr())),
        security: peer.is_tls().then(tls),
        remote_name: identity.and_then(|identity| identity.spiffe_id()).map(ToString::to_string).unwrap_or_default(),
    }
}

fn address(address: SocketAddr) -> Address {
    let ip_address = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Address { address: Some(Kind::TcpipAddress(TcpIpAddress { ip_address, port: address.port().into() })) }
}
