"""The edges of TLS, by `openssl s_client` and `openssl s_server`: what a client of the mesh would never try.

Whether somebody is let in is seen by an answer to a request, and not by the handshake: in TLS 1.3 a client is done before the
server has judged its certificate.
"""

import contextlib
import shutil
import socket
import subprocess
import time

import security
from peers import PATIENCE, Failure, expect, free_address, listening, spiffe, until
from resources import backends, server_listener, target

REQUEST = "GET / HTTP/1.1\r\nhost: openssl\r\nconnection: close\r\n\r\n"
ANSWER = "HTTP/1.1 200"
# As OpenSSL takes TLS 1.1 at all, and short keys: what refuses them must be the other side.
LAX = ("-cipher", "DEFAULT:@SECLEVEL=0")


def command(place, address, *more, shows="client"):
    """How `openssl s_client` is called."""
    shown = ["-cert", place.folder / f"{shows}.pem", "-key", place.folder / f"{shows}.key"] if shows else []
    all_of = ["openssl", "s_client", "-connect", address, "-CAfile", place.folder / "ca.pem", *shown, *more]
    return [str(part) for part in all_of]


def client(place, address, *more, shows="client"):
    """What `openssl s_client` prints, having asked for something."""
    called = command(place, address, "-ign_eof", *more, shows=shows)
    try:
        done = subprocess.run(called, input=REQUEST, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failure(f"it hangs: {called}") from None
    return done.stdout + done.stderr


def renegotiation(place, address):
    """What it prints when it is told to make another handshake on its connection, by a line `R`."""
    file = place.folder / "renegotiation.txt"
    with open(file, "w") as out:
        called = command(place, address, "-tls1_2")
        with subprocess.Popen(called, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, text=True) as process:
            try:
                process.stdin.write("R\n")
                process.stdin.flush()
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Failure(f"it hangs: {called}") from None
            finally:
                process.kill()
    return file.read_text(errors="replace")


def issue(place):
    """The certificates of these cases: the two sides', each also with its faults, and one to rotate to."""
    place.certificates("client", "server", "next", edges=True)


def our_server(place, control_plane):
    """Our server, which asks for certificates and reads its own again and again; its address."""
    issue(place)
    address = free_address()
    control, _ = control_plane(place, [server_listener(address, is_tls=True)])
    bootstrap = place.bootstrap(control, "server", refresh="0.2s")
    listening(address, place.ours("server", "backend", "--listen", address, "--name", "v1", bootstrap=bootstrap))
    return address


def s_client(place, control_plane):
    """Each thing that a client may try, and what must come of it."""
    address = our_server(place, control_plane)
    answered = [
        ("a client of the mesh", client(place, address, "-alpn", "http/1.1"), "ALPN protocol: http/1.1"),
        ("TLS 1.2", client(place, address, "-tls1_2"), "Protocol  : TLSv1.2"),
        # As in Envoy: no protocol is agreed on, and the first bytes tell.
        ("an ALPN of nobody's", client(place, address, "-alpn", "acme-tls/1"), "No ALPN negotiated"),
    ]
    for what, said, also in answered:
        expect(ANSWER in said and also in said and "Verify return code: 0" in said, f"{what} gets no answer: {said}")
    refused = [
        ("no certificate", client(place, address, shows=None), "alert certificate required"),
        ("no certificate, TLS 1.2", client(place, address, "-tls1_2", shows=None), "alert"),
        ("a certificate of the past", client(place, address, shows="client-expired"), "alert certificate expired"),
        # Of the same name: it is found out by the signature.
        ("a certificate of another CA", client(place, address, shows="client-foreign"), "alert decrypt error"),
        ("TLS 1.1", client(place, address, "-tls1_1", *LAX), "alert handshake failure"),
        ("TLS 1.0", client(place, address, "-tls1", *LAX), "alert handshake failure"),
        ("a suite without forward secrecy", client(place, address, "-tls1_2", "-cipher", "AES128-GCM-SHA256"), "alert handshake failure"),
        ("CBC", client(place, address, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), "alert handshake failure"),
    ]
    for what, said, alert in refused:
        expect(ANSWER not in said and alert in said, f"{what}: {said}")
    said = renegotiation(place, address)
    ended = "unexpected eof" in said or "no renegotiation" in said
    expect("RENEGOTIATING" in said and ended and said.count("New, TLSv1.2") == 1, f"it renegotiates: {said}")
    resumes(place, address)


def resumes(place, address):
    """A session is resumed until the server's certificate is another one, and never by who has no certificate."""
    session = str(place.folder / "session.pem")
    kinds = lambda said: [kind for kind in ("New, TLSv1.3", "Reused, TLSv1.3") if kind in said]
    first = client(place, address, "-sess_out", session)
    again = client(place, address, "-sess_in", session, "-sess_out", session)
    expect(ANSWER in first and kinds(first) == ["New, TLSv1.3"], f"the first: {first}")
    expect(ANSWER in again and kinds(again) == ["Reused, TLSv1.3"], f"it is not resumed: {again}")
    for ending in ("key", "pem"):
        shutil.copy(place.folder / f"next.{ending}", place.folder / f".half.{ending}")
        (place.folder / f".half.{ending}").rename(place.folder / f"server.{ending}")
    end = time.monotonic() + PATIENCE
    while "CN = next" not in (said := client(place, address, "-tls1_2")):
        expect(time.monotonic() < end, f"the server does not rotate: {said}")
    after = client(place, address, "-sess_in", session)
    expect(ANSWER in after and kinds(after) == ["New, TLSv1.3"], f"a session outlives its identity: {after}")


# ---- certificates with faults ----

NAMES = ("two-names", "no-name", "https", "dots", "query")
FAULTS = ("expired", "future", "server-only", "authority", *NAMES, "foreign")


def in_plaintext(address):
    """Whether the same request is answered without TLS."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(REQUEST.encode())
        return raw.makefile("rb").read().startswith(ANSWER.encode())
    return False


def faults(place, control_plane):
    """A client whose certificate is not as it must be, before servers of ours, STRICT and PERMISSIVE."""
    issue(place)
    at = {kind: free_address() for kind in ("mtls", "permissive")}
    control, _ = control_plane(place, [security.listener(kind, "allowed", address) for kind, address in at.items()])
    answered = lambda address, shows: ANSWER in client(place, address, "-alpn", "http/1.1", shows=shows)
    for kind, address in at.items():
        listening(address, place.ours(kind, "backend", "--listen", address, "--name", kind, bootstrap=place.bootstrap(control, "server")))
        until(lambda address=address: answered(address, "client"), bool, f"{kind}: nobody is let in")
        came = {
            "nobody": answered(address, None),
            "plaintext": in_plaintext(address),
            **{fault: answered(address, f"client-{fault}") for fault in FAULTS},
        }
        let_in = {who for who, is_answered in came.items() if is_answered}
        # The policy of the permissive one asks for no identity. Who comes by TLS must have one all the same.
        allowed = {"plaintext"} if kind == "permissive" else set()
        expect(let_in == allowed, f"{kind} lets in {let_in}, and must {allowed}")


def own_tls(place, control_plane):
    """One permissive port: the mesh's TLS by its ALPN, the application's own by its name, and plaintext."""
    issue(place)
    address = free_address()
    control, _ = control_plane(place, [server_listener(address, True, permissive=True, own="app.test")])
    listening(address, place.ours("server", "backend", "--listen", address, "--name", "v1", bootstrap=place.bootstrap(control, "server")))
    mesh = ("-alpn", "istio,http/1.1")
    until(lambda: ANSWER in client(place, address, *mesh), bool, "a client of the mesh is not let in")
    rows = [
        ("a client of the mesh", client(place, address, *mesh), "for spiffe://"),
        ("anybody, to the application's name", client(place, address, "-servername", "app.test", shows=None), "for nobody"),
        ("the mesh's TLS without a certificate", client(place, address, *mesh, shows=None), None),
        ("TLS of neither", client(place, address, "-servername", "other.test"), None),
    ]
    for what, said, answer in rows:
        expect((ANSWER in said) == (answer is not None), f"{what}: {said}")
        expect(answer is None or answer in said, f"{what} is not told {answer}: {said}")
    expect(in_plaintext(address), "plaintext gets no answer")


# ---- s_server ----

# Each server, its flags, and what it says in the end: of a good one, that our client has shown its certificate.
SERVERS = {
    "good": ("server", [], "depth=0 CN = client\nverify return:1"),
    "tls11": ("server", ["-tls1_1", *LAX], "unsupported protocol"),
    "old": ("server-expired", [], "alert certificate expired"),
    # Of the same name: it is found out by the signature.
    "stranger": ("server-foreign", [], "alert decrypt error"),
    "another": ("next", [], "alert access denied"),
    **{name: (f"server-{name}", [], "alert access denied") for name in NAMES},
}


def s_server(place, control_plane):
    """Our client calls servers of OpenSSL's. They speak no HTTP/2: of a good one the handshake is seen, and no more."""
    issue(place)
    at = {kind: free_address() for kind in SERVERS}
    for kind, (shows, more, _) in SERVERS.items():
        files = ["-cert", place.folder / f"{shows}.pem", "-key", place.folder / f"{shows}.key", "-CAfile", place.folder / "ca.pem"]
        asks = ["-Verify", "1", "-verify_return_error", "-alpn", "h2", "-quiet"]
        listening(at[kind], place.spawn(f"s_server-{kind}", "openssl", "s_server", "-accept", at[kind], *files, *asks, *more))
    # Whoever has a fault in its names is taken by its name as far as that goes: the fault must be what it fails of.
    named = {kind: "" if kind in NAMES else spiffe("server") for kind in at}
    made = [target(f"{kind}:50051", backends(kind, [address], named[kind])) for kind, address in at.items()]
    control, _ = control_plane(place, [one for of_target in made for one in of_target])
    bootstrap = place.bootstrap(control, "client")
    load = ["--grpc", "--method", "grpc.health.v1.Health/Check", "--rps", "5", "--seconds", "1", "--json"]
    for kind, (_, _, says) in SERVERS.items():
        probe = place.ours(f"probe-{kind}", "probe", "--target", f"xds:///{kind}:50051", *load, bootstrap=bootstrap)
        came = probe.output(60)
        expect(not came["ok"], f"{kind}: nobody answered, and it was taken for an answer: {came}")
        said = (place.folder / f"s_server-{kind}.log").read_text()
        expect(says in said, f"{kind}: {said}")
        shown = "CN = client" in said
        expect(shown == (kind == "good"), f"{kind}: our client shows who it is to whom it does not trust: {said}")
