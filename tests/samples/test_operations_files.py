"""The files of `samples/operations`: units, container, alert rules, policy and trust file are what they say they are."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from trail_process import PATIENCE_SECONDS, ROOT, run_trail

from ingest.connections import MAX_CONNECTIONS
from ledger.policy import Policy
from ledger.trust import Trust
from tui.exits import Exit

SAMPLES: Final = ROOT / "samples" / "operations"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((SAMPLES / name).read_text())
    return parser


@pytest.mark.parametrize("name", ["trail.service", "trail-witness.service"])
def test_the_units_are_confined(name: str) -> None:
    service = unit(name)["Service"]
    wanted = {
        "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "",
        "UMask": "0077", "StateDirectoryMode": "0700", "KillSignal": "SIGTERM",
    }  # fmt: skip
    assert {key: service[key] for key in wanted} == wanted
    assert service["User"] not in ("", "root")
    program, verb, *_rest = service["ExecStart"].split()
    assert (program, run_trail(verb, "--help").code) == ("/opt/trail/bin/trail", 0)


def test_the_store_and_what_must_not_lie_with_it_are_apart() -> None:
    text = (SAMPLES / "trail.service").read_text()
    assert "TRAIL_STORE=/srv/trail/store TRAIL_STATE=/var/lib/trail/state" in text
    service = unit("trail.service")["Service"]
    assert (service["ReadWritePaths"], service["StateDirectory"]) == ("/srv/trail", "trail")
    # Both are fatal where the file is missing, so that neither is there until somebody has made it.
    assert "LoadCredential" not in service
    assert "\n#LoadCredential=passphrase:/etc/trail/passphrase\n#Environment=TRAIL_PASSPHRASE_FILE=%d/passphrase\n" in text
    assert "PASSPHRASE" not in service["Environment"]
    assert service["RestartPreventExitStatus"].split() == [str(int(code)) for code in (Exit.FALSE, Exit.USAGE, Exit.UNVERIFIABLE)]


@pytest.mark.parametrize("name", ["trail.service", "trail-witness.service"])
def test_the_units_have_descriptors_for_connections_and_for_the_log(name: str) -> None:
    assert int(unit(name)["Service"]["LimitNOFILE"]) // 4 > MAX_CONNECTIONS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="THE UNITS ARE NOT VERIFIED: there is no systemd-analyze here")
@pytest.mark.parametrize("name", ["trail.service", "trail-witness.service"])
def test_systemd_finds_nothing_wrong_with_the_units(name: str, tmp_path: Path) -> None:
    here = tmp_path / name  # the program is there only where trail is installed
    here.write_text((SAMPLES / name).read_text().replace("/opt/trail/bin/trail", "/bin/true"))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_container_runs_as_nobody_and_holds_no_secret() -> None:
    text = re.sub(r"\\\n\s*", "", (SAMPLES / "Containerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    said = dict(lines)
    assert re.fullmatch(r"python:3\.\d+-slim", said["FROM"])
    assert said["USER"] == "trail"
    assert json.loads(said["VOLUME"]) == ["/srv/trail", "/var/lib/trail"]
    assert "TRAIL_STORE=/srv/trail/store TRAIL_STATE=/var/lib/trail/state" in said["ENV"]
    assert "/healthz" in said["HEALTHCHECK"]
    assert json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"]) == ["/opt/trail/bin/trail", "serve", "--http", "127.0.0.1:4318"]
    assert not re.search(r"^(ENV|ARG|COPY|ADD).*(KEY|TOKEN|PASSPHRASE|SECRET)", text, re.MULTILINE)


def test_the_container_is_made_of_what_the_wheel_is_made_of_and_of_nothing_else() -> None:
    """`COPY .` would put every store and key that lies in the working copy into a layer."""
    copied = re.findall(r"^(?:COPY|ADD) (.*) \S+$", (SAMPLES / "Containerfile").read_text(), re.MULTILINE)
    assert copied.pop() == "--from=build /opt/trail"
    sources = [name for line in copied for name in line.split()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {*wheel["packages"], *wheel["force-include"], *project["project"]["license-files"], project["project"]["readme"]}
    assert sorted(sources) == sorted(wanted | {"pyproject.toml", "constraints.txt"})
    assert all((ROOT / name).exists() for name in sources)


def test_the_policy_and_the_trust_file_belong_together() -> None:
    policy = Policy.parse((SAMPLES / "tlog-policy").read_text())
    trust = Trust.load(SAMPLES / "trust.toml")
    assert all(witness.url for witness in policy.witnesses)
    assert policy.is_met_by({"a", "c"})
    assert not policy.is_met_by({"b"})
    assert trust.keys is not None
    assert trust.policy is not None
    assert trust.keys.keys[-1].verifier.vkey == policy.logs[0].verifier.vkey
    assert trust.keys.keys[0].until == 240
    ours = {witness.verifier.vkey for witness in trust.policy.witnesses}
    assert ours < {witness.verifier.vkey for witness in policy.witnesses}


WELL: Final[dict[str, Any]] = {
    "signed": {"state": "kept"}, "writer": {"alive": True}, "checkpoint_written": {"seconds_ago": 20.0}, "acknowledged_not_signed": 3,
    "not_sealed": {"records": 900, "bytes": 4096}, "disk_free_bytes": 1 << 40, "key": "pinned", "quarantined": 0,
    "anchored": {"witnesses_wanted": True, "cosigned": {"records_behind": 0, "seconds_ago": 3600.0}, "error": "",
                 "witnesses": [{"error": ""}], "time_stamped": {"seconds_ago": 60.0}},
}  # fmt: skip
ILL: Final[dict[str, tuple[str, Any]]] = {
    "not-what-was-signed": ("signed.state", "rollback"),
    "no-writer": ("writer", None),
    "not-signing": ("checkpoint_written.seconds_ago", 181.0),
    "unsigned-backlog": ("acknowledged_not_signed", 100_001),
    "sealing-behind": ("not_sealed.records", 1_000_001),
    "disk": ("disk_free_bytes", 500_000_000),
    "disk-soon": ("disk_free_bytes", 5_000_000_000),
    "key-not-pinned": ("key", "unpinned"),
    "not-compared": ("signed.state", "none"),
    "not-cosigned": ("anchored.cosigned", {"records_behind": 1, "seconds_ago": 301.0}),
    "witness-failing": ("anchored.witnesses", [{"error": ""}, {"error": "cannot be reached"}]),
    "anchors-unreadable": ("anchored.error", "line 2 is no witness"),
    "time-stamp-old": ("anchored.time_stamped.seconds_ago", 20_000.0),
    "quarantine": ("quarantined", 1_001),
}
RULES: Final = {rule["name"]: rule for rule in json.loads((SAMPLES / "alerts.json").read_text())}
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="NO ALERT IS TESTED: there is no jq in PATH")


def alerts(status: str) -> tuple[int, list[str]]:
    ran = subprocess.run(
        ["sh", str(SAMPLES / "alerts.sh")], input=status, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert not ran.stderr
    return ran.returncode, re.findall(r"^\w+ ([\w-]+):", ran.stdout, re.MULTILINE)


@needs_jq
@pytest.mark.parametrize("name", RULES)
def test_each_alert_rings_when_it_should_and_only_then(name: str) -> None:
    place, value = ILL[name]
    ill = json.loads(json.dumps(WELL))
    *way, last = place.split(".")
    member = ill
    for step in way:
        member = member[step]
    member[last] = value
    code, rung = alerts(json.dumps(ill))
    assert name in rung
    assert code == (2 if any(RULES[one]["severity"] == "page" for one in rung) else 1)
    assert alerts(json.dumps(WELL)) == (0, [])


@needs_jq
def test_the_alerts_speak_of_what_status_says(tmp_path: Path) -> None:
    home = tmp_path / "store"
    assert run_trail("init", "--store", home, "--origin", "example.com/alerts").code == 0
    status = run_trail("status", "--json", "--store", home).json
    for place in ("signed.state", "writer", "checkpoint_written", *(place for place, _value in ILL.values())):
        member: Any = status
        for step in place.split("."):
            if member is None:  # an empty store has no such thing yet
                break
            assert step in member, place
            member = member[step]
    assert "no-writer" in alerts(json.dumps(status))[1]
    assert alerts("") == (3, ["status"])
