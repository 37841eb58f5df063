"""A gRPC C-core client: calls Health/Check as often as each line of stdin says, and says what came of it, as JSON.

A line may name another target after the number. It ends when stdin does. mTLS where the cluster says so, plaintext where it
says nothing (gRFC A29).
"""

import argparse
import collections
import contextlib
import json
import sys

import grpc
import grpc.experimental
from grpc_health.v1 import health_pb2, health_pb2_grpc

# What is meant by a cluster that says nothing of TLS (gRFC A29).
PLAINTEXT = grpc.experimental.insecure_channel_credentials()


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
    stubs = {}
    with contextlib.ExitStack() as channels:
        for line in sys.stdin:
            count, *other = line.split()
            target = other[0] if other else flags.target
            if target not in stubs:
                # Each with credentials of its own: subchannels of one address must not be shared over two policies.
                channel = grpc.secure_channel(target, grpc.xds_channel_credentials(PLAINTEXT))
                stubs[target] = health_pb2_grpc.HealthStub(channels.enter_context(channel))
            print(json.dumps(calls(stubs[target], int(count), flags.timeout, flags.header)), flush=True)


main()
