"""Peers as processes: started, told and heard line by line, and always ended."""

import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

PATIENCE = 30
"""Seconds that a peer may take to say something; a busy machine with 2 cores is slow."""


class Failure(Exception):
    """What a case expected and did not find."""


@contextlib.contextmanager
def undisturbed():
    """Holds SIGTERM back: a peer that is being started or ended must not be forgotten half-way."""
    held = []
    before = signal.signal(signal.SIGTERM, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if held:
            sys.exit(143)


class Peer:
    """A process that says one JSON object a line and takes one command a line."""

    def __init__(self, name, command, env, log):
        self.name, self.log = name, log
        self.heard = []
        self.lines = queue.Queue()
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with contextlib.suppress(ValueError):  # Closed while reading: it was ended.
            for line in self.process.stdout:
                with contextlib.suppress(json.JSONDecodeError):  # A line for people.
                    self.lines.put(json.loads(line))
        self.lines.put(None)

    def tell(self, command):
        """Says a line, JSON if it isn't text."""
        try:
            self.process.stdin.write((command if isinstance(command, str) else json.dumps(command)) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise Failure(f"{self.name} has ended: {self.tail()}") from error

    def hear(self, matches=lambda line: True, patience=PATIENCE):
        """The next line that matches; those before it are kept in `heard`."""
        until = time.monotonic() + patience
        while True:
            try:
                line = self.lines.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                raise Failure(f"{self.name} said only {self.heard[-5:]} in {patience} s: {self.tail()}") from None
            if line is None:
                raise Failure(f"{self.name} has ended: {self.tail()}")
            self.heard.append(line)
            if matches(line):
                return line

    def all_heard(self):
        """Everything it has said so far."""
        while not self.lines.empty():
            self.heard.append(self.lines.get())
        return [line for line in self.heard if line]

    def ask(self, command):
        """Says a line and hears the next."""
        self.tell(command)
        return self.hear()

    def address(self):
        """Where it listens, once it does."""
        return self.hear(lambda line: "listening" in line)["listening"]

    def output(self, patience=PATIENCE):
        """Its one JSON object, once it has ended well."""
        line = self.hear(patience=patience)
        if self.process.wait(PATIENCE) != 0:
            raise Failure(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
        return line

    def tail(self):
        """The end of its log."""
        return pathlib.Path(self.log).read_text(errors="replace")[-2000:].strip() or "(it logged nothing)"

    def kill(self):
        """Ends it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends it, politely at first. Returns when it is gone."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.close()
        # The end of stdin ends those that read it; SIGTERM the others.
        for way, patience in ((lambda: None, 1), (self.process.terminate, 10), (self.process.kill, None)):
            way()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                break
        self.reader.join(1)
        self.process.stdout.close()


class Place:
    """Where one case runs: its folder, its certificates, its peers. Leaving it ends them."""

    def __init__(self, folder, tools):
        self.folder, self.tools = pathlib.Path(folder), tools
        self.peers = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with undisturbed():
            for peer in reversed(self.peers):
                peer.end()

    def spawn(self, name, *command, bootstrap=None, **more):
        """Starts a peer, with the bootstrap file and other variables in its environment."""
        mesh = ("GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG", "MESH_CONFIG")
        env = {key: value for key, value in os.environ.items() if key not in mesh}
        # A proxy of this machine has no business between two addresses of it.
        env.update({"no_proxy": "*", "NO_PROXY": "*"}, **more)
        if bootstrap:
            env["GRPC_XDS_BOOTSTRAP"] = str(bootstrap)
        with undisturbed():
            peer = Peer(name, command, env, self.folder / f"{name}.log")
            self.peers.append(peer)
        return peer

    def go(self, name, *arguments, **more):
        """Starts the Go program."""
        return self.spawn(name, self.tools.peer, *arguments, **more)

    def python(self, name, script, *arguments, **more):
        """Starts a Python program, on C-core."""
        return self.spawn(name, self.tools.python, self.tools.scripts / f"{script}.py", *arguments, **more)

    def ours(self, name, program, *arguments, **more):
        """Starts a program of ours."""
        return self.spawn(name, self.tools.release / program, *arguments, **more)

    def envoy(self, name, static):
        """Starts Envoy on a static configuration: loopback only, and nothing shared with another Envoy."""
        admin = free_address()
        host, port = admin.rsplit(":", 1)
        address = {"socket_address": {"address": host, "port_value": int(port)}}
        made = {"node": {"id": name, "cluster": "interop"}, "admin": {"address": address}, "static_resources": static}
        file = self.write(f"{name}.json", json.dumps(made, indent=1))
        flags = ["--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "warning"]
        peer = self.spawn(name, pathlib.Path(self.tools.python).parent / "envoy", "-c", file, *flags)
        listening(admin, peer)
        for listener in static["listeners"]:
            at = listener["address"]["socket_address"]
            listening(f"{at['address']}:{at['port_value']}", peer)
        return peer

    def write(self, name, text):
        """Writes a file in one step, as a control plane that watches it should see it."""
        path, half = self.folder / name, self.folder / f".{name}.half"
        half.write_text(text)
        half.rename(path)
        return path

    def bootstrap(self, server, identity=None, features=(), refresh="600s"):
        """A bootstrap file for the control plane at `server`; `identity` names the certificate of `certificates`, whose files
        are read again after `refresh`."""
        made = {
            "xds_servers": [
                {
                    "server_uri": server,
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3", *features],
                }
            ],
            "node": {"id": identity or "interop", "locality": {"region": "here"}},
            "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
        }
        if identity:
            files = {
                "ca_certificate_file": str(self.folder / "ca.pem"),
                "certificate_file": str(self.folder / f"{identity}.pem"),
                "private_key_file": str(self.folder / f"{identity}.key"),
                "refresh_interval": refresh,
            }
            made["certificate_providers"] = {"default": {"plugin_name": "file_watcher", "config": files}}
        name = "-".join(["bootstrap", identity or "plain", server.rsplit(":", 1)[1], *features])
        return self.write(f"{name}.json", json.dumps(made, indent=1))

    def certificates(self, *identities, edges=False):
        """Issues a certificate for each name, with the SPIFFE identity of that name; with `edges` the faulty ones, too."""
        asked = [f"{name}={spiffe(name)}" for name in identities]
        command = [self.tools.peer, "certificates", "-dir", self.folder, *(["-edges"] if edges else []), *asked]
        subprocess.run([str(part) for part in command], check=True)


def spiffe(name):
    """The identity of a service called `name`."""
    return f"spiffe://interop.test/ns/default/sa/{name}"


def free_address():
    """An address that nothing listens on now. Servers whose Listener names their address need it beforehand."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def listening(address, peer, patience=PATIENCE):
    """Waits until the peer that says nothing when it is ready takes connections at its address."""
    until = time.monotonic() + patience
    while True:
        with socket.socket() as trying:
            trying.settimeout(1)
            host, port = address.rsplit(":", 1)
            if trying.connect_ex((host, int(port))) == 0:
                return
        expect(peer.process.poll() is None, f"{peer.name} has ended: {peer.tail()}")
        expect(time.monotonic() < until, f"{peer.name} does not listen on {address}: {peer.tail()}")
        time.sleep(0.02)


def expect(true, what):
    """Fails the case with what was found."""
    if not true:
        raise Failure(what)


def until(ask, true, what, patience=20):
    """Asks again until the answer is right: a change takes as long as it takes, within reason."""
    end = time.monotonic() + patience
    while not true(answer := ask()):
        expect(time.monotonic() < end, f"{what}: {answer}")
    return answer
