"""`trail witness` as a user runs it: made, told of logs, served, shown; killed, and caught at nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from flood import flooded
from small_log import SmallLog
from trail_process import PATIENCE_SECONDS, Ran, Server, command_line, environment

from ledger.note import Signer, Verifier, open_note
from ledger.policy import Policy
from ledger.witness_files import WitnessFiles
from ledger.witness_protocol import origin_path

LOG = SmallLog.make()
Trail = Callable[..., Ran]


class Serving:
    """A running `trail witness serve`."""

    def __init__(self, directory: Path, *args: object) -> None:
        self._log = directory.with_name(directory.name + ".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command_line("witness", "serve", "--dir", directory, "--http", "127.0.0.1:0", *args),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "vkey " not in self.said:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.02)
        self.url = next(line.split()[1] for line in self.said.splitlines() if line.startswith("listening"))

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8")

    def submit(self, body: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/add-checkpoint", content=body, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert out == b""
        return self.process.returncode


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    running: list[Serving] = []

    def start(directory: Path, *args: object) -> Serving:
        running.append(Serving(directory, *args))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.fixture
def directory(tmp_path: Path, trail: Trail) -> Path:
    place = tmp_path / "witness"
    assert trail("witness", "init", "--dir", place, "--name", "witness.example/w").code == 0
    assert trail("witness", "add-log", LOG.signer.vkey, "--dir", place).code == 0
    return place


def test_init_prints_the_key_and_a_line_for_a_policy(tmp_path: Path, trail: Trail) -> None:
    ran = trail("witness", "init", "--dir", tmp_path / "w", "--name", "witness.example/w")
    assert ran.code == 0, ran.err
    vkey, line = ran.out.splitlines()
    policy = Policy.parse(f"{line}\nquorum witness.example/w\n")
    assert policy.witnesses[0].verifier.vkey == vkey
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "w" / "key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in ran.out + ran.err
    again = trail("witness", "init", "--dir", tmp_path / "w", "--name", "witness.example/w")
    assert (again.code, again.out) == (4, "") and "already" in again.err
    made = trail("witness", "init", "--dir", tmp_path / "x", "--name", "witness.example/x", "--json").json
    assert set(made) == {"name", "dir", "vkey", "policy"} and made["policy"].endswith(made["vkey"])


@pytest.mark.parametrize("name", ["none", "two words", "a+b", ""])
def test_a_name_that_no_policy_could_hold_is_a_usage_error(tmp_path: Path, trail: Trail, name: str) -> None:
    ran = trail("witness", "init", "--dir", tmp_path / "w", "--name", name)
    assert (ran.code, ran.out) == (2, "")
    assert not (tmp_path / "w").exists()


def test_the_directory_is_the_variable_else_in_the_users_state(tmp_path: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIL_WITNESS", str(tmp_path / "named"))
    assert trail("witness", "init", "--name", "w.example/1").code == 0
    assert (tmp_path / "named" / "key").exists()
    monkeypatch.delenv("TRAIL_WITNESS")
    monkeypatch.setenv("TRAIL_STATE", str(tmp_path / "state"))
    assert trail("witness", "show").code == 4
    assert trail("witness", "init", "--name", "w.example/2").code == 0
    assert (tmp_path / "state" / "witness" / "key").exists()
    assert trail("witness", "show").code == 0


def test_adding_logs(directory: Path, trail: Trail) -> None:
    logs = directory / "logs"
    before = logs.read_bytes()
    again = trail("witness", "add-log", LOG.signer.vkey, "--dir", directory)
    assert again.code == 0 and "known already" in again.err and logs.read_bytes() == before
    new = Signer.generate(LOG.origin)
    rotated = trail("witness", "add-log", new.vkey, "--dir", directory)
    assert rotated.code == 0 and "2 keys" in rotated.err and "remove the lines" in rotated.err
    same = Verifier("example.com/other", new.verifier.public_key).vkey
    for wrong in ("x", LOG.signer.vkey[:-2], LOG.signer.cosigner.vkey, "", same):
        ran = trail("witness", "add-log", wrong, "--dir", directory)
        assert (ran.code, ran.out) == (2, ""), ran.err
    assert logs.read_bytes() == before + f"log {new.vkey}\n".encode()
    assert trail("witness", "add-log", LOG.signer.vkey, "--dir", directory / "none").code == 4


def test_served_shown_killed_and_served_again(directory: Path, trail: Trail, serving: Callable[..., Serving]) -> None:
    assert trail("witness", "show", "--dir", directory, "--json").json["logs"][0]["size"] is None
    server = serving(directory)
    vkey = WitnessFiles(directory).load_vkey().vkey
    assert vkey in server.said and vkey in httpx.get(f"{server.url}/").text
    answer = server.submit(LOG.body(0, 9))
    open_note(LOG.note(9) + answer.content, [Verifier.parse(vkey)])
    other = SmallLog.make("example.com/other")
    assert trail("witness", "add-log", other.signer.vkey, "--dir", directory).code == 0  # while it runs
    assert server.submit(other.body(0, 3)).status_code == 200
    shown = trail("witness", "show", "--dir", directory, "--json")
    assert shown.code == 0 and shown.json["vkey"] == vkey
    assert [(row["origin"], row["size"], row["error"]) for row in shown.json["logs"]] == [(LOG.origin, 9, None), (other.origin, 3, None)]
    assert shown.json["logs"][0]["root"] == LOG.checkpoint(9).root.hex()
    second = trail("witness", "serve", "--dir", directory, "--http", "127.0.0.1:0")
    assert (second.code, second.out) == (4, "") and "another process" in second.err
    assert server.stop(signal.SIGKILL) == -9
    server = serving(directory)
    assert server.submit(LOG.body(0, 9)).text == "9\n"
    assert server.submit(LOG.body(9, 12)).status_code == 200
    assert server.stop() == 0
    assert "stopped" in server.said


def test_a_fork_is_shown_and_is_exit_code_1(directory: Path, trail: Trail, serving: Callable[..., Serving]) -> None:
    server = serving(directory)
    assert server.submit(LOG.body(0, 9)).status_code == 200
    assert server.submit(LOG.fork(2).body(9, 12)).status_code == 422
    table = trail("witness", "show", "--dir", directory)
    assert table.code == 0 and "without proof" in table.err  # which anybody could have sent
    assert server.submit(LOG.fork(2).body(9, 9)).status_code == 422
    assert server.stop() == 0 and "FORK" in server.said
    shown = trail("witness", "show", "--dir", directory, "--json")
    assert shown.code == 1
    (path,) = shown.json["logs"][0]["forks"]
    assert json.loads(Path(path).read_text())["kind"] == "fork"
    table = trail("witness", "show", "--dir", directory)
    assert table.code == 1 and LOG.origin in table.out and path in table.err


def test_a_state_that_is_damaged_or_of_a_log_no_longer_listed_is_shown(
    directory: Path, trail: Trail, serving: Callable[..., Serving]
) -> None:
    server = serving(directory)
    assert server.submit(LOG.body(0, 9)).status_code == 200
    assert server.stop() == 0
    (directory / "logs").write_text("# nobody\n")
    shown = trail("witness", "show", "--dir", directory)
    assert shown.code == 0 and "no longer cosigned for" in shown.out and LOG.origin in shown.out
    (directory / LOG.path / "checkpoint").unlink()
    shown = trail("witness", "show", "--dir", directory)
    assert shown.code == 4 and "retire it" in shown.err


def test_it_may_listen_for_other_machines_without_tokens(directory: Path, serving: Callable[..., Serving]) -> None:
    server = serving(directory, "--http", "0.0.0.0:0")
    port = server.url.rpartition(":")[2]
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200
    assert server.stop(signal.SIGINT) == 0


def test_silent_connections_take_it_no_descriptors_that_it_needs(directory: Path, serving: Callable[..., Serving]) -> None:
    """It is for everybody to reach, so that whoever connects and says nothing must not keep it from cosigning."""
    server = serving(directory)
    body = LOG.body(0, 9)
    with httpx.Client(base_url=server.url, timeout=30) as early:
        assert early.get("/").status_code == 200
        with flooded(server.process.pid, server.url):
            assert early.post("/add-checkpoint", content=body).status_code == 200
    assert "Too many open files" not in server.said
    assert server.stop() == 0


def test_a_witness_without_logs_says_so(tmp_path: Path, trail: Trail, serving: Callable[..., Serving]) -> None:
    assert trail("witness", "init", "--dir", tmp_path / "w", "--name", "w.example/1").code == 0
    shown = trail("witness", "show", "--dir", tmp_path / "w")
    assert (shown.code, shown.out) == (0, "") and "add-log" in shown.err
    server = serving(tmp_path / "w")
    assert server.stop() == 0
    assert "knows no log" in server.said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_stores_witness_each_other(tmp_path: Path, trail: Trail) -> None:
    names, ports = ("a", "b"), {name: free_port() for name in ("a", "b")}
    vkeys, cosigners = {}, {}
    for name in names:
        made = trail("--store", tmp_path / name, "init", "--origin", f"example.com/{name}", "--key", tmp_path / f"{name}.key", "--json")
        vkeys[name] = made.json["vkey"]
        cosigners[name] = trail("witness", "init", "--dir", tmp_path / f"w{name}", "--name", f"witness.example/{name}", "--json").json
    servers: list[Server] = []
    try:
        for name, other in (("a", "b"), ("b", "a")):
            assert trail("witness", "add-log", vkeys[other], "--dir", tmp_path / f"w{name}").code == 0
            url = f"http://127.0.0.1:{ports[other]}/witness"
            (tmp_path / name / "tlog-policy").write_text(f"{cosigners[other]['policy']} {url}\nquorum witness.example/{other}\n")
            servers.append(
                Server(
                    tmp_path / name,
                    *("--http", f"127.0.0.1:{ports[name]}", "--key", tmp_path / f"{name}.key"),
                    *("--witness", tmp_path / f"w{name}"),
                )
            )
        for server, name, other in zip(servers, names, reversed(names), strict=True):
            path = f"{server.url}/witness/{origin_path(f'example.com/{other}')}/checkpoint"
            until(lambda path=path: httpx.get(path, timeout=30).status_code == 200)
            keys = [Verifier.parse(vkeys[other]), Verifier.parse(cosigners[name]["vkey"])]
            assert len(open_note(httpx.get(path, timeout=30).content, keys).verified) == 2
            assert cosigners[name]["vkey"] in server.said
            assert trail("witness", "serve", "--dir", tmp_path / f"w{name}", "--http", "127.0.0.1:0").code == 4
        assert [server.stop() for server in servers] == [0, 0]
    finally:
        for server in servers:
            server.kill()


def test_a_server_that_witnesses_itself_is_told_that_it_convinces_nobody(tmp_path: Path, trail: Trail) -> None:
    made = trail("--store", tmp_path / "a", "init", "--origin", "example.com/a", "--key", tmp_path / "a.key", "--json").json
    assert trail("witness", "init", "--dir", tmp_path / "w", "--name", "witness.example/a").code == 0
    assert trail("witness", "add-log", made["vkey"], "--dir", tmp_path / "w").code == 0
    server = Server(tmp_path / "a", "--key", tmp_path / "a.key", "--witness", tmp_path / "w")
    try:
        until(lambda: "convinces nobody" in server.said)
        assert server.stop() == 0
    finally:
        server.kill()
    absent = trail("--store", tmp_path / "a", "serve", "--http", "127.0.0.1:0", "--witness", tmp_path / "none", "--key", tmp_path / "a.key")
    assert absent.code == 4 and "there is no witness" in absent.err


def test_help_shows_examples(trail: Trail) -> None:
    for words in ((), ("init",), ("add-log",), ("serve",), ("show",)):
        ran = trail("witness", *words, "--help")
        assert ran.code == 0 and "Examples:" in ran.out
    assert os.environ.get("TRAIL_WITNESS") is None
