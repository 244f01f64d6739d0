"""The README is run: its shell blocks, its pictures of the program, its tables."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import readme

from tui.exits import Exit

TEXT = readme.README.read_text("utf-8")


def block(name: str) -> str:
    found = re.search(rf"<!-- {name}:[^\n]*-->\n```text\n(.*?)\n```\n", TEXT, re.DOTALL)
    assert found, f"the README has no block marked {name}"
    return found[1]


def test_the_card_is_what_the_program_prints(tmp_path: Path) -> None:
    assert block("card") == readme.card(tmp_path)


def test_the_commands_are_those_of_the_help() -> None:
    assert block("commands") == readme.commands()


def test_the_exit_codes_are_the_programs() -> None:
    rows = re.findall(r"^\| (\d+) \| ", TEXT, re.MULTILINE)
    assert [int(code) for code in rows] == [int(code) for code in Exit]


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (readme.ROOT / "Makefile").read_text("utf-8")
    for line in re.findall(r"^\$ make (\w+)$", TEXT, re.MULTILINE):
        assert re.search(rf"^{line}:", makefile, re.MULTILINE), line


def test_every_file_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (readme.ROOT / target).exists(), target


def test_every_shell_block_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    port, witness_port = free_port(), free_port()
    script = "\n".join(blocks).replace("4318", str(port)).replace("trail serve", f"trail serve --http 127.0.0.1:{port}")
    command = tmp_path / "bin" / "trail"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tui.cli "$@"\n', "utf-8")
    command.chmod(0o755)
    # Between the blocks: the server runs before it is restarted; telemetry is sent, and it is ended, before somebody asks for a checkpoint.
    runs = "until trail status --json | grep -q '\"http\"'; do sleep 0.1; done"
    sent = f"""
{runs}
until "{sys.executable}" "{readme.ROOT}/samples/scenario/play.py" http://127.0.0.1:{port}; do sleep 0.2; done
kill %3; wait %3
trail checkpoint >"""
    assert (script.count("kill %1; wait %1"), script.count("trail checkpoint >")) == (1, 1)
    script = script.replace("kill %1; wait %1", f"{runs}\nkill %1; wait %1").replace("trail checkpoint >", sent)
    script = f"set -e\n{script}\nkill %2; wait %2\n".replace("127.0.0.1:4320", f"127.0.0.1:{witness_port}")  # the witness is the second
    environment = os.environ | {"PYTHONPATH": str(readme.ROOT), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "kept.txt").exists()
    assert (tmp_path / "record-12.proof").read_text("utf-8").startswith("c2sp.org/tlog-proof@v1")
    # What the log was told is what the README shows, and it was believed: the witness has confirmed the last checkpoint.
    store = tmp_path / "trail-store"
    shown = re.search(r"```text\n(witness me .*?)```", TEXT, re.DOTALL)
    assert shown
    told = (store / "tlog-policy").read_text("utf-8")
    assert re.sub(r"\+[0-9a-f]{8}\+\S+", "+KEY", told).replace(str(witness_port), "4320") == re.sub(r"\+[0-9a-f]{8}\+\S+", "+KEY", shown[1])
    assert (store / "checkpoints" / "cosigned").read_bytes().startswith((store / "checkpoint").read_bytes())


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("words", ["Caught with the pinned public key alone", "Caught only with something held elsewhere", "Not caught"])
def test_the_threat_model_is_there(words: str) -> None:
    assert words in TEXT
