"""`trail demo`: the first thing anybody sees."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from trail_process import command_line, environment, run_trail

from tui.exits import Exit


def test_it_shows_everything_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    monkeypatch.setenv("TRAIL_STORE", str(real))
    ran = run_trail("demo", cwd=tmp_path)
    assert ran.code == Exit.OK, ran.err
    assert not real.exists()
    assert "config/refunds.yaml" in ran.out
    for question in ("WHAT", "WHO", "POLICY", "SAW", "UNDO", "INTACT"):
        assert question in ran.out
    assert ran.out.index("VERIFIED") < ran.out.index("FAILED")
    assert "FALSE  file: records/" in ran.out
    assert "FALSE  record: records/" in ran.out
    assert "[8/8]" in ran.err
    assert "ANCHORED: a quorum of your witnesses" in ran.out
    assert "With the public key alone that is a perfect store" in ran.out
    assert re.search(r"FALSE  rollback: the newest checkpoint of the witness, from record \d+: \d\d records are missing", ran.out)
    assert "Traceback" not in ran.err

    commands = [line.strip() for line in ran.out.partition("Try next:")[2].splitlines() if line.strip()]
    assert len(commands) == 3
    store = tmp_path / "trail-demo"
    assert run_trail("verify", "--store", store).code == Exit.OK
    for command in commands[:2]:
        tried = subprocess.run(
            ["sh", "-c", command.replace("trail", f"{sys.executable} -m tui.cli", 1)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert tried.returncode == Exit.OK, tried.stderr
        assert len(tried.stdout.splitlines()) > 2

    config = Path(os.environ["XDG_CONFIG_HOME"]) / "trail" / "keys"
    keys = set(config.iterdir())
    origin = run_trail("info", "--store", store, "--json").json["origin"]
    again = run_trail("demo", "--keep", cwd=tmp_path)
    assert again.code == Exit.OK, again.err
    assert run_trail("info", "--store", store, "--json").json["origin"] != origin
    assert len(set(config.iterdir())) == len(keys)
    assert not set(config.iterdir()) & keys
    assert run_trail("verify", "--store", tmp_path / "trail-demo-tampered").code == Exit.FALSE
    assert not list(tmp_path.glob("**/*.server.json"))


def test_it_replaces_nothing_that_is_not_a_demo(tmp_path: Path) -> None:
    assert run_trail("init", "--store", tmp_path / "trail-demo").code == Exit.OK
    ran = run_trail("demo", cwd=tmp_path)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "not an earlier demo's" in ran.err
    (tmp_path / "trail-demo" / ".trail-demo.json").write_text('{"origin": "trail-demo.invalid/0123456789abcdef"}', "utf-8")
    assert run_trail("demo", cwd=tmp_path).code == Exit.STORAGE
    assert (tmp_path / "trail-demo" / "trail.toml").exists()


def test_it_says_what_is_missing_before_it_makes_anything(tmp_path: Path) -> None:
    code = "import sys; sys.modules['opentelemetry.sdk'] = None; from tui.cli import run; sys.exit(run(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (Exit.STORAGE, "")
    assert "agent-trail[samples]" in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_takes_the_server_with_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command_line("demo"), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    said = ""
    while "[3/8]" not in said:
        line = process.stderr.readline()
        assert line, f"the demo ended early: {said}"
        said += line
    urls = re.findall(r"started (?:the server|a witness, [^:]*): (\S+)", said)
    assert len(urls) == 2
    os.killpg(process.pid, signal.SIGINT)
    _out, rest = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in rest
    for url in urls:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    assert run_trail("demo", cwd=tmp_path).code == Exit.OK
