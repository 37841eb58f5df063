"""The matrix of peers: who takes configuration from whom, and who calls whom.

    matrix.py --release DIR --peer FILE --python FILE --out DIR [CASE...]

A case is a function below with `@case`. Each has its own folder, with the log of every process of it. Cases named `peers_*`
have nothing of ours in them: when one of those is red, look at the peers and not at the mesh.
"""

import argparse
import collections
import json
import pathlib
import signal
import sys
import tempfile
import time
import traceback

import openssl
import scripted
import security
from peers import Failure, Place, expect, free_address, listening, spiffe, until
from resources import backends, document, kinds, server_listener, target

CASES = {}
TARGET = scripted.NAME
Tools = collections.namedtuple("Tools", "release peer python scripts")


def case(function):
    """Adds a case to the matrix."""
    CASES[function.__name__] = function
    return function


def all_well(came, count):
    """All calls came back, and from where."""
    expect(came["ok"] == count and not came["errors"], f"{came} of {count} calls")
    return came.get("peers") or came.get("names")


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


# ---- a control plane of ours, and no other part ----


def our_log_has_no_nack(place):
    """No client of our control plane refused anything, by its own log."""
    log = (place.folder / "control-plane.log").read_text()
    expect("asks for" in log, f"nobody asked: {log}")
    expect("NACK" not in log, f"refused: {log}")


def our_control_plane(place, resources, name="control-plane"):
    """Our control plane serving a file; its address, and how to change the file."""
    at = free_address()
    file = place.write(f"{name}.yaml", document(resources))
    peer = place.ours(name, "control-plane", file, "--listen", at)
    listening(at, peer)
    return at, lambda resources: place.write(f"{name}.yaml", document(resources))


def greeters(addresses, weights):
    """Servers of TARGET at these addresses, in clusters v1, v2, ... over mTLS, with the Listener of each."""
    numbered = enumerate(zip(addresses, weights, strict=True), 1)
    clusters = [backends(f"v{number}", [address], spiffe("server"), weight) for number, (address, weight) in numbered]
    return [*target(TARGET, *clusters), *(server_listener(address, is_tls=True) for address in addresses)]


def their_client(place, kind, bootstrap):
    """A client of gRPC's."""
    if kind == "go":
        return place.go(kind, "client", "-target", f"xds:///{TARGET}", bootstrap=bootstrap)
    return place.python(kind, "client", "--target", f"xds:///{TARGET}", bootstrap=bootstrap)


def their_clients(place, at):
    """A client of each kind for our control plane."""
    for kind in ("go", "c-core"):
        yield their_client(place, kind, place.bootstrap(at, "client"))


@case
def their_clients_and_servers_take_our_control_plane(place):
    place.certificates("client", "server")
    go, c_core = free_address(), free_address()
    at, change = our_control_plane(place, greeters((go, c_core), (100, 0)))
    server = place.go("go-server", "server", "-listen", go, "-xds", bootstrap=place.bootstrap(at, "server"))
    server.hear(lambda line: line.get("serving") == "SERVING")
    other = place.python("c-core-server", "server", "--listen", c_core, "--xds", bootstrap=place.bootstrap(at, "server"))
    other.address()
    clients = list(their_clients(place, at))
    for client in clients:
        until(lambda: client.ask("1"), lambda came: came["ok"] == 1, f"{client.name}: no call came through")
        all_well(client.ask("20"), 20)
    expect(other.ask("who")["callers"] == {}, "calls reached a cluster of weight 0")
    change(greeters((go, c_core), (0, 100)))
    for client in clients:
        # All calls of a round came to the other server: the update is in force.
        moved = lambda before: (client.ask("20")["ok"], other.ask("who")["callers"].get(spiffe("client"), 0) - before)
        count = lambda: other.ask("who")["callers"].get(spiffe("client"), 0)
        until(lambda: moved(count()), lambda came: came == (20, 20), f"{client.name} stays with the first cluster")
    expect(set(other.ask("who")["callers"]) == {spiffe("client")}, "callers are not known by their identity")
    our_log_has_no_nack(place)


@case
def their_clients_understand_the_standard_kinds(place):
    """Service, EndpointSlice, GRPCRoute and BackendTLSPolicy mean to any gRPC what they mean to ours."""
    place.certificates("client", "server")
    addresses = [free_address(), free_address()]

    def resources(*weights):
        versions = [(address, spiffe("server"), weight) for address, weight in zip(addresses, weights, strict=True)]
        return [*kinds(TARGET, versions), *(server_listener(address, is_tls=True) for address in addresses)]

    at, change = our_control_plane(place, resources(100, 0))
    for number, address in enumerate(addresses, 1):
        server = place.go(f"v{number}", "server", "-listen", address, "-xds", bootstrap=place.bootstrap(at, "server"))
        server.hear(lambda line: line.get("serving") == "SERVING")
    go, c_core = their_clients(place, at)
    until(lambda: go.ask("20")["peers"], lambda peers: peers == {addresses[0]: 20}, "not from v1 alone")
    until(lambda: c_core.ask("20")["ok"], lambda ok: ok == 20, "C-core: calls fail")
    change(resources(0, 100))
    until(lambda: go.ask("20")["peers"], lambda peers: peers == {addresses[1]: 20}, "never from v2 alone")
    until(lambda: c_core.ask("20")["ok"], lambda ok: ok == 20, "C-core: calls fail after the update")
    our_log_has_no_nack(place)


# ---- a client of ours ----


def probe(place, name, bootstrap, seconds, *more, **environment):
    """Our client under load of 100 calls a second."""
    load = ["--rps", "100", "--seconds", str(seconds), "--json"]
    method = ["--grpc", "--method", "grpc.health.v1.Health/Check"]
    return place.ours(name, "probe", "--target", f"xds:///{TARGET}", *method, *load, *more, bootstrap=bootstrap, **environment)


def nothing_lost(came):
    """The counts per endpoint of a run in which every call succeeded."""
    expect(came["sent"] > 0 and came["lost"] == 0 and came["ok"] == came["sent"], f"{came}")
    return came["endpoints"]


def only_lost_to(code, came):
    """What a run lost, it lost for one reason."""
    expect(came["errors"] == {code: came["lost"]}, f"not {code} alone: {came}")


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
    """gRFC A88: with `fail_on_data_errors` a deletion takes effect, without it the last good configuration stays. In either
    protocol."""
    a = place.go("a", "server").address()
    control = place.go("control-plane", "control-plane")
    at = control.address()
    everything = {"version": "1", "targets": [{"name": TARGET, "clusters": [{"name": "a", "backends": [a]}]}]}
    for features in ([], ["fail_on_data_errors"], ["fail_on_data_errors", "delta_grpc"]):
        put(control, everything)
        bootstrap = place.bootstrap(at, features=features)
        client = probe(place, "-".join(["probe", *features]), bootstrap, 5)
        control.hear(lambda line: line.get("said") == "ACK" and "ClusterLoadAssignment" in line["type"])
        time.sleep(2)
        put(control, {"version": "2", "targets": []})
        came = client.output(60)
        expect(came["endpoints"].get(a, 0) > 50, f"{features}: {came}")
        if features:
            expect(came["lost"] > 50, f"{features}: {came}")
            only_lost_to("MESH-112", came)  # The resource does not exist.
        else:
            nothing_lost(came)
        everything["version"] = "3"
    no_nack(control)


@case
def our_client_follows_go_control_plane_incrementally(place):
    """Incremental ADS: an update, and a new stream to a control plane that has been restarted, which sends nothing that the
    client says to have."""
    a, b = (place.go(name, "server").address() for name in "ab")
    on = lambda name, at: {"version": name, "targets": [{"name": TARGET, "clusters": [{"name": name, "backends": [at]}]}]}
    control = place.go("control-plane", "control-plane")
    at = control.address()
    put(control, on("a", a))
    client = probe(place, "probe", place.bootstrap(at, features=["delta_grpc"]), 9)
    is_told = lambda kind, name: lambda line: (
        kind in line.get("type", "") and line["said"] == "ACK" and name in line["sent"]
    )
    control.hear(is_told("ClusterLoadAssignment", "a"))
    time.sleep(1)
    put(control, on("b", b))
    control.hear(is_told("ClusterLoadAssignment", "b"))
    control.hear(lambda line: "ClusterLoadAssignment" in line["type"] and line["unsubscribe"] == ["a"])
    expect(all(not line["has"] for line in control.all_heard() if "has" in line), "the first stream says to have something")
    control.kill()
    again = place.go("control-plane-again", "control-plane", "-listen", at)
    put(again, on("b", b))
    has = again.hear(lambda line: "ClusterLoadAssignment" in line.get("type", ""))
    expect((has["said"], has["subscribe"], list(has["has"])) == ("subscribe", ["b"], ["b"]), f"{has}")
    time.sleep(1)
    sent = [line for line in again.all_heard() if line.get("said") == "ACK"]
    expect(not sent, f"what the client had was sent again: {sent}")
    put(again, on("a", a))
    again.hear(is_told("ClusterLoadAssignment", "a"))
    endpoints = nothing_lost(client.output(60))
    expect(endpoints.get(a, 0) > 100 and endpoints.get(b, 0) > 50, f"not both backends: {endpoints}")
    no_nack(again)


@case
def our_client_weighs_go_servers_by_the_load_that_they_report(place):
    """gRFCs A51 and A58: in responses, and on a stream of its own."""
    for weigh in ("responses", "stream"):
        servers = [
            place.go(f"{weigh}-{name}", "server", "-load", load, "-saying", weigh).address()
            for name, load in (("busy", "0.9"), ("idle", "0.1"))
        ]
        control = place.go(f"control-plane-{weigh}", "control-plane")
        bootstrap = place.bootstrap(control.address())
        cluster = {"name": "a", "backends": servers, "weigh": weigh}
        put(control, {"version": "1", "targets": [{"name": TARGET, "clusters": [cluster]}]})
        endpoints = nothing_lost(probe(place, f"probe-{weigh}", bootstrap, 6).output(60))
        busy, idle = (endpoints.get(address, 0) for address in servers)
        # 1 to 9, once there are weights; 1 to 1 until then.
        expect(busy and idle > 4 * busy, f"{weigh}: {endpoints}")
        no_nack(control)


@case
def our_client_takes_a_go_server_without_reports_as_it_is(place):
    """gRFC A51: UNIMPLEMENTED is no failure. Nobody has a weight, and all get the same."""
    servers = [place.go(name, "server").address() for name in "ab"]
    control = place.go("control-plane", "control-plane")
    bootstrap = place.bootstrap(control.address())
    cluster = {"name": "a", "backends": servers, "weigh": "stream"}
    put(control, {"version": "1", "targets": [{"name": TARGET, "clusters": [cluster]}]})
    client = probe(place, "probe", bootstrap, 3)
    endpoints = nothing_lost(client.output(60))
    a, b = (endpoints.get(address, 0) for address in servers)
    # But for the first calls, when one may be connected earlier.
    expect(abs(a - b) <= 30, f"{endpoints}")
    said = [line for line in client.log.read_text().splitlines() if "UNIMPLEMENTED" in line]
    expect(len(said) == 2, f"not once for each server: {said}")


def total(reports, *path):
    """The sum of a number over reports; a path through a list goes through all of it."""
    if not path:
        return reports
    if isinstance(reports, list):
        return sum(total(report, *path) for report in reports)
    return total(reports.get(path[0], 0) or 0, *path[1:])


@case
def our_client_reports_its_load_to_a_go_server(place):
    """LRS: every request and every drop is told once, where it belongs (gRFCs A27, A64, A85)."""
    here = place.go("here", "server", "-load", "0.5", "-saying", "responses", "-fail", "4").address()
    elsewhere = place.go("elsewhere", "server").address()
    control = place.go("control-plane", "control-plane")
    bootstrap = place.bootstrap(control.address())
    wanted = ["application_utilization", "named_metrics.*"]
    cluster = {"name": "a", "backends": [here], "elsewhere": [elsewhere], "drop": 20, "load": wanted}
    put(control, {"version": "1", "targets": [{"name": TARGET, "clusters": [cluster]}]})
    # It stays for longer than the interval of the reports, which is a second.
    client = probe(place, "probe", bootstrap, 4, "--linger", "4")
    came = client.output(60)
    heard = control.all_heard()
    [hello] = [line for line in heard if "reporter" in line]
    expect((hello["reporter"], hello["early"]) == ("interop", 0), f"{hello}")
    expect("envoy.lrs.supports_send_all_clusters" in hello["features"], f"{hello}")
    reports = [line for line in heard if line.get("load") == "a"]
    expect(len(reports) >= 4 and all(0.9 < report["seconds"] < 10 for report in reports), f"{reports}")
    drops, failed = came["errors"].get("MESH-404", 0), came["errors"].get("GRPC-13", 0)
    expect(came["sent"] > 300 and drops > 20 and failed > 20, f"{came}")
    told = [total(reports, "dropped"), total(reports, "categories", "shed")]
    expect(told == [drops, drops], f"drops {told}: {came}")
    of = lambda region: [one for report in reports for one in report["localities"] or [] if one["region"] == region]
    for region, address, errors in (("here", here, failed), ("elsewhere", elsewhere, 0)):
        told = {name: total(of(region), name) for name in ("issued", "successful", "errors")}
        sent = came["endpoints"][address]
        expect(told == {"issued": sent, "successful": sent - errors, "errors": errors}, f"{region} {told}: {came}")
    metrics = [(total(of("here"), "metrics", name, "count"), total(of("here"), "metrics", name, "total")) for name in
               ("application_utilization", "named_metrics.queue")]
    sent = came["endpoints"][here]
    expect(metrics == [(sent, 0.5 * sent), (sent, 2.0 * sent)], f"{metrics} of {sent}")
    expect(not any(one["metrics"] for one in of("elsewhere")), f"{of('elsewhere')}")
    expect(reports[-1]["localities"] is None or not total(reports[-1:], "localities", "inProgress"), f"{reports[-1]}")
    no_nack(control)


@case
def our_client_reports_only_what_a_go_server_asks_for(place):
    """LRS: `clusters` without `send_all_clusters`."""
    a, b = (place.go(name, "server").address() for name in "ab")
    control = place.go("control-plane", "control-plane", "-load-of", "b")
    bootstrap = place.bootstrap(control.address())
    clusters = [{"name": name, "backends": [at], "load": []} for name, at in (("a", a), ("b", b))]
    put(control, {"version": "1", "targets": [{"name": TARGET, "clusters": clusters}]})
    client = probe(place, "probe", bootstrap, 3, "--linger", "3")
    endpoints = nothing_lost(client.output(60))
    reports = [line for line in control.all_heard() if "load" in line]
    expect({report["load"] for report in reports} == {"b"}, f"{reports}")
    expect(total(reports, "localities", "issued") == endpoints[b], f"{reports}: {endpoints}")


def c_core_server(place):
    """A C-core server with certificates from files."""
    place.certificates("client", "server")
    files = [place.folder / name for name in ("ca.pem", "server.pem", "server.key")]
    server = place.python("server", "server", "--mtls", *files)
    return server, server.address()


@case
def our_client_calls_c_core_over_mtls(place):
    server, address = c_core_server(place)
    at, _ = our_control_plane(place, target(TARGET, backends("a", [address], spiffe("server"))))
    endpoints = nothing_lost(probe(place, "probe", place.bootstrap(at, "client"), 3).output(60))
    expect(set(endpoints) == {address}, f"{endpoints}")
    our_log_has_no_nack(place)
    callers = server.ask("who")["callers"]
    expect(set(callers) == {spiffe("client")}, f"the server saw {callers}")


@case
def our_client_refuses_c_core_with_another_identity(place):
    server, address = c_core_server(place)
    at, _ = our_control_plane(place, target(TARGET, backends("a", [address], spiffe("other"))))
    came = probe(place, "probe", place.bootstrap(at, "client"), 3).output(60)
    expect(came["ok"] == 0 and came["lost"] > 0, f"{came}")
    only_lost_to("MESH-503", came)  # The peer is not who it must be.
    our_log_has_no_nack(place)
    expect(server.ask("who")["callers"] == {}, "a call reached the server")


@case
def our_client_calls_go_as_an_xds_server_of_our_control_plane(place):
    place.certificates("client", "server")
    address = free_address()
    at, _ = our_control_plane(place, greeters([address], [100]))
    server = place.go("server", "server", "-listen", address, "-xds", bootstrap=place.bootstrap(at, "server"))
    server.hear(lambda line: line.get("serving") == "SERVING")
    endpoints = nothing_lost(probe(place, "probe", place.bootstrap(at, "client"), 3).output(60))
    expect(set(endpoints) == {address}, f"{endpoints}")
    our_log_has_no_nack(place)


@case
def clients_ask_a_scripted_server_for_the_same(place):
    """Versions, nonces, NACKs, unsubscriptions and a new stream (`spec` 2.1 to 2.6), of grpc-go, C-core and us."""
    address = place.go("backend", "server").address()
    for kind in scripted.DIFFERS:
        server = place.go(f"{kind}-script", "scripted")
        bootstrap = place.bootstrap(server.address())
        if kind == "ours":
            probe(place, kind, bootstrap, 60)
        else:
            their_client(place, kind, bootstrap).tell("1")
        scripted.compare(kind, scripted.play(server, address))


# ---- a server and a control plane of ours ----


def our_servers(place, at, addresses):
    """Our servers v1, v2, ..., each as the control plane's Listener for its address says."""
    for number, address in enumerate(addresses, 1):
        bootstrap = place.bootstrap(at, "server")
        name = f"v{number}"
        listening(address, place.ours(name, "backend", "--listen", address, "--name", name, "--grpc", bootstrap=bootstrap))


@case
def their_clients_take_our_control_plane_and_call_our_servers_over_mtls(place):
    place.certificates("client", "server")
    v1, v2 = free_address(), free_address()
    at, change = our_control_plane(place, greeters((v1, v2), (100, 0)))
    our_servers(place, at, (v1, v2))
    clients = list(their_clients(place, at))
    who = {"go": {"v1": v1, "v2": v2}, "c-core": {"v1": "v1", "v2": "v2"}}
    for client in clients:
        # Servers of ours take a moment to serve; what comes after that is held against us.
        until(lambda: client.ask("1"), lambda came: came["ok"] == 1, f"{client.name}: no call came through")
        came = all_well(client.ask("50"), 50)
        expect(set(came) == {who[client.name]["v1"]}, f"{client.name}: not from v1 alone: {came}")
    change(greeters((v1, v2), (0, 100)))
    for client in clients:
        moved = {who[client.name]["v2"]: 20}
        answered = lambda came: (came.get("peers") or came.get("names")) == moved
        until(lambda: client.ask("20"), answered, f"{client.name}: never from v2 alone")
    plain = place.go("plain", "client", "-target", v1)
    expect(plain.ask("1")["ok"] == 0, "our server took a plaintext call")
    our_log_has_no_nack(place)


def rotates_under_load(place, kind):
    """Our client and our server have their certificates from Go, by `kind`, and change them with their CA under load."""
    # In a short folder: a socket's path has about a hundred bytes at most.
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        named = [f"{name}={spiffe(name)}" for name in ("client", "server")]
        issuer = place.go("issuer", "identities", "-dir", folder, *named)
        issuer.hear(lambda line: "listening" in line)

        def identity(name):
            return {"MESH_IDENTITY": f"{kind}:unix://{folder}/{name}.sock"}

        def calls(name, seconds):
            return probe(place, name, place.bootstrap(at), seconds, **identity("client"))

        address = free_address()
        at, _ = our_control_plane(place, greeters((address,), (100,)))
        server = ["backend", "--listen", address, "--name", "v1", "--grpc"]
        listening(address, place.ours("v1", *server, bootstrap=place.bootstrap(at), **identity("server")))
        # A server of ours takes a moment to serve; what comes after that is held against us.
        until(lambda: calls("first", 1).output(60), lambda came: came["lost"] == 0, "no call came through")
        load = calls("load", 8)
        time.sleep(2)
        for step in ("overlap", "finish"):
            before = len(issuer.all_heard())
            issuer.tell(step)

            def taken():
                time.sleep(0.1)
                return [line for line in issuer.all_heard()[before:] if line.get("said") == "ACK" or "fetched" in line]

            # By both: one that still trusted the old CA alone would be right to refuse the other.
            until(taken, lambda lines: len(lines) >= 2, f"{step} was not taken")
        # Who comes now trusts the new CA alone: the server shows a certificate of that one, and believes in it.
        expect(set(nothing_lost(calls("last", 1).output(60))) == {address}, "not after the rotation")
        nothing_lost(load.output(60))
        refused = [line for line in issuer.all_heard() if line.get("said") == "NACK"]
        expect(not refused, f"refused: {refused}")
        our_log_has_no_nack(place)


@case
def our_client_and_server_rotate_by_sds_of_go_control_plane(place):
    rotates_under_load(place, "sds")


@case
def our_client_and_server_rotate_by_the_workload_api_of_go_spiffe(place):
    rotates_under_load(place, "spiffe")


@case
def our_client_and_server_believe_each_other_by_federated_bundles_of_go_spiffe(place):
    """Of two trust domains with a CA each, each is told of the other's roots; who is told of its own alone believes nobody else."""
    partner = "spiffe://partner.test/ns/default/sa/server"
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        folders = {name: pathlib.Path(folder) / name for name in ("both", "alone")}
        named = {"both": (f"client={spiffe('client')}", f"server={partner}"), "alone": (f"client={spiffe('client')}",)}
        for name, where in folders.items():
            where.mkdir()
            place.go(name, "identities", "-dir", where, *named[name]).hear(lambda line: "listening" in line)
        of = lambda issuer, name: {"MESH_IDENTITY": f"spiffe:unix://{folders[issuer]}/{name}.sock"}
        address = free_address()
        resources = [*target(TARGET, backends("partner", [address], partner)), server_listener(address, is_tls=True)]
        at, _ = our_control_plane(place, resources)
        server = ["backend", "--listen", address, "--name", "v1", "--grpc"]
        listening(address, place.ours("v1", *server, bootstrap=place.bootstrap(at), **of("both", "server")))
        calls = lambda name, issuer: probe(place, name, place.bootstrap(at), 1, **of(issuer, "client")).output(60)
        # A server of ours takes a moment to serve; what comes after that is held against us.
        until(lambda: calls("first", "both"), lambda came: came["lost"] == 0, "no call came through")
        expect(set(nothing_lost(calls("federated", "both"))) == {address}, "not by the federated bundle")
        came = calls("alone", "alone")
        expect(came["ok"] == 0 and came["lost"] > 0, f"it believes a trust domain that it was not told of: {came}")
        our_log_has_no_nack(place)


@case
def their_clients_weigh_our_servers_by_the_load_that_they_report(place):
    """gRFCs A51 and A58: in trailers, and by our service of reports out of band."""
    place.certificates("client", "server")
    for weigh in ("responses", "stream"):
        addresses = {name: free_address() for name in ("busy", "idle")}
        cluster = backends("a", list(addresses.values()), spiffe("server"), weigh=weigh)
        listeners = [server_listener(address, is_tls=True) for address in addresses.values()]
        at, _ = our_control_plane(place, [*target(TARGET, cluster), *listeners], f"control-plane-{weigh}")
        for (name, address), load in zip(addresses.items(), ("0.9", "0.1"), strict=True):
            command = ["backend", "--listen", address, "--name", name, "--grpc", "--load", load, "--saying", weigh]
            listening(address, place.ours(f"{weigh}-{name}", *command, bootstrap=place.bootstrap(at, "server")))
        go, c_core = their_clients(place, at)
        for client, idle in ((go, addresses["idle"]), (c_core, "idle")):
            follows = lambda came: 85 <= (came.get("peers") or came.get("names")).get(idle, 0) <= 95
            until(lambda: client.ask("100"), follows, f"{client.name} does not weigh by {weigh}")


@case
def their_tools_read_our_admin_ports(place):
    """gRFC A38: CSDS, channelz, health and reflection of a client and of a server of ours, by gRPC's own stubs."""
    place.certificates("client", "server")
    address, of_server, of_client = free_address(), free_address(), free_address()
    at, _ = our_control_plane(place, greeters([address], [100]))
    server = ["backend", "--listen", address, "--name", "v1", "--grpc", "--admin", of_server]
    listening(address, place.ours("v1", *server, bootstrap=place.bootstrap(at, "server")))
    client = probe(place, "probe", place.bootstrap(at, "client"), 10, "--admin", of_client)
    reader = place.python("reader", "admin")
    is_called = lambda read: any(one["succeeded"] > 50 for one in read.get("channelz", {}).get("channels", []))
    read = until(lambda: reader.ask(of_client), is_called, "the client's calls are not told")
    [xds] = read["csds"]["clients"]
    expect((xds["node"], xds["scope"]) == ("client", "process") and xds["agent"], f"{xds}")
    expect(read["csds"]["streamed"] == [1, 1], f"{read['csds']}")
    found = {one["type"]: one for one in xds["resources"]}
    expect(set(found) == {"Listener", "RouteConfiguration", "Cluster", "ClusterLoadAssignment"}, f"{found}")
    for one in xds["resources"]:
        is_well = one["status"] == "ACKED" and one["version"] and one["updated"] > 1_700_000_000 and not one["error"]
        expect(is_well and one["named"] == one["name"], f"{one}")
    [channel] = read["channelz"]["channels"]
    expect((channel["target"], channel["state"]) == (TARGET, "READY"), f"{channel}")
    [subchannel] = channel["subchannels"]
    expect((subchannel["target"], subchannel["state"]) == (address, "READY"), f"{subchannel}")
    expect(read["health"] == "SERVING", f"{read['health']}")
    services = {
        "envoy.service.status.v3.ClientStatusDiscoveryService": ["StreamClientStatus", "FetchClientStatus"],
        "grpc.health.v1.Health": ["Check", "Watch"],
    }
    told = read["reflection"]
    expect(all(told.get(name) == methods for name, methods in services.items()), f"{told}")
    expect("GetTopChannels" in told["grpc.channelz.v1.Channelz"], f"{told}")
    # The server's side of the same connection.
    read = until(lambda: reader.ask(of_server), lambda read: "channelz" in read, "the server's admin port cannot be read")
    [served] = read["channelz"]["servers"]
    expect(served["name"] == address and served["succeeded"] > 50 and not served["failed"], f"{served}")
    [socket] = served["sockets"]
    expect((socket["local"], socket["name"], socket["tls"]) == (address, spiffe("client"), True), f"{socket}")
    [xds] = read["csds"]["clients"]
    expect([one["type"] for one in xds["resources"]] == ["Listener"], f"{xds}")
    nothing_lost(client.output(60))


# ---- Istio's CA, over real TLS ----

CA_LIFE = 12
"""Seconds that a certificate of the CA lives: renewals come within a case."""


def istio_ca(place, folder, trusted=None):
    """A CA in Go, and the provider of a client's bootstrap that has its certificate from it; `trusted` is another's folder."""
    folder = place.folder / folder
    folder.mkdir(exist_ok=True)
    named = [f"{name}={spiffe(name)}" for name in ("client", "server")]
    ca = place.go(f"ca-{folder.name}", "istio-ca", "-dir", folder, "-life", f"{CA_LIFE}s", *named)
    config = {
        "ca_address": ca.address(),
        "ca_root_file": str((trusted or folder) / "ca.pem"),
        "token_file": str(folder / "client.token"),
        "trust_domain": "interop.test",
    }
    return ca, {"default": {"plugin_name": "istio_ca", "config": config}}


def with_provider(place, at, provider):
    """A bootstrap whose certificates come from this provider."""
    made = json.loads(place.bootstrap(at).read_text())
    return place.write("bootstrap-istio.json", json.dumps({**made, "node": {"id": "client"}, "certificate_providers": provider}))


def issued(ca, count, patience=2 * CA_LIFE):
    """The first so many certificates of the client."""

    def so_far():
        time.sleep(0.1)
        return [line for line in ca.all_heard() if line.get("issued") == spiffe("client")]

    return until(so_far, lambda lines: len(lines) >= count, f"not {count} certificates", patience)


def go_servers_that_ask(place, folder):
    """Addresses of two servers that let in the client alone, our control plane for them, and how to start one of grpc-go."""
    shown = place.folder / folder
    for ending in ("pem", "key"):
        place.write(f"server.{ending}", (shown / f"server.{ending}").read_text())
    place.write("ca.pem", (shown / "ca.pem").read_text())
    addresses = free_address(), free_address()
    allowed = security.policy("mtls", "allowed")
    listeners = [server_listener(address, is_tls=True, filters=[allowed]) for address in addresses]
    clusters = backends("a", list(addresses), spiffe("server"))
    at, _ = our_control_plane(place, [*target(TARGET, clusters), *listeners])

    def start(name, address):
        server = place.go(name, "server", "-listen", address, "-xds", bootstrap=place.bootstrap(at, "server"))
        server.hear(lambda line: line.get("serving") == "SERVING")

    return at, addresses, start


@case
def our_client_has_its_identity_of_an_istio_ca_in_go(place):
    """By the token first, then by the certificate; through an outage; and grpc-go believes it (`spec/istio.md` 1.2)."""
    ca, provider = istio_ca(place, "ca")
    at, (one, other), start = go_servers_that_ask(place, "ca")
    start("one", one)
    load = probe(place, "load", with_provider(place, at, provider), 2 * CA_LIFE)
    first, second = issued(ca, 2)[:2]
    expect((first["by"], second["by"]) == ("token", "certificate"), f"{first} {second}")
    # At half of its life, give or take a twentieth of it.
    expect(second["at"] - first["at"] > 0.44 * CA_LIFE, f"renewed too early: {first} {second}")
    # While the CA is away, and a renewal is due, the certificate in hand is good for a handshake with who has just come.
    ca.tell("stop")
    start("other", other)
    time.sleep(max(0, second["at"] + 0.65 * CA_LIFE - time.time()))
    ca.tell("start")
    third = issued(ca, 3)[2]
    expect(third["by"] == "certificate" and third["at"] - second["at"] > 0.64 * CA_LIFE, f"no outage: {second} {third}")
    endpoints = nothing_lost(load.output(60))
    expect(set(endpoints) == {one, other}, f"{endpoints}")
    our_log_has_no_nack(place)


@case
def our_client_refuses_an_istio_ca_of_another_root(place):
    """No token is sent to who is not the CA, and nothing is called without an identity."""
    istio_ca(place, "trusted")
    ca, provider = istio_ca(place, "foreign", trusted=place.folder / "trusted")
    at, (one, _), start = go_servers_that_ask(place, "trusted")
    start("one", one)
    came = probe(place, "load", with_provider(place, at, provider), 3).output(60)
    expect(came["ok"] == 0 and came["lost"] > 0, f"{came}")
    expect(not [line for line in ca.all_heard() if "issued" in line], "the foreign CA was asked")


# ---- security ----


@case
def security_their_clients_call_our_servers(place):
    """{plaintext, TLS, mTLS} x {allowed, denied} x {STRICT, PERMISSIVE}: go, C-core and Envoy as clients."""
    security.their_clients(place, our_control_plane, security.BOTH)


@case
def security_our_client_calls_go_servers(place):
    """The same, go as server."""
    security.our_client(place, our_control_plane, security.go_servers, security.STRICT)


@case
def security_our_client_calls_c_core_servers(place):
    """The same, C-core as server."""
    security.our_client(place, our_control_plane, security.c_core_servers, security.STRICT)


@case
def security_our_client_calls_envoy_servers(place):
    """The same, Envoy as server, and PERMISSIVE."""
    security.our_client(place, our_control_plane, security.envoy_servers, security.BOTH)


@case
def security_openssl_finds_no_way_into_our_servers(place):
    """`openssl s_client`: no certificate, bad ones, old versions, ALPN, renegotiation, sessions and rotation."""
    openssl.s_client(place, our_control_plane)


@case
def security_our_client_calls_no_bad_server_of_openssl(place):
    """`openssl s_server`: old versions, bad certificates, and another's."""
    openssl.s_server(place, our_control_plane)


@case
def security_openssl_gets_nowhere_with_a_certificate_that_has_a_fault(place):
    """Expired, of tomorrow, for servers only, a CA's, with two names, none, or what is no SPIFFE ID, of another CA."""
    openssl.faults(place, our_control_plane)


@case
def security_openssl_speaks_the_applications_own_tls_beside_the_meshs(place):
    """`openssl s_client` at one permissive port: the mesh's TLS, the application's own, and plaintext."""
    openssl.own_tls(place, our_control_plane)


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
    # Asked to end, it ends its peers first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Not resolved: a venv's python is a link, and knows its venv by its own name.
    tools = Tools(flags.release, flags.peer, flags.python, pathlib.Path(__file__).parent / "python")
    names = [name for name in CASES if not flags.cases or name.startswith(tuple(flags.cases))]
    held = [run(name, Place(flags.out / name, tools)) for name in names]
    print(f"interop: {held.count(True)} passed, {held.count(False)} failed")
    sys.exit(not held or not all(held))


main()
