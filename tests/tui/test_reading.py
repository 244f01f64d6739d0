"""Asking a store: the card, runs, timeline, records, SQL, proofs; text for a person, JSON for a program."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from trail_process import Ran, Recorded, run_trail

from ledger.checkpoint import open_checkpoint
from ledger.note import Verifier
from ledger.proof import Proof, verify_proof
from tui.exits import Exit

Call = Callable[..., Ran]
SIX = ("what", "who", "policy", "saw", "undo", "intact")


def test_the_card_answers_all_six(trail: Call, recorded: Recorded) -> None:
    ran = trail("ask", "config/refunds.yaml", "--store", recorded.store, "--json")
    assert ran.code == Exit.OK
    assert ran.err == ""
    card = ran.json["cards"][0]
    assert {name: card[name]["status"] for name in SIX} == dict.fromkeys(SIX, "answered")
    assert card["who"]["approver"] == "rafael@example.com"
    assert card["policy"]["id"] == "refund-limits"
    assert card["policy"]["version"] == "2"
    assert card["intact"]["verdict"] == "verified"
    assert ran.json["range"]["size"] > 193
    assert "cards" in ran.json
    text = trail("ask", "refunds.yaml", "--store", recorded.store).out
    assert all(name.upper() in text for name in SIX)
    assert "max_amount_usd: 250" in text


def test_no_match_is_an_answer(trail: Call, recorded: Recorded) -> None:
    ran = trail("ask", "no/such/thing", "--store", recorded.store, "--json")
    assert (ran.code, ran.json["cards"]) == (Exit.OK, [])
    assert "no action" in ran.err
    text = trail("ask", "no/such/thing", "--store", recorded.store)
    assert (text.code, text.out) == (Exit.OK, "")
    before = trail("ask", "config/refunds.yaml", "--until", "2020-01-01", "--store", recorded.store)
    assert "after at" in before.err
    assert "(UTC)" in before.err


@pytest.mark.parametrize(
    "filters", [["--agent", "support-agent"], ["--approver", "rafael@example.com"], ["--policy", "refund-limits"], ["--sender", "loopback"]]
)
def test_filters_narrow(trail: Call, recorded: Recorded, filters: list[str]) -> None:
    ran = trail("ask", "config/refunds.yaml", *filters, "--store", recorded.store, "--json")
    assert ran.json["cards"]
    other = [filters[0], "nobody"]
    assert trail("ask", "config/refunds.yaml", *other, "--store", recorded.store, "--json").json["cards"] == []


def test_runs_and_timeline(trail: Call, recorded: Recorded) -> None:
    runs = trail("runs", "--store", recorded.store, "--json").json
    assert len(runs) == 20
    assert runs[0]["last_seen"] == max(run["last_seen"] for run in runs)
    text = trail("runs", "--limit", 3, "--store", recorded.store)
    assert len(text.out.splitlines()) == 4
    assert "--limit" in text.err
    run = runs[0]["run_id"]
    rows = trail("timeline", "--run", run, "--store", recorded.store, "--json").json
    assert {row["run_id"] for row in rows} == {run}
    table = trail("timeline", "--run", run, "--store", recorded.store).out.splitlines()
    assert len(table) == len(rows) + 1
    assert trail("runs", "--agent", "nobody", "--store", recorded.store).err.startswith("no run")


def test_show_gives_the_very_bytes_and_the_contents(trail: Call, recorded: Recorded) -> None:
    (row,) = trail("timeline", "--resource", "config/refunds.yaml", "--since", "2h", "--store", recorded.store, "--json").json[-1:]
    shown = trail("show", row["index"], "--store", recorded.store, "--json").json
    assert shown["record"]["facts"]["resource"] == "config/refunds.yaml"
    diff = next(content for content in shown["contents"] if "trail.change.diff" in content["field"])
    assert diff["state"] == "matching"
    assert "+    max_amount_usd: 250" in diff["text"]
    assert "trail.change.diff" in trail("show", row["index"], "--store", recorded.store).out
    raw = trail("show", row["index"], "--raw", "--store", recorded.store).out.encode()
    leaf = trail("prove", row["index"], "--store", recorded.store, "--json").json["leaf"]
    assert hashlib.sha256(b"\0" + raw).hexdigest() == leaf


def test_show_of_a_record_that_is_not_there(trail: Call, recorded: Recorded) -> None:
    ran = trail("show", 999_999, "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "there is no record 999999" in ran.err


def test_a_proof_convinces_a_stranger(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "7.tlog-proof"
    assert trail("prove", 7, "-o", path, "--store", recorded.store).code == Exit.OK
    assert trail("prove", 7, "--store", recorded.store).out.encode() == path.read_bytes()
    record = trail("show", 7, "--raw", "--store", recorded.store).out.encode()
    checkpoint = verify_proof(Proof.parse(path.read_bytes()), record, Verifier.parse(recorded.vkey))
    assert checkpoint.size == trail("info", "--store", recorded.store, "--json").json["size"]
    beyond = trail("prove", checkpoint.size, "--store", recorded.store)
    assert (beyond.code, beyond.out) == (Exit.UNVERIFIABLE, "")


def test_a_checkpoint_is_the_signed_note(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    note = trail("checkpoint", "--store", recorded.store).out.encode()
    assert note == (recorded.store / "checkpoint").read_bytes()
    assert open_checkpoint(note, Verifier.parse(recorded.vkey)).origin == recorded.origin
    assert trail("checkpoint", "-o", tmp_path / "kept", "--store", recorded.store).out == ""
    assert (tmp_path / "kept").read_bytes() == note
    assert trail("checkpoint", "--store", recorded.store, "--json").json["note"].encode() == note


def test_sql_counts_exactly_what_was_sent(recorded: Recorded) -> None:
    query = "SELECT kind, count(*) AS n FROM records WHERE kind IN ('span', 'log') GROUP BY kind ORDER BY kind"
    ran = run_trail("sql", query, "--store", recorded.store, "--json")
    assert (ran.code, ran.json) == (Exit.OK, [{"kind": "log", "n": 65}, {"kind": "span", "n": 128}])
    table = run_trail("sql", query, "--store", recorded.store).out.splitlines()
    assert table[1:] == ["log    65", "span  128"]
    rows = list(csv.reader(io.StringIO(run_trail("sql", query, "--store", recorded.store, "--csv").out)))
    assert rows == [["kind", "n"], ["log", "65"], ["span", "128"]]
    cut = run_trail("sql", "SELECT index FROM records ORDER BY index", "--limit", 3, "--store", recorded.store, "--json")
    assert [row["index"] for row in cut.json] == [0, 1, 2]
    assert "first 3 rows" in cut.err


@pytest.mark.parametrize(
    "query",
    [
        "DROP VIEW records",
        "COPY (SELECT 1) TO 'x.csv'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('trail.toml')",
        "SELEC 1",
        "SELECT nope FROM records",
    ],
)
def test_sql_takes_one_select_and_nothing_else(recorded: Recorded, query: str, tmp_path: Path) -> None:
    ran = run_trail("sql", query, "--store", recorded.store, "--json", cwd=tmp_path)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "Traceback" not in ran.err
    assert not (tmp_path / "x.csv").exists()


def test_sql_stops_in_time(recorded: Recorded) -> None:
    ran = run_trail("sql", "SELECT count(*) FROM range(100000000000) a, range(1000000) b", "--seconds", "0.5", "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "0.5 s" in ran.err


def test_status_and_info(trail: Call, recorded: Recorded) -> None:
    status = trail("status", "--store", recorded.store, "--json").json
    assert status["origin"] == recorded.origin
    assert status["signed"]["state"] == "kept"
    assert status["signed"]["size"] == status["size"]
    assert status["server"] is None
    assert status["segments"] >= 1
    info = trail("info", "--store", recorded.store, "--json").json
    assert (info["origin"], info["vkey"], info["size"]) == (recorded.origin, recorded.vkey, status["size"])
    assert info["root"] == status["root"]
    assert recorded.origin in trail("status", "--store", recorded.store).out
    assert recorded.vkey in trail("info", "--store", recorded.store).out


def test_doctor(trail: Call, recorded: Recorded) -> None:
    ran = trail("doctor", "--store", recorded.store, "--json")
    found = {finding["check"]: finding["state"] for finding in ran.json}
    assert ran.code == Exit.OK
    assert {"store", "key", "pin", "last signed", "reading", "clock", "filesystem", "disk", "fsync", "server", "versions"} <= set(found)
    assert "fail" not in found.values()
    recorded.key.chmod(0o644)
    warned = trail("doctor", "--store", recorded.store).out
    assert f"chmod 600 {recorded.key}" in warned


def test_looking_changes_nothing_in_the_store(trail: Call, recorded: Recorded) -> None:
    def shape() -> dict[str, tuple[int, int]]:
        return {
            str(path.relative_to(recorded.store)): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in recorded.store.rglob("*")
            if path.is_file()
        }

    before = shape()
    for args in (["ask", "x"], ["runs"], ["timeline"], ["show", 3], ["prove", 3], ["checkpoint"], ["status"], ["info"], ["verify"]):
        assert trail(*args, "--store", recorded.store).code == Exit.OK
    assert shape() == before


def test_a_path_is_printed_as_it_is_given(trail: Call, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recorded.store.parent)
    assert trail("status", "--store", recorded.store.name, "--json").json["store"] == recorded.store.name
    assert os.path.isabs(trail("info", "--store", recorded.store.name, "--json").json["paths"]["store"])  # noqa: PTH117 - a text


def test_a_receipt_becomes_proofs(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    batch = run_trail("sql", "SELECT min(index) AS n FROM records WHERE kind = 'batch'", "--store", recorded.store, "--json").json[0]["n"]
    body = json.loads(trail("show", batch, "--store", recorded.store, "--raw").out)["batch"]
    place = tmp_path / "proofs"
    ran = trail("prove", "--receipt", f"{body['start']}-{body['end']}", "-o", place, "--store", recorded.store)
    assert ran.code == Exit.OK, ran
    assert {path.name for path in place.iterdir()} == {
        f"{index}.{ending}" for index in range(body["start"], body["end"]) for ending in ("tlog-proof", "json")
    }
    for index in range(body["start"], body["end"]):
        checked = ["verify", "--proof", place / f"{index}.tlog-proof", "--record", place / f"{index}.json", "--key", recorded.vkey]
        assert trail(*checked).code == Exit.OK
    for wrong in (
        ["--receipt", "5-5", "-o", place],
        ["--receipt", "5-6"],
        ["3", "--receipt", "5-6", "-o", place],
        [],
        ["--receipt", "x-y"],
    ):
        assert trail("prove", *wrong, "--store", recorded.store).code == Exit.USAGE
    assert trail("prove", "--receipt", "100000-100002", "-o", tmp_path / "none", "--store", recorded.store).code == Exit.UNVERIFIABLE
    assert not (tmp_path / "none").exists()
