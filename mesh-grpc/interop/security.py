"""The matrix of security: {plaintext, TLS, mTLS} as the client speaks, what the server asks, and what its authorization says.

A server is what it is and nothing else (STRICT): it takes no client that speaks otherwise. TLS takes a client that could show a
certificate and is not asked to. A `permissive` one takes plaintext and mTLS on one port; servers of gRPC know no such thing
(gRFC A36: no listener filters). `allowed` and `denied` are RBAC on the caller's identity, and on nothing where there is none.
"""

import collections
import json

from peers import expect, free_address, listening, spiffe
from resources import TYPE, backends, rbac, server_listener, target

WIRES = ("plaintext", "tls", "mtls")
STRICT = WIRES
BOTH = (*STRICT, "permissive")
VERDICTS = ("allowed", "denied")
OK, DENIED, REFUSED = "ok", "denied", "refused"

Cell = collections.namedtuple("Cell", "client server verdict")


def cells(kinds):
    """Each client against each of these kinds of servers."""
    return [Cell(client, server, verdict) for client in WIRES for server in kinds for verdict in VERDICTS]


def expected(cell):
    """What comes of a call."""
    taken = {"plaintext": ["plaintext"], "tls": ["tls", "mtls"], "mtls": ["mtls"], "permissive": ["plaintext", "mtls"]}
    if cell.client not in taken[cell.server]:
        return REFUSED
    return OK if cell.verdict == "allowed" else DENIED


def name(cell):
    """The cell's target."""
    return f"{'-'.join(cell)}:50051"


def policy(server, verdict):
    """The filter of a server."""
    if verdict == "denied":
        return rbac({"authenticated": {"principal_name": {"exact": spiffe("nobody")}}})
    if server == "mtls":
        return rbac({"authenticated": {"principal_name": {"exact": spiffe("client")}}})
    return rbac({"any": True})


def addresses(kinds):
    """An address for each of these kinds of servers."""
    return {(server, verdict): free_address() for server in kinds for verdict in VERDICTS}


def listener(server, verdict, address):
    """What a server of this kind takes."""
    filters = [policy(server, verdict)]
    asks, permissive = server in ("mtls", "permissive"), server == "permissive"
    return server_listener(address, server != "plaintext", asks=asks, filters=filters, permissive=permissive)


def servers(at):
    """Their Listeners."""
    return [listener(*kind, address) for kind, address in at.items()]


def targets(at, asked):
    """What clients need to call each of them in each way."""
    made = []
    for cell in asked:
        identity = None if cell.client == "plaintext" else spiffe("server")
        cluster = backends("-".join(cell), [at[cell.server, cell.verdict]], identity, shows=cell.client == "mtls")
        made += target(name(cell), cluster)
    return made


def judge(who, came):
    """Compares what came of the cells with what must."""
    wrong = {"-".join(cell): (got, expected(cell)) for cell, got in came.items() if got != expected(cell)}
    expect(came and not wrong, f"{who}: {wrong}")


# ---- what came of a call, as each client says it ----


def of_client(came):
    """Of a Go or C-core client."""
    if came["ok"]:
        return OK
    [error] = came["errors"]
    code = error.split(":")[0]
    return {"PermissionDenied": DENIED, "PERMISSION_DENIED": DENIED, "Unavailable": REFUSED, "UNAVAILABLE": REFUSED}.get(code, error)


def of_probe(came):
    """Of our client: everything came to the same."""
    if came["ok"]:
        return OK if not came["lost"] else came
    errors = set(came["errors"])
    if errors == {"GRPC-7"}:
        return DENIED
    # The handshake, the identity, or a connection that the server closes.
    return REFUSED if errors and all(error.startswith(("MESH-4", "MESH-5", "MESH-6")) for error in errors) else came


# ---- Envoy, without a control plane ----


def _files(place, who):
    """Certificates as Envoy takes them from files."""
    file = lambda ending: {"filename": str(place.folder / f"{who}.{ending}")}
    return {"certificate_chain": file("pem"), "private_key": file("key")}


def _validation(place, identity):
    matcher = {"san_type": "URI", "matcher": {"exact": identity}}
    return {
        "trusted_ca": {"filename": str(place.folder / "ca.pem")},
        **({"match_typed_subject_alt_names": [matcher]} if identity else {}),
    }


def _socket(side, common, **more):
    context = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common}
    return {"name": "tls", "typed_config": {**context, **more}}


OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP2 = {OPTIONS: {"@type": f"type.googleapis.com/{OPTIONS}", "explicit_http_config": {"http2_protocol_options": {}}}}


def _cluster(name, address, socket=None):
    host, port = address.rsplit(":", 1)
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    made = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": HTTP2,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    return {**made, **({"transport_socket": socket} if socket else {})}


def _proxy(listener, cluster, socket=None):
    """A Listener that passes everything on to a cluster, with this socket in the place of its own."""
    made = json.loads(json.dumps(listener))
    for chain in made["filter_chains"]:
        manager = chain["filters"][0]["typed_config"]
        manager["stat_prefix"] = "interop"
        [host] = manager["route_config"]["virtual_hosts"]
        host["routes"] = [{"match": {"prefix": ""}, "route": {"cluster": cluster}}]
        if "transport_socket" in chain:
            chain["transport_socket"] = socket
    return {key: value for key, value in made.items() if key != "@type"}


def envoy_client(place, at, asked):
    """Envoy with a plaintext Listener for each cell; where each is."""
    fronts = {cell: free_address() for cell in asked}
    listeners, clusters = [], []
    for cell, front in fronts.items():
        common = {"alpn_protocols": ["h2"], "validation_context": _validation(place, spiffe("server"))}
        if cell.client == "mtls":
            common["tls_certificates"] = [_files(place, "client")]
        socket = None if cell.client == "plaintext" else _socket("Upstream", common)
        clusters.append(_cluster("-".join(cell), at[cell.server, cell.verdict], socket))
        listeners.append(_proxy(server_listener(front, is_tls=False), "-".join(cell)))
    place.envoy("envoy-client", {"listeners": listeners, "clusters": clusters})
    return fronts


def envoy_servers(place, at, _control):
    """Envoy as each kind of server, without a control plane, in front of a server of grpc-go."""
    upstream = place.go("upstream", "server").address()
    listeners = []
    for kind, address in at.items():
        asks = kind[0] in ("mtls", "permissive")
        common = {"alpn_protocols": ["h2"], "tls_certificates": [_files(place, "server")]}
        if asks:
            common["validation_context"] = _validation(place, None)
        socket = _socket("Downstream", common, require_client_certificate=asks)
        listeners.append(_proxy(listener(*kind, address), "upstream", socket))
    place.envoy("envoy-server", {"listeners": listeners, "clusters": [_cluster("upstream", upstream)]})


# ---- the rows ----


def their_clients(place, control_plane, kinds):
    """grpc-go, C-core and Envoy call servers of ours."""
    place.certificates("client", "server")
    at, asked = addresses(kinds), cells(kinds)
    control, _ = control_plane(place, [*targets(at, asked), *servers(at)])
    for kind, address in at.items():
        called = "-".join(kind)
        named = ["--listen", address, "--name", called, "--grpc"]
        listening(address, place.ours(called, "backend", *named, bootstrap=place.bootstrap(control, "server")))
    bootstrap = place.bootstrap(control, "client")
    first = f"xds:///{name(asked[0])}"
    clients = {
        "go": place.go("go", "client", "-target", first, bootstrap=bootstrap),
        "c-core": place.python("c-core", "client", "--target", first, bootstrap=bootstrap),
    }
    for who, client in clients.items():
        judge(who, {cell: of_client(client.ask(f"1 xds:///{name(cell)}")) for cell in asked})
    fronts = envoy_client(place, at, asked)
    judge("envoy", {cell: of_client(clients["go"].ask(f"1 {front}")) for cell, front in fronts.items()})


def our_client(place, control_plane, start, kinds):
    """Our client calls servers of these kinds, which `start` starts: it is given their addresses and the control plane's."""
    place.certificates("client", "server")
    at, asked = addresses(kinds), cells(kinds)
    # A server that has its Listeners from elsewhere is not in it.
    known = servers({kind: address for kind, address in at.items() if kind[0] in STRICT})
    control, _ = control_plane(place, [*targets(at, asked), *known])
    start(place, at, control)
    load = ["--grpc", "--method", "grpc.health.v1.Health/Check", "--rps", "20", "--seconds", "1", "--json"]
    bootstrap = place.bootstrap(control, "client")
    probes = {
        cell: place.ours(f"probe-{'-'.join(cell)}", "probe", "--target", f"xds:///{name(cell)}", *load, bootstrap=bootstrap)
        for cell in asked
    }
    judge("ours", {cell: of_probe(probe.output(60)) for cell, probe in probes.items()})


def go_servers(place, at, control):
    """grpc-go as each kind of server, as the control plane says."""
    bootstrap = place.bootstrap(control, "server")
    started = [
        place.go(f"{server}-{verdict}", "server", "-listen", address, "-xds", bootstrap=bootstrap)
        for (server, verdict), address in at.items()
    ]
    for server in started:
        server.hear(lambda line: line.get("serving") == "SERVING")


def c_core_servers(place, at, control):
    """C-core, the same."""
    bootstrap = place.bootstrap(control, "server")
    started = [
        place.python(f"{server}-{verdict}", "server", "--listen", address, "--xds", bootstrap=bootstrap)
        for (server, verdict), address in at.items()
    ]
    for server in started:
        server.address()
