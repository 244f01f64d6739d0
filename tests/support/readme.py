"""What the README shows of the program, made by the program: `python tests/support/readme.py --write` puts it in.

`tests/test_readme.py` compares. The scenario is played at a fixed moment, so that only the salts, and with them the root, differ.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from pathlib import Path

from trail_process import Server, run_trail

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the samples are no installed package
README = ROOT / "README.md"
MOMENT = 1_795_000_000_000_000_000
"""2026-11-18 11:06:40 UTC."""


def card(place: Path) -> str:
    """The answer to the demo's question, without the difference that follows it."""
    store = place / "store"
    run_trail("--store", store, "init", "--origin", "example.com/readme")
    server = Server(store)
    try:
        importlib.import_module("samples.scenario.play").play(server.url, now_unix_ns=MOMENT)
        server.stop()
    finally:
        server.kill()
    said = run_trail("--store", store, "ask", "config/refunds.yaml").out
    shown = said.strip().split("\n   the change:")[0]
    shown = re.sub(r"root [0-9a-f]{16}", "root 3f9c2a61d07be854", shown)
    return re.sub(r"(records 0 to|tree of) \d+", r"\1 239", shown)


def commands() -> str:
    """The verbs, as `trail --help` lists them."""
    said = run_trail("--help").out
    body = said.split("\nRecord:\n")[1].split("\nEnvironment:")[0]
    return "Record:\n" + body.rstrip()


def replaced(text: str, name: str, block: str) -> str:
    """The README with the block marked `<!-- name -->` set."""
    return re.sub(rf"(<!-- {name}:[^\n]*-->\n```text\n).*?(\n```\n)", lambda m: m[1] + block + m[2], text, flags=re.DOTALL)


def main() -> None:
    """Print the README as it should be, or write it."""
    with tempfile.TemporaryDirectory() as directory:
        for kind in ("CONFIG", "STATE", "CACHE"):
            os.environ[f"XDG_{kind}_HOME"] = str(Path(directory) / kind.lower())
        text = replaced(README.read_text("utf-8"), "card", card(Path(directory)))
        text = replaced(text, "commands", commands())
    if "--write" in sys.argv:
        README.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
