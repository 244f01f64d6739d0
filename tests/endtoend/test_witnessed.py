"""`trail serve` and its witnesses, as processes: cosigned to the end, a rollback refused at the start, a fork stopped while it runs."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from trail_process import PATIENCE_SECONDS, Server, command_line, environment, run_trail

from ledger.anchors import newest_cosigned
from ledger.checkpoint import open_checkpoint
from ledger.evidence import ForkEvidence
from ledger.keys import state_dir
from ledger.layout import Layout
from ledger.note import Verifier
from ledger.policy import Policy
from ledger.witness_client import newest
from ledger.witness_state import read_states, states_path
from tui.exits import Exit

ORIGIN = "example.com/witnessed"
Serve = Callable[..., Server]


class Witness:
    """A running `trail witness serve`."""

    def __init__(self, directory: Path, *logs: str) -> None:
        made = run_trail("witness", "init", "--dir", directory, "--name", f"example.org/{directory.name}", "--json")
        assert made.code == Exit.OK, made.err
        self.name, self.vkey = directory.name, made.json["vkey"]
        for vkey in logs:
            assert run_trail("witness", "add-log", vkey, "--dir", directory).code == Exit.OK
        self._directory = directory
        self._port = 0
        self.start()

    @property
    def line(self) -> str:
        return f"witness {self.name} {self.vkey} {self.url}\n"

    def start(self) -> None:
        log = self._directory.with_name(self.name + ".log")
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command_line("witness", "serve", "--dir", self._directory, "--http", f"127.0.0.1:{self._port}"),
                env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
            )  # fmt: skip
        said = self._wait(log)
        self.url = next(line.split()[1] for line in said.splitlines() if line.startswith("listening"))
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """As a power cut would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE_SECONDS)

    def _wait(self, log: Path) -> str:
        assert eventually(lambda: "listening" in log.read_text("utf-8") or self.process.poll() is not None)
        assert self.process.poll() is None, log.read_text("utf-8")
        return log.read_text("utf-8")


@pytest.fixture
def witness_of(tmp_path: Path) -> Iterator[Callable[..., Witness]]:
    """Make witnesses that are gone after the test."""
    made: list[Witness] = []

    def make(name: str, *logs: str) -> Witness:
        made.append(Witness(tmp_path / name, *logs))
        return made[-1]

    yield make
    for witness in made:
        witness.kill()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    assert run_trail("init", "--store", store, "--origin", ORIGIN).code == Exit.OK
    with (store / "trail.toml").open("a") as file:
        file.write("checkpoint_seconds = 0.05\nwitness_seconds = 0.05\n")
    return store


def vkey_of(store: Path) -> str:
    vkey: str = run_trail("info", "--store", store, "--json").json["vkey"]
    return vkey


def policy_for(store: Path, *witnesses: Witness, quorum: str = "all") -> Policy:
    """Write the store's policy."""
    names = " ".join(witness.name for witness in witnesses)
    text = f"{''.join(witness.line for witness in witnesses)}group them {quorum} {names}\nquorum them\n"
    (store / "tlog-policy").write_text(text)
    return Policy.parse(text)


def post(url: str, text: str) -> int:
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": text}}]}]}]}
    return asked(f"{url}/v1/logs", json.dumps(body).encode())[0]


def asked(url: str, body: bytes | None = None) -> tuple[int, str]:
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own server
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
            return response.status, response.read().decode()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def eventually(true: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def configs(store: Path) -> list[dict[str, Any]]:
    ran = run_trail(
        "sql", "SELECT decode(record) AS text FROM records WHERE name = 'tlog-policy' ORDER BY index", "--store", store, "--json"
    )
    return [json.loads(row["text"])["config"] for row in ran.json]


def cosigned_size(store: Path, vkey: str) -> int:
    note = newest_cosigned(Layout(store))
    return 0 if note is None else open_checkpoint(note, Verifier.parse(vkey)).size


def signed_size(store: Path, vkey: str) -> int:
    path = store / "checkpoint"
    return open_checkpoint(path.read_bytes(), Verifier.parse(vkey)).size if path.exists() else -1


def test_from_a_policy_to_a_cosigned_last_checkpoint(store: Path, witness_of: Callable[..., Witness], serving: Serve) -> None:
    vkey = vkey_of(store)
    one, two = witness_of("one", vkey), witness_of("two", vkey)
    policy = policy_for(store, one, two)
    server = serving(store)
    assert "one, two (quorum them" in server.said
    for number in range(5):
        assert post(server.url, f"message {number}") == 200
    assert eventually(lambda: cosigned_size(store, vkey) >= 6)
    two.kill()
    assert post(server.url, "while one is away") == 200
    assert eventually(lambda: any(state.error for state in read_states(states_path(ORIGIN))))
    two.start()
    assert eventually(lambda: cosigned_size(store, vkey) == signed_size(store, vkey))
    assert server.stop() == Exit.OK
    assert "Traceback" not in server.said

    last = newest_cosigned(Layout(store))
    assert last is not None
    assert last.startswith((store / "checkpoint").read_bytes())
    assert {cosignature.witness.name for cosignature in policy.cosignatures(last)} == {"one", "two"}
    for witness in (one, two):
        kept = newest(witness.url, ORIGIN)
        assert kept is not None
        assert open_checkpoint(kept, Verifier.parse(vkey)).size == signed_size(store, vkey)
    assert [state.error for state in read_states(states_path(ORIGIN))] == ["", ""]
    assert [config["text"] for config in configs(store)] == [(store / "tlog-policy").read_text()]
    assert run_trail("verify", "--store", store).code == Exit.OK


def test_a_restored_backup_is_refused_on_a_machine_that_remembers_nothing(
    store: Path, witness_of: Callable[..., Witness], serving: Serve, tmp_path: Path
) -> None:
    vkey = vkey_of(store)
    witness = witness_of("w", vkey)
    policy_for(store, witness)
    assert serving(store).stop() == Exit.OK
    shutil.copytree(store, tmp_path / "backup")
    server = serving(store)
    assert post(server.url, "what the backup lacks") == 200
    assert server.stop() == Exit.OK
    newest_size = signed_size(store, vkey)
    shutil.rmtree(store)
    shutil.move(tmp_path / "backup", store)
    shutil.rmtree(state_dir())
    before = signed_size(store, vkey)

    ran = run_trail("serve", "--http", "127.0.0.1:0", "--store", store)
    assert (ran.code, ran.out) == (Exit.FALSE, "")
    assert f"a checkpoint over {newest_size} records" in ran.err
    assert f"{newest_size - before} records are missing" in ran.err
    assert "trail init --continues" in ran.err
    assert signed_size(store, vkey) == before
    assert [path.name.partition("-")[0] for path in (state_dir() / "evidence").iterdir()] == ["checkpoint", "checkpoint"]

    # Without its witness nothing can be noticed, and it says that nothing was compared.
    witness.kill()
    server = serving(store)
    assert "nothing was compared with the witness w" in server.said
    # And once the witness is back, it is.
    witness.start()
    assert eventually(lambda: asked(f"{server.url}/readyz")[0] == 503)
    assert "records" in asked(f"{server.url}/readyz")[1]
    assert server.stop() == Exit.FALSE
    assert "NOTHING IS SIGNED ANY MORE" in server.said
    assert "NOTHING MORE WAS SIGNED" in server.said


def test_a_fork_is_stopped_while_it_runs_and_proves_itself(
    store: Path, witness_of: Callable[..., Witness], serving: Serve, tmp_path: Path
) -> None:
    """Two servers with one key: the second one loses, and says so."""
    vkey = vkey_of(store)
    witness = witness_of("w", vkey)
    assert serving(store).stop() == Exit.OK
    shutil.copytree(store, tmp_path / "twin")
    shutil.copytree(state_dir(), tmp_path / "state")
    policy_for(store, witness)
    server = serving(store)
    assert post(server.url, "one history") == 200
    assert server.stop() == Exit.OK
    shutil.rmtree(state_dir())
    shutil.copytree(tmp_path / "state", state_dir())

    twin = tmp_path / "twin"
    witness.kill()
    policy_for(twin, witness)
    server = serving(twin)
    for number in range(20):
        assert post(server.url, f"another history {number}") == 200
    assert eventually(lambda: signed_size(twin, vkey) > 20)
    witness.start()
    assert eventually(lambda: asked(f"{server.url}/readyz")[0] == 503)
    signed = (twin / "checkpoint").read_bytes()
    assert post(server.url, "nor this") == 503
    assert server.stop() == Exit.FALSE
    assert "another history" in server.said
    assert (twin / "checkpoint").read_bytes() == signed
    [path] = (state_dir() / "evidence").glob("fork-*.txt")
    assert ForkEvidence.parse(path.read_bytes()).check([Verifier.parse(vkey)])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port


def test_two_stores_witness_each_other(store: Path, serving: Serve, tmp_path: Path) -> None:
    """Two servers, each of them the witness of the other's log."""
    other = tmp_path / "other"
    assert run_trail("init", "--store", other, "--origin", "example.net/other").code == Exit.OK
    vkeys = {place: vkey_of(place) for place in (store, other)}
    ports = {place: free_port() for place in (store, other)}
    for place, peer in ((store, other), (other, store)):
        directory = tmp_path / f"witness at {place.name}"
        made = run_trail("witness", "init", "--dir", directory, "--name", f"example.org/{place.name}", "--json").json
        assert run_trail("witness", "add-log", vkeys[peer], "--dir", directory).code == Exit.OK
        line = f"witness peer {made['vkey']} http://127.0.0.1:{ports[place]}/witness\n"
        (peer / "tlog-policy").write_text(f"{line}quorum peer\n")
    servers = [
        serving(place, "--http", f"127.0.0.1:{ports[place]}", "--witness", tmp_path / f"witness at {place.name}")
        for place in (store, other)
    ]
    for server in servers:
        assert post(server.url, "hello") == 200
    assert eventually(lambda: all(cosigned_size(place, vkeys[place]) == signed_size(place, vkeys[place]) > 3 for place in (store, other)))
    # The first to stop has its last checkpoint cosigned; the second finds nobody, and stops all the same.
    assert [server.stop() for server in servers] == [Exit.OK, Exit.OK]
    policy = Policy.parse((store / "tlog-policy").read_text())
    last = newest_cosigned(Layout(store))
    assert last is not None
    assert last.startswith((store / "checkpoint").read_bytes())
    assert [cosignature.witness.name for cosignature in policy.cosignatures(last)] == ["peer"]
    assert all("Traceback" not in server.said for server in servers)


def test_a_policy_that_is_none_is_refused_with_its_line(store: Path) -> None:
    (store / "tlog-policy").write_text("# who\nwitness x y\nquorum none\n")
    ran = run_trail("serve", "--http", "127.0.0.1:0", "--store", store)
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert "tlog-policy: line 2" in ran.err
    assert run_trail("status", "--store", store, "--json").json["size"] == 0


def test_a_change_of_the_policy_is_recorded_and_counts_from_the_next_start(
    store: Path, witness_of: Callable[..., Witness], serving: Serve
) -> None:
    witness = witness_of("w", vkey_of(store))
    policy = store / "tlog-policy"
    policy.write_text(f"{witness.line}quorum w\n")
    server = serving(store)
    policy.write_text("quorum none\n")
    assert eventually(lambda: "takes effect when the server is started again" in server.said)
    policy.write_text("nonsense\n")
    assert eventually(lambda: "will not start with it" in server.said)
    assert server.stop() == Exit.OK
    assert [config["text"] for config in configs(store)] == [f"{witness.line}quorum w\n", "quorum none\n", "nonsense\n"]
    assert newest_cosigned(Layout(store)) is not None


def test_there_is_one_policy_and_everybody_looks_at_it(store: Path, witness_of: Callable[..., Witness], serving: Serve) -> None:
    """A policy named to the server alone would have status, doctor, /log and import say that nobody witnesses this log."""
    vkey = vkey_of(store)
    witness = witness_of("w", vkey)
    elsewhere = run_trail("serve", "--http", "127.0.0.1:0", "--store", store, "--policy", store / "tlog-policy")
    assert (elsewhere.code, elsewhere.out) == (Exit.USAGE, "")
    policy_for(store, witness)
    server = serving(store)
    assert post(server.url, "hello") == 200
    assert eventually(lambda: cosigned_size(store, vkey) > 1)
    status = run_trail("status", "--store", store, "--json").json
    assert (status["anchored"]["witnesses_wanted"], [one["name"] for one in status["anchored"]["witnesses"]]) == (True, ["w"])
    assert "nobody outside confirms this log" not in run_trail("doctor", "--store", store).out
    assert "\u2014 example.org/w " in asked(f"{server.url}/log/checkpoint")[1]
    assert server.stop() == Exit.OK
