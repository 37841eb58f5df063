//! channelz, read by the descriptors that reflection tells and not by the messages that it is written with.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use mesh_core::source::MemorySource;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code as GrpcCode, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::PATIENCE;
use crate::admin::{Admin, DESCRIPTORS};
use crate::codec::Whole;
use crate::tests::config::{cluster, encode, forward, listener, server_listener};
use crate::{Mesh, MeshChannel, WaitForReady, serve_on};

struct Reader(Channel, DescriptorPool);

impl Reader {
    /// Calls a method with a request, both ways as proto-JSON with the names of the protocol.
    async fn ask(&self, method: &str, request: Value) -> Result<Value, Status> {
        let service = self.1.get_service_by_name("grpc.channelz.v1.Channelz").unwrap();
        let method = service.methods().find(|known| known.name() == method).unwrap();
        let path = PathAndQuery::try_from(format!("/{}/{}", service.full_name(), method.name())).unwrap();
        let request = DynamicMessage::deserialize(method.input(), request).unwrap();
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await.unwrap();
        let request = tonic::Request::new(Bytes::from(request.encode_to_vec()));
        let answer = client.unary(request, path, Whole).await?.into_inner();
        let answer = DynamicMessage::decode(method.output(), answer).unwrap();
        // Nothing is there that the protocol does not know.
        assert_eq!(answer.unknown_fields().count(), 0);
        let options =
            prost_reflect::SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
        Ok(answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
    }
}

/// A mesh with a server that calls itself, its client and who reads its channelz.
struct Rig {
    mesh: Mesh,
    client: HealthClient<MeshChannel>,
    server: SocketAddr,
    reader: Reader,
}

async fn rig() -> Rig {
    let source = MemorySource::new([]);
    let mesh = Mesh::builder().source(source.clone()).build().unwrap();
    let bound = mesh.bind("127.0.0.1:0").await.unwrap();
    let (server, name) = (bound.local_addr(), bound.slot().target().to_string());
    source.set(encode(&[
        server_listener(&name, server, None),
        listener("greeter", &json!([forward("blue")])),
        cluster("blue", &[server]),
    ]));
    tokio::spawn(serve_on(bound, tonic_health::server::health_reporter().1));
    let client = HealthClient::new(MeshChannel::new(&mesh, "xds:///greeter").unwrap());
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", port.local_addr().unwrap());
    tokio::spawn(Admin::new(&mesh).serve_on(port));
    let channel = Channel::from_shared(at).unwrap().connect().await.unwrap();
    Rig { mesh, client, server, reader: Reader(channel, DescriptorPool::decode(DESCRIPTORS).unwrap()) }
}

impl Rig {
    async fn call(&mut self, service: &str) -> GrpcCode {
        let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        request.extensions_mut().insert(WaitForReady);
        let answer = timeout(PATIENCE, self.client.check(request)).await.unwrap();
        answer.map_or_else(|status| status.code(), |_| GrpcCode::Ok)
    }
}

#[tokio::test]
async fn a38_a_client_is_a_channel_and_its_endpoints_are_subchannels() {
    let mut it = rig().await;
    let all = it.reader.ask("GetTopChannels", json!({})).await.unwrap();
    assert_eq!((all["channel"].as_array().unwrap().len(), &all["end"]), (1, &json!(true)));
    assert_eq!(all["channel"][0]["data"].get("calls_started"), None, "no call yet");
    for (service, code) in [("", GrpcCode::Ok), ("", GrpcCode::Ok), ("nobody", GrpcCode::NotFound)] {
        assert_eq!(it.call(service).await, code);
    }
    let all = it.reader.ask("GetTopChannels", json!({})).await.unwrap();
    let channel = &all["channel"][0];
    let data = &channel["data"];
    assert_eq!((&data["target"], &data["state"]["state"]), (&json!("greeter"), &json!("READY")));
    assert_eq!((&data["calls_started"], &data["calls_succeeded"]), (&json!(3), &json!(2)));
    assert_eq!(data["calls_failed"], json!(1), "the server's own error is one to gRPC");
    assert!(data["last_call_started_timestamp"].as_str().unwrap().starts_with("20"));
    let id = &channel["ref"]["channel_id"];
    let same = it.reader.ask("GetChannel", json!({ "channel_id": id })).await.unwrap();
    assert_eq!(same["channel"]["ref"], channel["ref"]);

    let [subchannel] = &channel["subchannel_ref"].as_array().unwrap()[..] else { panic!("{channel}") };
    let id = &subchannel["subchannel_id"];
    let found = it.reader.ask("GetSubchannel", json!({ "subchannel_id": id })).await.unwrap();
    let data = &found["subchannel"]["data"];
    assert_eq!((&data["target"], &data["state"]["state"]), (&json!(it.server.to_string()), &json!("READY")));
    assert_eq!((&data["calls_started"], &data["calls_succeeded"]), (&json!(3), &json!(3)));
    let again = it.reader.ask("GetTopChannels", json!({})).await.unwrap();
    assert_eq!(again["channel"][0]["subchannel_ref"][0]["subchannel_id"], *id, "an endpoint keeps its number");
}

#[tokio::test]
async fn a38_a_listening_address_is_a_server_and_its_connections_are_sockets() {
    let mut it = rig().await;
    for (service, code) in [("", GrpcCode::Ok), ("nobody", GrpcCode::NotFound)] {
        assert_eq!(it.call(service).await, code);
    }
    let all = it.reader.ask("GetServers", json!({})).await.unwrap();
    let [server] = &all["server"].as_array().unwrap()[..] else { panic!("{all}") };
    assert_eq!(server["ref"]["name"], json!(it.server.to_string()));
    let data = &server["data"];
    // The caller's mistake is none of the server's.
    assert_eq!((&data["calls_started"], &data["calls_succeeded"]), (&json!(2), &json!(2)));
    let id = &server["ref"]["server_id"];
    assert_eq!(it.reader.ask("GetServer", json!({ "server_id": id })).await.unwrap()["server"]["ref"], server["ref"]);
    let sockets = it.reader.ask("GetServerSockets", json!({ "server_id": id })).await.unwrap();
    let [socket] = &sockets["socket_ref"].as_array().unwrap()[..] else { panic!("{sockets}") };
    let found = it.reader.ask("GetSocket", json!({ "socket_id": socket["socket_id"] })).await.unwrap();
    let found = &found["socket"];
    assert_eq!(found["local"]["tcpip_address"], json!({ "ip_address": "fwAAAQ==", "port": it.server.port() }));
    assert_eq!(found["remote"]["tcpip_address"]["ip_address"], json!("fwAAAQ=="));
    assert_eq!(found.get("security"), None, "it is in plaintext");
    // A connection that is gone is listed no more.
    it.mesh.shutdown(Duration::ZERO).await;
    assert!(it.mesh.client_traffic().iter().all(|client| client.calls.started == 2));
}

#[tokio::test]
async fn a38_pages_and_numbers_that_nobody_has() {
    let it = rig().await;
    let clients: Vec<_> = (0..250).map(|_| it.mesh.client("xds:///greeter").unwrap()).collect();
    let (mut seen, mut start) = (Vec::new(), 0);
    for page in 1.. {
        let asked = json!({ "start_channel_id": start, "max_results": 90 });
        let answer = it.reader.ask("GetTopChannels", asked).await.unwrap();
        let channels = answer["channel"].as_array().unwrap();
        seen.extend(channels.iter().map(|channel| channel["ref"]["channel_id"].as_i64().unwrap()));
        start = seen.last().unwrap() + 1;
        if answer.get("end") == Some(&json!(true)) {
            assert_eq!(page, 3);
            break;
        }
        assert_eq!(channels.len(), 90);
    }
    assert_eq!(seen.len(), 251, "each once");
    assert!(seen.is_sorted());
    let most = it.reader.ask("GetTopChannels", json!({ "max_results": 100_000 })).await.unwrap();
    assert_eq!(most["channel"].as_array().unwrap().len(), 100, "no answer is larger");
    drop(clients);
    let left = it.reader.ask("GetTopChannels", json!({})).await.unwrap();
    assert_eq!(left["channel"].as_array().unwrap().len(), 1, "a client that is gone is listed no more");
    for (method, field) in [
        ("GetChannel", "channel_id"),
        ("GetSubchannel", "subchannel_id"),
        ("GetServer", "server_id"),
        ("GetServerSockets", "server_id"),
        ("GetSocket", "socket_id"),
    ] {
        let status = it.reader.ask(method, json!({ field: i64::MAX - 1 })).await.unwrap_err();
        assert_eq!(status.code(), GrpcCode::NotFound, "{method}");
    }
}
