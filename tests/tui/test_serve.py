"""`trail serve`, as a process: what it acknowledged is there after every way of stopping it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from flood import flooded
from trail_process import Ran, Recorded, Server, command_line, environment, play, run_trail

from tui.exits import Exit
from tui.running import is_alive

Call = Callable[..., Ran]
Serve = Callable[..., Server]
PATIENCE_SECONDS = 15.0


@pytest.fixture
def store(trail: Call, tmp_path: Path) -> Path:
    assert trail("init", "--store", tmp_path / "store").code == Exit.OK
    return tmp_path / "store"


def body_of(text: str) -> bytes:
    """One log record as OTLP/JSON."""
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": text}}]}]}]}).encode()


def post(url: str, text: str, token: str | None = None) -> tuple[int, dict[str, str]]:
    """Send one log record as OTLP/JSON; the status and the headers."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = Request(f"{url}/v1/logs", body_of(text), headers)  # noqa: S310 - our own server
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
            return response.status, dict(response.headers)
    except HTTPError as refused:
        with refused:
            return refused.code, dict(refused.headers)


def counted(store: Path, where: str, *args: str) -> int:
    ran = run_trail("sql", f"SELECT count(*) AS n FROM records WHERE {where}", "--store", store, "--json", *args)  # noqa: S608 - ours
    assert ran.code == Exit.OK, ran.err
    return int(ran.json[0]["n"])


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_from_an_exporter_to_an_answer(trail: Call, store: Path, serving: Serve) -> None:
    server = serving(store)
    assert "sent 128 spans and 65 log records" in play(server.url)
    # At once with --tail; without it as soon as the checkpoint covers it, a second at most.
    assert counted(store, "kind IN ('span', 'log')", "--tail") == 193
    assert eventually(lambda: trail("status", "--store", store, "--json").json["acknowledged_not_signed"] == 0)
    card = trail("ask", "config/refunds.yaml", "--store", store, "--json").json["cards"][0]
    assert card["intact"]["verdict"] == "verified"
    assert trail("verify", "--store", store).code == Exit.OK

    status = trail("status", "--store", store, "--json").json
    assert status["server"]["http"] == server.url
    assert (status["writer"]["pid"], status["writer"]["alive"]) == (server.process.pid, True)
    assert {"server": "ok"}.items() <= {
        found["check"]: found["state"] for found in trail("doctor", "--store", store, "--json").json
    }.items()

    second = trail("serve", "--http", "127.0.0.1:0", "--store", store)
    assert (second.code, second.out) == (Exit.STORAGE, "")
    assert str(server.process.pid) in second.err
    assert "trail serve" in second.err

    assert server.stop() == Exit.OK
    assert "vkey" in server.said
    assert "Traceback" not in server.said
    stopped = trail("status", "--store", store, "--json").json
    assert (stopped["server"], stopped["writer"]) == (None, None)
    assert stopped["sealed"] >= 193
    assert trail("verify", "--store", store).code == Exit.OK
    assert counted(store, "kind IN ('span', 'log')") == 193


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_drains_and_a_restart_loses_nothing(store: Path, serving: Serve, number: signal.Signals) -> None:
    server = serving(store)
    acknowledged = sum(post(server.url, f"one {n}")[0] == 200 for n in range(20))
    # As a terminal does it: the whole process group gets Ctrl-C, the decoders too.
    assert server.stop(number, group=number is signal.SIGINT) == Exit.OK
    assert "Traceback" not in server.said
    server = serving(store)
    acknowledged += sum(post(server.url, f"two {n}")[0] == 200 for n in range(20))
    assert server.stop() == Exit.OK
    assert acknowledged == 40
    assert counted(store, "kind = 'log'") == 40
    assert counted(store, "kind = 'lifecycle' AND name = 'stop'") == 2
    assert run_trail("verify", "--store", store).code == Exit.OK


def test_a_power_cut_loses_nothing_acknowledged(trail: Call, store: Path, serving: Serve) -> None:
    server = serving(store)
    acknowledged = sum(post(server.url, f"one {n}")[0] == 200 for n in range(20))
    server.kill()
    assert trail("status", "--store", store, "--json").json["writer"]["alive"] is False
    assert any(found["check"] == "server" and found["state"] == "warn" for found in trail("doctor", "--store", store, "--json").json)
    server = serving(store)
    status, headers = post(server.url, "one 3")
    assert (status, headers.get("trail-duplicate")) == (200, "1")
    assert server.stop() == Exit.OK
    assert counted(store, "kind = 'log'") == acknowledged == 20
    assert trail("verify", "--store", store).code == Exit.OK


def test_a_process_that_nobody_waited_for_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert is_alive(os.getpid())
    assert eventually(lambda: not is_alive(process.pid))
    process.wait()
    assert not is_alive(process.pid)


def test_what_facts_are_judged_by_is_in_the_log(store: Path, serving: Serve) -> None:
    serving(store).stop()
    ran = run_trail(
        "sql", "SELECT name, decode(record) AS text FROM records WHERE kind = 'config' ORDER BY index", "--store", store, "--json"
    )
    configs = {row["name"]: json.loads(row["text"])["config"] for row in ran.json}
    assert {"trail.toml", "senders", "vocabulary trail/1", "vocabulary otel-genai/1"} <= set(configs)
    assert "gen_ai" in configs["vocabulary otel-genai/1"]["text"]


def test_tokens_are_required_recorded_and_revoked_while_it_runs(trail: Call, store: Path, serving: Serve) -> None:
    secret = trail("token", "add", "ci", "--role", "emitter", "--store", store).out.strip()
    reader = trail("token", "add", "audit", "--role", "auditor", "--store", store).out.strip()
    server = serving(store)
    assert post(server.url, "none")[0] == 401
    assert post(server.url, "wrong", "trail_" + "x" * 43)[0] == 401
    assert post(server.url, "reader", reader)[0] == 403
    assert post(server.url, "good", secret)[0] == 200
    assert trail("token", "revoke", "ci", "--store", store).code == Exit.OK
    assert post(server.url, "revoked", secret)[0] == 401
    assert eventually(lambda: counted(store, "kind = 'config' AND name = 'senders'", "--tail") == 2)
    assert server.stop() == Exit.OK
    ran = run_trail("sql", "SELECT kind, name, sender, decode(record) AS text FROM records ORDER BY index", "--store", store, "--json")
    assert [row["sender"] for row in ran.json if row["kind"] == "log"] == ["ci"]
    first, second = (json.loads(json.loads(row["text"])["config"]["text"]) for row in ran.json if row["name"] == "senders")
    assert [(token["name"], token["role"]) for token in first["tokens"]] == [("ci", "emitter"), ("audit", "auditor")]
    assert (first["in_use"], second["tokens"][0]["revoked"] is None) == (True, False)
    everything = "".join(row["text"] for row in ran.json)
    assert "sha256" not in json.dumps(first)
    assert secret not in everything


def test_without_tokens_it_stays_on_this_machine(trail: Call, store: Path) -> None:
    ran = trail("serve", "--http", "0.0.0.0:0", "--store", store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "trail token add" in ran.err
    assert trail("status", "--store", store, "--json").json["size"] == 0


def test_silent_connections_take_the_log_no_descriptors_that_it_needs(store: Path, serving: Serve) -> None:
    """Without a cap, accepting failed first, then sealing, and telemetry was refused with 503 as if the disk were broken."""
    with (store / "trail.toml").open("a") as file:
        file.write("segment_age_seconds = 0.2\n")
    server = serving(store)
    early = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    with contextlib.closing(early):

        def sent(text: str) -> int:
            early.request("POST", "/v1/logs", body_of(text), {"Content-Type": "application/json"})
            with early.getresponse() as response:
                response.read()
                return response.status

        assert sent("before") == 200
        with flooded(server.process.pid, server.url):
            sealed = len(list((store / "records").glob("*.parquet")))
            assert sent("meanwhile") == 200
            assert eventually(lambda: len(list((store / "records").glob("*.parquet"))) > sealed)
            assert sent("still") == 200
    assert server.stop() == Exit.OK
    assert "Too many open files" not in server.said
    assert counted(store, "kind = 'log'") == 3


def test_a_taken_port(trail: Call, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = trail("serve", "--http", f"127.0.0.1:{taken.getsockname()[1]}", "--store", store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "--http" in ran.err
    assert trail("status", "--store", store, "--json").json["size"] == 0


def test_it_makes_a_store_only_when_told_to(trail: Call, serving: Serve, tmp_path: Path) -> None:
    refused = trail("serve", "--store", tmp_path / "new")
    assert refused.code == Exit.STORAGE
    assert "trail serve --init" in refused.err
    server = serving(tmp_path / "new", "--init")
    assert post(server.url, "hello")[0] == 200
    assert server.stop() == Exit.OK
    assert trail("verify", "--store", tmp_path / "new").code == Exit.OK


def test_it_warns_of_what_others_can_read_or_write(store: Path, serving: Serve) -> None:
    store.chmod(0o777)
    server = serving(store)
    server.stop()
    assert f"warning: {store} can be written by other accounts" in server.said


def test_ctrl_c_while_it_starts_is_no_traceback(store: Path) -> None:
    for delay in (0.1, 0.3, 0.6):
        process = subprocess.Popen(
            command_line("--store", store, "serve", "--http", "127.0.0.1:0"),
            env=environment(),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=60)
        # Python itself may not be up yet.
        assert process.returncode in (Exit.OK, Exit.INTERRUPTED, -signal.SIGINT)
        assert process.returncode == -signal.SIGINT or b"Traceback" not in err


def read_only(store: Path) -> list[str] | None:
    """How to run something that sees the store on a read-only mount; None where that cannot be done."""
    if shutil.which("unshare") is None:
        return None
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    wrapped = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", str(store)]
    if subprocess.run([*wrapped, "true"], capture_output=True, check=False).returncode:
        wrapped.remove("--map-root-user")
        if subprocess.run([*wrapped, "true"], capture_output=True, check=False).returncode:
            return None
    return wrapped


def test_a_read_only_store_can_be_read_and_not_written(recorded: Recorded) -> None:
    wrapped = read_only(recorded.store)
    if wrapped is None:
        pytest.skip("this machine does not let us mount a directory read-only")

    def run(*args: object) -> Ran:
        done = subprocess.run(
            [*wrapped, *command_line(*args, "--store", recorded.store)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    assert run("verify").code == Exit.OK
    assert run("ask", "config/refunds.yaml", "--json").json["cards"]
    assert run("sql", "SELECT 1 AS one", "--json").json == [{"one": 1}]
    ran = run("serve", "--http", "127.0.0.1:0")
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "writable disk" in ran.err
