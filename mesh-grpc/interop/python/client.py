"""A gRPC C-core client: calls Health/Check as often as each line of stdin says, and says what came of it, as JSON.

It ends when stdin does. mTLS where the cluster says so, plaintext where it says nothing (gRFC A29).
"""

import argparse
import collections
import json
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def calls(stub, count, timeout, header):
    ok, names, errors = 0, collections.Counter(), collections.Counter()
    for _ in range(count):
        try:
            _, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=timeout)
            ok += 1
            # The synchronous API does not tell the peer's address, so a server says who it is.
            names.update(value for key, value in call.initial_metadata() if key == header)
        except grpc.RpcError as error:
            errors[f"{error.code().name}: {error.details()}"] += 1
    return {"ok": ok, "names": names, "errors": errors}


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--target", required=True)
    flags.add_argument("--timeout", type=float, default=10)
    flags.add_argument("--header", default="x-backend", help="the response header in which a server says its name")
    flags = flags.parse_args()
    credentials = grpc.xds_channel_credentials()
    with grpc.secure_channel(flags.target, credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for line in sys.stdin:
            print(json.dumps(calls(stub, int(line), flags.timeout, flags.header)), flush=True)


main()
