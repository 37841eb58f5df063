"""One script of an ADS server, played to each client, and what each asks for.

The server (`peer scripted`) has no will of its own, so all that differs between two plays is the client's. A request is a line:
`a,b version 1 nonce c1`, with `NACK` where it refuses. `ASKED` is what the protocol says, and what we do; `DIFFERS` is how others
are known to differ from that.
"""

import copy
import time

from peers import expect
from resources import backends, target

NAME = "greeter:50051"
TABLE = f"{NAME}-routes"

ASKED = {
    "1 LDS": [f"{NAME} version  nonce ", f"{NAME} version 1 nonce l1"],
    "1 RDS": [
        f"{TABLE} version  nonce ",
        f"{TABLE} version 1 nonce r1",
        # A NACK has the nonce of what it refuses, and the version before.
        f"{TABLE} version 1 nonce r2 NACK",
        f"{TABLE} version 3 nonce r3",
    ],
    "1 CDS": [
        "a,b version  nonce ",
        "a,b version 1 nonce c1",
        # That a part of it is used makes no version of it.
        "a,b version 1 nonce c2 NACK",
        "a,b version 3 nonce c3",
        # What nobody asked for is ignored.
        "a,b version 4 nonce c4",
        # What is there twice is refused.
        "a,b version 4 nonce c5 NACK",
        "a,b version 6 nonce c6",
        # Unsubscribing has version and nonce as they are.
        "a version 6 nonce c6",
    ],
    "1 EDS": [
        "a,b version  nonce ",
        # Endpoints come one by one.
        "a,b version 1 nonce e1",
        "a,b version 1 nonce e2",
        "a,b version 2 nonce e3",
        "a version 2 nonce e3",
    ],
    # Versions outlive the stream, nonces don't.
    "2 LDS": [
        f"{NAME} version 1 nonce ",
        f"{NAME} version 1 nonce l1",
        f"{NAME} version 2 nonce l2",
        f"{NAME} version 3 nonce l3",
    ],
    # When the last name of a type goes, an empty list says so.
    "2 RDS": [f"{TABLE} version 3 nonce ", " version 3 nonce "],
    "2 CDS": ["a version 6 nonce "],
    "2 EDS": ["a version 2 nonce "],
}

# It takes one of two that have the same name; and it reads nothing more after a type that it does not know.
TWICE = {"a,b version 4 nonce c5 NACK": "a,b version 5 nonce c5"}
DEAF = {f"{NAME} version 3 nonce l3": None}
DIFFERS = {
    "ours": {},
    "go": {**TWICE, **DEAF},
    # In a NACK it says the version that it refuses, if something of it was good.
    "c-core": {**TWICE, **DEAF, "a,b version 1 nonce c2 NACK": "a,b version 2 nonce c2 NACK"},
}

SHORT = {"Listener": "LDS", "RouteConfiguration": "RDS", "Cluster": "CDS", "ClusterLoadAssignment": "EDS"}


class Play:
    """The server's side of a play, with one client."""

    def __init__(self, server):
        self.server = server

    def send(self, version, nonce, *resources, url=None):
        """Sends a response; its type is that of the resources."""
        url = url or resources[0]["@type"]
        self.server.tell({"type": url, "version": version, "nonce": nonce, "resources": resources})

    def lose(self):
        """Ends the stream, as a server that goes away does."""
        self.server.tell({"break": True})

    def asked(self, *awaited):
        """Waits until the client has asked for all of these, `(type, names, nonce)`, since the last wait, in any order."""
        left = {(kind, frozenset(filter(None, names.split(","))), nonce) for kind, names, nonce in awaited}

        def is_all(said):
            if "type" in said:
                left.discard((SHORT[said["type"]], frozenset(said["names"]), said["nonce"]))
            return not left

        self.server.hear(is_all)

    def told(self):
        """All requests in their order."""
        time.sleep(0.5)  # For what should not come.
        return [said for said in self.server.all_heard() if "type" in said]


def line(said):
    """A request as text."""
    text = f"{','.join(sorted(said['names']))} version {said['version']} nonce {said['nonce']}"
    return text + (" NACK" if said["code"] else "")


def by_type(told):
    """The lines by stream and type. Names that follow each other at once may be asked for together or one after the other:
    only the last of such requests counts."""
    lines, last = {}, {}
    for said in told:
        key = f"{said['stream']} {SHORT[said['type']]}"
        before, last[key] = last.get(key), said
        grows = before and set(before["names"]) < set(said["names"])
        if grows and all(before[field] == said[field] for field in ("version", "nonce", "code")):
            lines[key].pop()
        lines.setdefault(key, []).append(line(said))
    return lines


def compare(kind, told):
    """Compares what a client of this kind asked for with the protocol and what it is known for."""
    differs = DIFFERS[kind]
    wanted = {key: [differs.get(one, one) for one in lines] for key, lines in ASKED.items()}
    wanted = {key: [one for one in lines if one is not None] for key, lines in wanted.items()}
    found = by_type(told)
    for key in sorted({*wanted, *found}):
        expect(found.get(key) == wanted.get(key), f"{kind}, {key}: {found.get(key)} instead of {wanted.get(key)}")
    for stream in (1, 2):
        nodes = ["node" in said for said in told if said["stream"] == stream]
        expect(nodes[0] and not any(nodes[1:]), f"{kind}: the node is not in the first request of stream {stream} alone")
    refused = {said["nonce"]: (said["code"], said["why"]) for said in told if said["code"]}
    for nonce, name in {"c2": "b", "r2": TABLE}.items():
        code, why = refused[nonce]
        # INVALID_ARGUMENT, with the name of what is refused.
        expect(code == 3 and name in why, f"{kind}: {nonce} is refused with {code}: {why}")


def but(resource, **changes):
    """A resource with other fields; those that are None go."""
    changed = {**copy.deepcopy(resource), **changes}
    return {key: value for key, value in changed.items() if value is not None}


def play(server, backend):
    """Plays the whole script to the client that takes its configuration from `server`, and gives its requests."""
    it = Play(server)
    listener, routes, a, at_a, b, at_b = target(NAME, backends("a", [backend]), backends("b", [backend]))
    routed = lambda route: but(routes, virtual_hosts=[{"name": NAME, "domains": ["*"], "routes": [route]}])
    # From nothing to everything, each type named by the one before.
    it.asked(("LDS", NAME, ""))
    it.send("1", "l1", listener)
    it.asked(("LDS", NAME, "l1"), ("RDS", TABLE, ""))
    it.send("1", "r1", routes)
    it.asked(("RDS", TABLE, "r1"), ("CDS", "a,b", ""))
    it.send("1", "c1", a, b)
    it.asked(("CDS", "a,b", "c1"), ("EDS", "a,b", ""))
    it.send("1", "e1", at_a)
    it.asked(("EDS", "a,b", "e1"))
    it.send("1", "e2", at_b)
    it.asked(("EDS", "a,b", "e2"))
    # An update.
    it.send("2", "e3", at_a)
    it.asked(("EDS", "a,b", "e3"))
    # One good and one bad; good again; nothing but bad.
    it.send("2", "c2", but(a, connect_timeout="7s"), but(b, eds_cluster_config=None))
    it.asked(("CDS", "a,b", "c2"))
    it.send("3", "c3", a, b)
    it.asked(("CDS", "a,b", "c3"))
    it.send("2", "r2", routed({"match": {}, "route": {"cluster": "a"}}))
    it.asked(("RDS", TABLE, "r2"))
    # What nobody asked for, and what is there twice.
    it.send("4", "c4", a, b, but(b, name="c"))
    it.asked(("CDS", "a,b", "c4"))
    it.send("5", "c5", a, b, b)
    it.asked(("CDS", "a,b", "c5"))
    it.send("6", "c6", a, b)
    it.asked(("CDS", "a,b", "c6"))
    # A route that drops a cluster.
    only_a = {"match": {"prefix": ""}, "route": {"cluster": "a"}}
    it.send("3", "r3", routed(only_a))
    it.asked(("RDS", TABLE, "r3"), ("CDS", "a", "c6"), ("EDS", "a", "e3"))
    # The stream is lost. What there is does not change.
    it.lose()
    it.asked(("LDS", NAME, ""), ("RDS", TABLE, ""), ("CDS", "a", ""), ("EDS", "a", ""))
    it.send("1", "l1", listener)
    it.asked(("LDS", NAME, "l1"))
    # A Listener with its routes inside: the last name of a type goes.
    inline = copy.deepcopy(listener)
    manager = inline["api_listener"]["api_listener"]
    manager["route_config"] = {"name": "inside", "virtual_hosts": routed(only_a)["virtual_hosts"]}
    del manager["rds"]
    it.send("2", "l2", inline)
    it.asked(("LDS", NAME, "l2"), ("RDS", "", ""))
    # A type that nobody knows, and something after it.
    it.send("1", "x1", url="type.googleapis.com/example.Unknown")
    it.send("3", "l3", inline)
    return it.told()
