"""`ledger/OPERATIONS.md` is run: its commands, what they print, and the promises that no command shows.

A block of commands marked `<!-- run: SCENE -->` runs in bash, after the earlier blocks of its scene, on a machine of its own: the absolute
paths lie below a temporary directory, `systemctl` starts and stops real servers there, and the ports are free ones. A command must end with
0, or with what `# exit N` behind it says. The `text` block that follows is what it prints, stdout and stderr; `…` stands for anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from trail_process import PATIENCE_SECONDS, ROOT
from tsa import answering, make_authority, serving

TEXT: Final = (ROOT / "ledger" / "OPERATIONS.md").read_text("utf-8")
SAMPLES: Final = ROOT / "samples" / "operations"
SNAPSHOT: Final = SAMPLES / "snapshot.sh"
PROGRAMS: Final = ("bash", "jq", "curl", "openssl", "setsid")
"""That the page uses beside `trail`."""

_BLOCK: Final = re.compile(
    r"^ *<!-- run: (?P<scene>[\w-]+) -->\n *```sh\n(?P<commands>.*?)^ *```\n(?:\n *```text\n(?P<printed>.*?)^ *```\n)?",
    re.DOTALL | re.MULTILINE,
)
_PATH: Final = re.compile(r"(?<![\w.~$/*-])(/(?:srv|var/lib|mnt|etc/trail)\b)")
_EXIT: Final = re.compile(r"^(?P<command>.*?)\s+# exit (?P<code>\d+)$", re.DOTALL)
_SYSTEMCTL: Final = """#!/bin/bash
# systemctl start|stop|restart UNIT, for the units of samples/operations.
set -eu
pid="$MACHINE/$2.pid" log="$MACHINE/$2.log"
stop() { [ ! -f "$pid" ] || { kill "$(cat "$pid")" && tail --pid="$(cat "$pid")" -f /dev/null; rm "$pid"; }; }
start() {
    : >"$log"
    case $2 in
        trail) setsid trail serve --http 127.0.0.1:4318 --processes 1 >"$log" 2>&1 </dev/null 3>&- & ;;
        trail-witness) setsid trail witness serve --dir /srv/witness --http 127.0.0.1:4320 >"$log" 2>&1 </dev/null 3>&- & ;;
    esac
    echo $! >"$pid"
    until grep -q ^listening "$log"; do
        kill -0 $! 2>/dev/null || { rm "$pid"; cat "$log"; exit 1; }
        sleep 0.1
    done
    until [ "$2" != trail ] || [ -e "$TRAIL_STORE/checkpoint" ]; do sleep 0.1; done
}
case $1 in start) start "$@" ;; stop) stop ;; restart) stop && start "$@" ;; esac
"""
_JOURNALCTL: Final = '#!/bin/bash\ncat "$MACHINE/$2.log"\n'

_MADE: Final = "trail init --origin example.com/agents/prod"
_RUNNING: Final = f"{_MADE}\nsystemctl start trail"
_STOPPED: Final = f"{_RUNNING}\nsystemctl stop trail"
_KEYS: Final = "/var/lib/trail/.config/trail/keys"
_BACKED_UP: Final = f"{_RUNNING}\nmkdir /mnt/backup\nsh {SNAPSHOT} /srv/trail/store /mnt/backup/2026-11-20\nsystemctl restart trail"
_WITNESSED: Final = f"""{_MADE}
trail witness init --dir /srv/witness --name witness.example.org/a
trail witness add-log "$(trail info --vkey)" --dir /srv/witness
systemctl start trail-witness
vkey=$(trail info --vkey) witness=$(cat /srv/witness/vkey)
printf 'log %s\\nwitness a %s http://127.0.0.1:4320\\nquorum a\\n' "$vkey" "$witness" > /srv/trail/store/tlog-policy
printf 'keys = ["%s"]\\npolicy_text = "witness a %s\\\\nquorum a\\\\n"\\n' "$vkey" "$witness" > /etc/trail/trust.toml
systemctl start trail
until trail status | grep -q 'own witnesses'; do sleep 0.5; done"""
BEFORE: Final = {
    "install": "",
    "backup": _RUNNING,
    "restore": _BACKED_UP,
    "ended": f"{_BACKED_UP}\nsystemctl stop trail\nrm -r /srv/trail/store\ncp -a /mnt/backup/2026-11-20 /srv/trail/store",
    "disk": f"{_MADE}\necho 'reserve_bytes = 100000000000000000' >> /srv/trail/store/trail.toml\nsystemctl start trail",
    "lost": f"{_STOPPED}\nmv {_KEYS} {_KEYS}.lost",
    "secret": f"{_STOPPED}\nrm {_KEYS}/*.secret",
    "state": f"{_STOPPED}\nmv /var/lib/trail/state /var/lib/trail/state.lost",
    "stolen": f"{_WITNESSED}\necho of my own > /etc/trail/passphrase",
    "newer": f"{_STOPPED}\nsed -i 's/^format = 1/format = 2/' /srv/trail/store/trail.toml",
    "move": _RUNNING,
    "witness": _RUNNING,
    "mutual": "",
    "stamp": _RUNNING,
    "log": _RUNNING,
    "status": _RUNNING,
    "nightly": _WITNESSED,
}
"""What has happened before each scene begins."""


def blocks(scene: str) -> list[tuple[str, str]]:
    """The commands of a scene, and what each block prints; both without the indentation of a list."""

    def flush(text: str) -> str:
        lines = text.splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        return "\n".join(line[indent:] for line in lines)

    return [(flush(found["commands"]), flush(found["printed"] or "")) for found in _BLOCK.finditer(TEXT) if found["scene"] == scene]


class Machine:
    """Where the commands of one scene run."""

    def __init__(self, place: Path) -> None:
        """Make its directories and programs; nothing runs yet."""
        self.place = place
        self.replaced = {":4318": f":{_free_port()}", ":4320": f":{_free_port()}", "/opt/trail/samples": str(ROOT / "samples")}
        home = place / "var" / "lib" / "trail"
        for directory in (home, place / "srv" / "trail", place / "mnt", place / "etc" / "trail", place / "bin"):
            directory.mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAIL_", "XDG_"))}
        self.environment = kept | {
            "HOME": str(home), "MACHINE": str(place), "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1", "TRAIL_STORE": str(place / "srv/trail/store"), "TRAIL_STATE": str(home / "state"), "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        self._program("trail", f'#!/bin/sh\nexec "{sys.executable}" -m tui.cli "$@"\n')
        self._program("systemctl", self._here(_SYSTEMCTL))
        self._program("journalctl", _JOURNALCTL)
        self._started: list[subprocess.Popen[str]] = []

    def run(self, commands: str) -> str:
        """What they print; what an earlier call exported is still set.

        Raises:
            AssertionError: a command did not end as it should.
        """
        script = '[ ! -f "$MACHINE/exported" ] || . "$MACHINE/exported"\ncd /srv/trail\n'
        for command in _commands(commands):
            expected = _EXIT.match(command)
            text, code = (expected["command"], expected["code"]) if expected else (command, "0")
            script += f'{text}\n_code=$?; [ $_code -eq {code} ] || {{ echo "ENDED WITH $_code, NOT {code}"; exit 99; }}\n'
        script += 'export -p > "$MACHINE/exported"\n'
        process = subprocess.Popen(
            ["bash", "-c", self._here(script)], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        said = self._there(process.communicate(timeout=3 * PATIENCE_SECONDS)[0])
        assert process.returncode == 0, f"{commands}\n\n{said}"
        return said

    def close(self) -> None:
        """End what is still running."""
        for number in [process.pid for process in self._started if process.poll() is None]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)
        for path in self.place.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)

    def _program(self, name: str, text: str) -> None:
        path = self.place / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _here(self, text: str) -> str:
        text = _PATH.sub(lambda found: f"{self.place}{found[1]}", text)
        for documented, ours in self.replaced.items():
            text = text.replace(documented, ours)
        return text

    def _there(self, text: str) -> str:
        text = text.replace(str(self.place), "")
        for documented, ours in self.replaced.items():
            text = text.replace(ours, documented)
        return text


def _commands(text: str) -> Iterator[str]:
    """Whole commands: as many lines as bash wants for one."""
    gathered = ""
    for line in text.splitlines():
        gathered += line
        checked = subprocess.run(["bash", "-n", "-c", gathered], capture_output=True, check=False)
        if checked.returncode == 0 and not gathered.endswith("\\"):
            yield gathered
            gathered = ""
        else:
            gathered += "\n"
    assert not gathered, gathered


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def pattern_of(shown: str) -> str:
    """What the page shows, as a regular expression: `…` is anything in a line, a line with nothing else is any lines."""
    lines = (line.rstrip() for line in shown.splitlines())
    return "".join(r"(?:.*\n)*?" if line == "…" else re.sub("…", ".*", re.escape(line)) + "\n" for line in lines)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"OPERATIONS.md IS NOT RUN: {', '.join(missing)} not in PATH")
    made = Machine(tmp_path / "machine")
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------------------- the page


def test_every_block_of_commands_is_run() -> None:
    assert len(re.findall(r"^ *```sh$", TEXT, re.MULTILINE)) == len(list(_BLOCK.finditer(TEXT)))
    assert {found["scene"] for found in _BLOCK.finditer(TEXT)} == set(BEFORE)


@pytest.mark.parametrize("scene", BEFORE)
def test_what_the_page_says_is_what_happens(scene: str, machine: Machine, tmp_path: Path) -> None:
    with contextlib.ExitStack() as around:
        if scene == "stamp":
            authority = make_authority(tmp_path / "tsa")
            shutil.copy(authority.roots_file, machine.place / "etc" / "trail" / "tsa-root.pem")
            machine.replaced["http://tsa.example.com"] = around.enter_context(serving(answering(authority.stamp))).url
        machine.run(BEFORE[scene])
        for commands, shown in blocks(scene):
            printed = "".join(f"{line.rstrip()}\n" for line in machine.run(commands).splitlines())
            assert re.fullmatch(pattern_of(shown), printed), f"{commands}\n\nprinted\n{printed}\nand not\n{shown}"


def test_every_place_it_links_to_is_there() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    for file, place in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", TEXT):
        assert (ROOT / "ledger" / file).exists(), file
        assert file or place in headings, place


def test_every_file_of_the_samples_it_names_is_there() -> None:
    for name in re.findall(r"samples/operations/([\w.-]+\w)", TEXT):
        assert (SAMPLES / name).exists(), name
