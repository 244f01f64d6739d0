"""Where the server listens, and how its process stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest import server
from ingest.server import Address, CannotListen, addresses_of, listen
from ledger.errors import MalformedError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4318", Address("127.0.0.1", 4318)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:4318", Address("::1", 4318)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "4318", "127.0.0.1", ":4318", "::1:4318", "a:b", "a:65536", "a:-1", "a:\u0664"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MalformedError):
        Address.parse(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"])  # noqa: S104
def test_a_public_address_without_tokens_is_refused_before_anything_listens(host: str) -> None:
    with pytest.raises(CannotListen, match="without tokens anyone") as refused:
        listen(Address(host, 0), tokens_in_use=False)
    assert "trail token add" in refused.value.hint


def test_a_public_address_with_tokens_is_ours_to_take() -> None:
    (opened,) = listen(Address("0.0.0.0", 0), tokens_in_use=True)  # noqa: S104
    opened.close()


def test_an_answer_does_not_wait_for_a_delayed_acknowledgement() -> None:
    (opened,) = listen(Address("127.0.0.1", 0), tokens_in_use=False)
    with opened, socket.create_connection(opened.getsockname()):
        accepted, _peer = opened.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_localhost_is_every_loopback_address_on_one_port() -> None:
    sockets = listen(Address("localhost", 0), tokens_in_use=False)
    addresses = addresses_of(sockets)
    assert addresses[0].host == "127.0.0.1"
    assert len({address.port for address in addresses}) == 1
    for opened in sockets:
        opened.close()


def test_an_address_in_use_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(CannotListen, match="in use") as refused:
            listen(address, tokens_in_use=False)
    assert "--http" in refused.value.hint


def test_a_host_that_does_not_exist_is_said_not_to() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on nowhere\.invalid:1"):
        listen(Address("nowhere.invalid", 1), tokens_in_use=True)


def test_idle_connections_outlive_the_interval_of_exporters() -> None:
    assert server.KEEP_ALIVE_SECONDS >= 65


# A server whose every step is printed, and whose requests take half a second.
SERVER = """
import asyncio, json, sys
from fastapi import FastAPI
from ingest import server

def say(*what):
    print(json.dumps(what), flush=True)

app = FastAPI()

@app.get("/")
async def soon():
    say("request")
    await asyncio.sleep(0.5)
    return "done"

@app.get("/never")
async def never():
    say("request")
    await asyncio.sleep(3600)

def step(name, error=None):
    async def run():
        say(name)
        if error:
            raise error
    return run

sockets = server.listen(server.Address("127.0.0.1", 0), tokens_in_use=False)
say(server.addresses_of(sockets)[0].port)
failing = OSError("pipeline") if "fail" in sys.argv else None
stop = [step("pipeline", failing), step("log")]
server.serve(app, sockets, on_start=[step("start")], on_stop=stop, drain_seconds=int(sys.argv[1]))
say("end")
"""


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    (port,) = json.loads(process.stdout.readline())
    assert said(process.stdout.readline()) == ["start"]
    return process, port


def ask(port: int, path: str = "/") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: trail\r\n\r\n".encode())
    return connection


def said(text: str) -> list[str]:
    return [json.loads(line)[0] for line in text.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish_and_then_closes_in_order(number: signal.Signals) -> None:
    process, port = start("5")
    with ask(port) as connection:
        assert process.stdout is not None
        assert said(process.stdout.readline()) == ["request"]
        process.send_signal(number)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    out, err = process.communicate(timeout=20)
    assert said(out) == ["pipeline", "log", "end"]
    assert (process.returncode, err) == (0, "")


def test_a_closing_step_that_fails_does_not_stop_the_next() -> None:
    process, port = start("5", "fail")
    with ask(port) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert said(out) == ["request", "pipeline", "log"]
    assert process.returncode == 1
    assert err.rstrip().endswith("OSError: pipeline")


def test_a_signal_before_the_first_request_ends_it_too() -> None:
    process, _ = start("5")
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert said(out) == ["pipeline", "log", "end"]


def test_a_second_signal_does_not_wait_for_requests_but_closes_all_the_same() -> None:
    process, port = start("30")
    with ask(port, "/never"):
        assert process.stdout is not None
        assert said(process.stdout.readline()) == ["request"]
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        out, _ = process.communicate(timeout=20)
    assert said(out) == ["pipeline", "log", "end"]
