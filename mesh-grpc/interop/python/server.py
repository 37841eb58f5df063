"""A gRPC C-core server of grpc.health.v1.Health: plain, with certificates from files, or as its xDS Listener says.

It ends when stdin does. For each line of stdin it says how many calls it took, and from whom, as JSON.
"""

import argparse
import collections
import json
import pathlib
import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    """Always healthy; remembers the identities of its callers."""

    def __init__(self, name):
        self.name, self.callers = name, collections.Counter()

    def Check(self, request, context):
        identities = context.auth_context().get("peer_spiffe_id", [b""])
        self.callers.update(identity.decode() for identity in identities)
        context.send_initial_metadata((("x-backend", self.name),))
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def credentials(files):
    authority, certificate, key = (pathlib.Path(file).read_bytes() for file in files)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--listen", default="127.0.0.1:0")
    flags.add_argument("--name", default="grpcio")
    flags.add_argument("--mtls", nargs=3, metavar=("CA", "CERTIFICATE", "KEY"))
    flags.add_argument("--xds", action="store_true")
    flags = flags.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(4), xds=flags.xds)
    health = Health(flags.name)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if flags.xds:
        own = grpc.xds_server_credentials(grpc.insecure_server_credentials())
        port = server.add_secure_port(flags.listen, own)
    elif flags.mtls:
        port = server.add_secure_port(flags.listen, credentials(flags.mtls))
    else:
        port = server.add_insecure_port(flags.listen)
    server.start()
    host = flags.listen.rsplit(":", 1)[0]
    print(json.dumps({"listening": f"{host}:{port}"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"callers": health.callers}), flush=True)
    server.stop(0)


main()
