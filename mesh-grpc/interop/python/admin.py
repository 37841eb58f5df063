"""Reads an admin port as gRPC's own tools do: CSDS, channelz, health and reflection, by the stubs that gRPC ships.

Each line of stdin is an address; what is read there is said as JSON. It ends when stdin does.
"""

import ipaddress
import json
import sys

import grpc
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE = 10
TYPES = {
    "type.googleapis.com/envoy.config.listener.v3.Listener": listener_pb2.Listener,
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": route_pb2.RouteConfiguration,
    "type.googleapis.com/envoy.config.cluster.v3.Cluster": cluster_pb2.Cluster,
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment": endpoint_pb2.ClusterLoadAssignment,
}


def resource(config):
    """A resource, whose bytes must be those of its type."""
    parsed = TYPES[config.type_url].FromString(config.xds_config.value) if config.HasField("xds_config") else None
    return {
        "type": config.type_url.rsplit(".", 1)[1],
        "name": config.name,
        "named": (getattr(parsed, "name", "") or getattr(parsed, "cluster_name", "")) if parsed else None,
        "version": config.version_info,
        "status": config_dump_shared_pb2.ClientResourceStatus.Name(config.client_status),
        "updated": config.last_updated.seconds,
        "error": config.error_state.details,
    }


def csds(channel):
    stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
    fetched = stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=PATIENCE)
    streamed = list(stub.StreamClientStatus(iter([csds_pb2.ClientStatusRequest()] * 2), timeout=PATIENCE))
    return {
        "streamed": [len(answer.config) for answer in streamed],
        "clients": [
            {
                "node": client.node.id,
                "agent": client.node.user_agent_name,
                "scope": client.client_scope,
                "resources": [resource(config) for config in client.generic_xds_configs],
            }
            for client in fetched.config
        ],
    }


def address(socket):
    return f"{ipaddress.ip_address(socket.tcpip_address.ip_address)}:{socket.tcpip_address.port}"


def calls(data):
    return {"started": data.calls_started, "succeeded": data.calls_succeeded, "failed": data.calls_failed}


def channelz(channel):
    stub = channelz_pb2_grpc.ChannelzStub(channel)

    def subchannel(ref):
        request = channelz_pb2.GetSubchannelRequest(subchannel_id=ref.subchannel_id)
        data = stub.GetSubchannel(request, timeout=PATIENCE).subchannel.data
        return {"target": data.target, "state": state(data), **calls(data)}

    def state(data):
        return channelz_pb2.ChannelConnectivityState.State.Name(data.state.state)

    def sockets(server):
        request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
        for ref in stub.GetServerSockets(request, timeout=PATIENCE).socket_ref:
            socket = stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=ref.socket_id), timeout=PATIENCE).socket
            tls = bool(socket.security.tls.remote_certificate)
            yield {"local": address(socket.local), "remote": address(socket.remote), "name": socket.remote_name, "tls": tls}

    channels = stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest(), timeout=PATIENCE).channel
    servers = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE).server
    return {
        "channels": [
            {
                "target": channel.data.target,
                "state": state(channel.data),
                **calls(channel.data),
                "subchannels": [subchannel(ref) for ref in channel.subchannel_ref],
            }
            for channel in channels
        ],
        "servers": [{"name": one.ref.name, **calls(one.data), "sockets": list(sockets(one))} for one in servers],
    }


def reflection(channel):
    """The services, with their methods as their descriptors have them."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = database.get_services()
    return {name: [method.name for method in pool.FindServiceByName(name).methods] for name in services}


def health(channel):
    status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def main():
    for line in sys.stdin:
        with grpc.insecure_channel(line.strip()) as channel:
            try:
                read = {of.__name__: of(channel) for of in (csds, channelz, health, reflection)}
            except grpc.RpcError as error:
                read = {"error": f"{error.code().name}: {error.details()}"}
        print(json.dumps(read), flush=True)


main()
