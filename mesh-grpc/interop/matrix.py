"""The matrix of peers: who takes configuration from whom, and who calls whom.

    matrix.py --release DIR --peer FILE --python FILE --out DIR [CASE...]

A case is a function below with `@case`. Each has its own folder, with the log of every process of it. Cases named `peers_*`
have nothing of ours in them: when one of those is red, look at the peers and not at the mesh.
"""

import argparse
import collections
import pathlib
import sys
import time
import traceback

from peers import Failure, Place, expect, free_address, spiffe
from resources import backends, document, server_listener, target

CASES = {}
TARGET = "greeter:50051"
Tools = collections.namedtuple("Tools", "release peer python scripts")


def case(function):
    """Adds a case to the matrix."""
    CASES[function.__name__] = function
    return function


def all_well(came, count):
    """All calls came back, and from where."""
    expect(came["ok"] == count and not came["errors"], f"{came} of {count} calls")
    return came.get("peers") or came.get("names")


def until(ask, true, what, patience=20):
    """Asks again until the answer is right: a change takes as long as it takes, within reason."""
    end = time.monotonic() + patience
    while not true(answer := ask()):
        expect(time.monotonic() < end, f"{what}: {answer}")
    return answer


def put(control_plane, configuration):
    """Puts a configuration of the Go control plane in force."""
    control_plane.tell(configuration)
    control_plane.hear(lambda line: line.get("set") == configuration["version"])


def no_nack(control_plane):
    """No client refused anything, and some took something."""
    heard = control_plane.all_heard()
    refused = [line for line in heard if line.get("said") == "NACK"]
    expect(not refused, f"refused: {refused}")
    expect(any(line.get("said") == "ACK" for line in heard), "no client acknowledged anything")


# ---- the peers alone ----


@case
def peers_go_client_takes_updates_of_go_control_plane(place):
    a, b = (place.go(name, "server").address() for name in "ab")
    control = place.go("control-plane", "control-plane")
    bootstrap = place.bootstrap(control.address())
    put(control, {"version": "1", "targets": [{"name": TARGET, "clusters": [{"name": "a", "backends": [a]}]}]})
    client = place.go("client", "client", "-target", f"xds:///{TARGET}", bootstrap=bootstrap)
    expect(set(all_well(client.ask("20"), 20)) == {a}, "not from the first backend")
    put(control, {"version": "2", "targets": [{"name": TARGET, "clusters": [{"name": "b", "backends": [b]}]}]})
    # grpc-go may fail calls between taking the route and building the picker; that is not ours to judge.
    until(lambda: client.ask("20"), lambda came: came["peers"] == {b: 20}, "not from the second backend")
    no_nack(control)


@case
def peers_c_core_calls_go_over_mtls(place):
    place.certificates("client", "server")
    address = free_address()
    control = place.go("control-plane", "control-plane")
    at = control.address()
    tls = {"instance": "default", "spiffe": spiffe("server")}
    put(
        control,
        {
            "version": "1",
            "targets": [{"name": TARGET, "clusters": [{"name": "a", "backends": [address], "tls": tls}]}],
            "servers": [{"address": address, "tls": {"instance": "default"}}],
        },
    )
    server = place.go("server", "server", "-listen", address, "-xds", bootstrap=place.bootstrap(at, "server"))
    server.hear(lambda line: line.get("serving") == "SERVING")
    for name, client in {
        "c-core": place.python("c-core", "client", "--target", f"xds:///{TARGET}", bootstrap=place.bootstrap(at, "client")),
        "go": place.go("go", "client", "-target", f"xds:///{TARGET}", bootstrap=place.bootstrap(at, "client")),
    }.items():
        expect(client.ask("20")["ok"] == 20, f"{name}: {client.all_heard()}")
    plain = place.go("plain", "client", "-target", address)
    expect(plain.ask("1")["ok"] == 0, "the server took a plaintext call")
    no_nack(control)


# ---- a client of ours ----


def probe(place, name, bootstrap, seconds, *more):
    """Our client under load of 100 calls a second."""
    load = ["--rps", "100", "--seconds", str(seconds), "--json"]
    method = ["--grpc", "--method", "grpc.health.v1.Health/Check"]
    return place.ours(name, "probe", "--target", f"xds:///{TARGET}", *method, *load, *more, bootstrap=bootstrap)


def nothing_lost(came):
    """The counts per endpoint of a run in which every call succeeded."""
    expect(came["sent"] > 0 and came["lost"] == 0 and came["ok"] == came["sent"], f"{came}")
    return came["endpoints"]


@case
def our_client_follows_go_control_plane_through_an_update(place):
    a, b = (place.go(name, "server").address() for name in "ab")
    control = place.go("control-plane", "control-plane")
    bootstrap = place.bootstrap(control.address())
    put(control, {"version": "1", "targets": [{"name": TARGET, "clusters": [{"name": "a", "backends": [a]}]}]})
    client = probe(place, "probe", bootstrap, 6)
    control.hear(lambda line: line.get("said") == "ACK" and "ClusterLoadAssignment" in line["type"])
    time.sleep(2)
    # Both the route's cluster and its endpoints change: a tear between the two would lose calls.
    put(control, {"version": "2", "targets": [{"name": TARGET, "clusters": [{"name": "b", "backends": [b]}]}]})
    endpoints = nothing_lost(client.output(60))
    expect(endpoints.get(a, 0) > 50 and endpoints.get(b, 0) > 50, f"not both backends: {endpoints}")
    no_nack(control)


@case
def our_client_follows_go_control_plane_through_a_removal(place):
    """gRFC A88: with `fail_on_data_errors` a deletion takes effect, without it the last good configuration stays."""
    a = place.go("a", "server").address()
    control = place.go("control-plane", "control-plane")
    at = control.address()
    everything = {"version": "1", "targets": [{"name": TARGET, "clusters": [{"name": "a", "backends": [a]}]}]}
    for feature, is_lost in {"": False, "fail_on_data_errors": True}.items():
        put(control, everything)
        bootstrap = place.bootstrap(at, features=[feature] if feature else [])
        client = probe(place, f"probe-{feature or 'default'}", bootstrap, 5)
        control.hear(lambda line: line.get("said") == "ACK" and "ClusterLoadAssignment" in line["type"])
        time.sleep(2)
        put(control, {"version": "2", "targets": []})
        came = client.output(60)
        expect(came["endpoints"].get(a, 0) > 50, f"{feature}: {came}")
        if is_lost:
            codes = list(came["errors"])
            expect(came["lost"] > 50 and all(code.startswith("MESH-") for code in codes), f"{feature}: {came}")
        else:
            nothing_lost(came)
        everything["version"] = "3"
    no_nack(control)


def ours_calls(place, server, identity):
    """Our client, configured by our control plane, calls the server at an address over mTLS."""
    tls = spiffe(identity)
    file = place.write("mesh.yaml", document(target(TARGET, backends("a", [server], tls))))
    control = place.ours("control-plane", "control-plane", file, "--listen", at := free_address())
    client = probe(place, "probe", place.bootstrap(at, "client"), 3)
    endpoints = nothing_lost(client.output(60))
    expect(set(endpoints) == {server}, f"{endpoints}")
    return control


@case
def our_client_calls_c_core_over_mtls(place):
    place.certificates("client", "server")
    files = [place.folder / name for name in ("ca.pem", "server.pem", "server.key")]
    server = place.python("server", "server", "--mtls", *files)
    ours_calls(place, server.address(), "server")
    callers = server.ask("who")["callers"]
    expect(set(callers) == {spiffe("client")}, f"the server saw {callers}")


@case
def our_client_refuses_c_core_with_another_identity(place):
    place.certificates("client", "server")
    files = [place.folder / name for name in ("ca.pem", "server.pem", "server.key")]
    server = place.python("server", "server", "--mtls", *files)
    file = place.write("mesh.yaml", document(target(TARGET, backends("a", [server.address()], spiffe("other")))))
    place.ours("control-plane", "control-plane", file, "--listen", at := free_address())
    came = probe(place, "probe", place.bootstrap(at, "client"), 3).output(60)
    expect(came["ok"] == 0 and came["lost"] > 0, f"{came}")
    expect(server.ask("who")["callers"] == {}, "a call reached the server")


@case
def our_client_calls_go_as_an_xds_server_of_our_control_plane(place):
    place.certificates("client", "server")
    address = free_address()
    resources = [*target(TARGET, backends("a", [address], spiffe("server"))), server_listener(address, is_tls=True)]
    file = place.write("mesh.yaml", document(resources))
    place.ours("control-plane", "control-plane", file, "--listen", at := free_address())
    server = place.go("server", "server", "-listen", address, "-xds", bootstrap=place.bootstrap(at, "server"))
    server.hear(lambda line: line.get("serving") == "SERVING")
    endpoints = nothing_lost(probe(place, "probe", place.bootstrap(at, "client"), 3).output(60))
    expect(set(endpoints) == {address}, f"{endpoints}")


# ---- a server and a control plane of ours ----


def our_servers(place, at, addresses):
    """Our servers, named by their order, each over mTLS as the control plane's Listener for its address says."""
    for number, address in enumerate(addresses, 1):
        identity = place.bootstrap(at, "server")
        place.ours(f"v{number}", "backend", "--listen", address, "--name", f"v{number}", "--grpc", bootstrap=identity)


def configuration(v1, v2, weights):
    """Both versions of our server, with so many shares of the calls each."""
    clusters = [backends("v1", [v1], spiffe("server"), weights[0]), backends("v2", [v2], spiffe("server"), weights[1])]
    servers = [server_listener(address, is_tls=True) for address in (v1, v2)]
    return document([*target(TARGET, *clusters), *servers])


def follows_our_control_plane(place, start, who):
    """A client of theirs follows our control plane through an update and calls our servers over mTLS."""
    place.certificates("client", "server")
    v1, v2, at = free_address(), free_address(), free_address()
    file = place.write("mesh.yaml", configuration(v1, v2, (100, 0)))
    place.ours("control-plane", "control-plane", file, "--listen", at)
    our_servers(place, at, (v1, v2))
    client = start(place.bootstrap(at, "client"))
    # Servers of ours take a moment to be there; what comes after that is held against us.
    until(lambda: client.ask("1"), lambda came: came["ok"] == 1, "no call came through")
    expect(set(all_well(client.ask("50"), 50)) == {who(v1, "v1")}, "not from v1 alone")
    place.write("mesh.yaml", configuration(v1, v2, (0, 100)))
    moved = {who(v2, "v2"): 20}
    until(lambda: client.ask("20"), lambda came: (came.get("peers") or came.get("names")) == moved, "never from v2 alone")
    # Nobody without a certificate of the mesh.
    plain = place.go("plain", "client", "-target", v1)
    expect(plain.ask("1")["ok"] == 0, "our server took a plaintext call")


@case
def c_core_takes_our_control_plane_and_calls_our_server_over_mtls(place):
    def start(bootstrap):
        return place.python("client", "client", "--target", f"xds:///{TARGET}", bootstrap=bootstrap)

    follows_our_control_plane(place, start, lambda address, name: name)


@case
def go_takes_our_control_plane_and_calls_our_server_over_mtls(place):
    def start(bootstrap):
        return place.go("client", "client", "-target", f"xds:///{TARGET}", bootstrap=bootstrap)

    follows_our_control_plane(place, start, lambda address, name: address)


# ---- the run ----


def run(name, place):
    """Whether the case held."""
    start, why = time.monotonic(), ""
    try:
        with place:
            CASES[name](place)
    except Failure as failure:
        why = str(failure)
    except Exception:  # A fault of the driver is a red case too.
        why = traceback.format_exc()
    print(f"{'FAILED' if why else 'ok':6} {name} ({time.monotonic() - start:.1f} s)", flush=True)
    if why:
        print("  " + why.replace("\n", "\n  ") + f"\n  logs: {place.folder}", flush=True)
    return not why


def main():
    flags = argparse.ArgumentParser()
    for name in ("release", "peer", "python", "out"):
        flags.add_argument(f"--{name}", type=pathlib.Path, required=True)
    flags.add_argument("cases", nargs="*", help="beginnings of names; all without")
    flags = flags.parse_args()
    # Not resolved: a venv's python is a link, and knows its venv by its own name.
    tools = Tools(flags.release, flags.peer, flags.python, pathlib.Path(__file__).parent / "python")
    names = [name for name in CASES if not flags.cases or name.startswith(tuple(flags.cases))]
    held = [run(name, Place(flags.out / name, tools)) for name in names]
    print(f"interop: {held.count(True)} passed, {held.count(False)} failed")
    sys.exit(not held or not all(held))


main()
