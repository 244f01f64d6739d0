"""Witnesses on sockets: real ones, which can crash and come back, and a hostile one that says whatever a test tells it to."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from ingest.server import configuration
from ingest.witness import create_witness_app
from ledger.note import Verifier
from ledger.policy import Policy
from ledger.witness import WitnessStore
from ledger.witness_files import WitnessFiles
from ledger.witness_protocol import origin_path

Reply = tuple[int, str, bytes]
"""Status, content type, body."""


class RealWitness:
    """A witness in a directory, served by a thread of this process on a port of its own."""

    def __init__(self, directory: Path, name: str, *logs: str) -> None:
        """Make it and serve it; it knows the logs of these vkeys."""
        self.files = WitnessFiles(directory)
        self.verifier: Verifier = self.files.make(name)
        self.name = name
        for vkey in logs:
            self.files.add_log(vkey)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server: uvicorn.Server | None = None
        self.start()

    @property
    def line(self) -> str:
        """Its line in a policy."""
        return f"witness {self.name.rpartition('/')[2]} {self.verifier.vkey} {self.url}\n"

    def latest(self, origin: str) -> bytes | None:
        """What it cosigned last, read from its directory."""
        state = self.files.of(origin_path(origin)).read(self.verifier)
        return None if state is None else state.note

    def start(self) -> None:
        """Serve, on the same port as before."""
        port = int(self.url.rpartition(":")[2])
        if self._socket.fileno() < 0:
            self._socket = socket.create_server(("127.0.0.1", port))
        self._witness = WitnessStore.open(self.files.directory, clock=lambda: int(time.time()))
        server = self._server = uvicorn.Server(configuration(create_witness_app(self._witness), drain_seconds=1))
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        """Crash: connections are cut, nobody listens any more."""
        if self._server is not None:
            self._server.force_exit = self._server.should_exit = True
            self._thread.join()
            self._witness.close()
            self._socket.close()
            self._server = None


class HostileWitness:
    """Answers each request as the test's function says; keeps what it was asked."""

    def __init__(self, answer: Callable[[str, str, bytes], Reply]) -> None:
        """`answer` is given the method, the path and the body."""
        asked = self.asked = []  # type: list[tuple[str, str, bytes]]

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._reply(b"")

            def do_POST(self) -> None:
                self._reply(self.rfile.read(int(self.headers["Content-Length"])))

            def _reply(self, body: bytes) -> None:
                asked.append((self.command, self.path, body))
                status, kind, data = answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = self.url.replace("http:", "https:")

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def served(*witnesses: RealWitness | HostileWitness) -> Iterator[None]:
    """Stop them in the end."""
    try:
        yield
    finally:
        for witness in witnesses:
            witness.stop()


def policy_of(*lines: str, quorum: str = "any") -> Policy:
    """A policy of these witness lines; `quorum` is `any`, `all` or a number of them."""
    return Policy.parse(policy_text(*lines, quorum=quorum))


def policy_text(*lines: str, quorum: str = "any") -> str:
    """The text of `policy_of`."""
    names = " ".join(line.split()[1] for line in lines)
    return f"{''.join(lines)}group them {quorum} {names}\nquorum them\n"
