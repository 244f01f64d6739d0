"""`verify` beside damage: good stores in every state, lying writers, hostile journals, checkpoints from elsewhere, completeness."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import ORIGIN, SECRET, Home, Request, kill, new_home, request, seal, send, settle, small_store

from ledger import columns, fsck
from ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.contents import ContentRows
from ledger.fsck_columns import ColumnChecker
from ledger.journal import encode_part
from ledger.keys import KeyFile
from ledger.merkle import leaf_hashes
from ledger.record import canonical, content_mark
from ledger.sequences import Sequences

BASE = {"v": 1, "kind": "span", "received": "5", "sender": "loopback", "vocabulary": "otel-genai/1"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", segment_records=1000)


# ---- good stores


def test_an_empty_store_is_unverifiable(home: Home) -> None:
    report = home.verify()
    assert (report.verdict, report.as_json()["integrity"]["not_checked"]) == (
        "unverifiable",
        ["there is no checkpoint: nothing was compared"],
    )


def test_unsealed_sealed_and_merged_stores_are_verified(home: Home, tmp_path: Path) -> None:
    writer = home.open()
    send(writer, request(1))
    settle(writer)
    kill(writer)
    assert (home.verify().verdict, home.verify().segments) == ("verified", 0)
    with home.writing() as writer:
        seal(writer)
    assert (home.verify().verdict, home.verify().segments) == ("verified", 2)
    merged = small_store(tmp_path / "merged", merged=True)
    report = merged.verify()
    assert (report.verdict, report.segments, report.contents.matching) == ("verified", 2, 16)


def test_a_store_is_verified_while_it_is_written(home: Home) -> None:
    with home.writing() as writer:
        for seed in range(10):
            send(writer, request(seed))
            if seed % 4 == 3:
                writer.log.rotate()
            report = home.verify()
            assert report.verdict in ("verified", "unverifiable"), report.as_json()
    assert home.verify().verdict == "verified"


def test_large_stores_are_checked_by_several_processes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with home.writing() as writer:
        for seed in range(3):
            send(writer, request(seed, count=300))
            seal(writer)
    monkeypatch.setattr(fsck, "SMALL_STORE", 1)
    monkeypatch.setattr(fsck, "PIECE_RECORDS", 256)
    progress: list[tuple[int, int]] = []
    report = home.verify(processes=2, progress=lambda done, size: progress.append((done, size)))
    alone = home.verify()
    assert report.verdict == "verified", report.as_json()
    assert report.as_json() == alone.as_json()
    assert progress[-1] == (report.size, report.size)
    path = home.files("records/0-*.parquet")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert home.verify(processes=2).verdict == "failed"


def _die(*_arguments: object) -> None:
    os.kill(os.getpid(), 9)


def test_a_file_that_kills_its_reader_is_not_called_good(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # No file is known that does; the fault is put where one would do it.
    with home.writing() as writer:
        for seed in range(2):
            send(writer, request(seed))
            seal(writer)
    monkeypatch.setattr(fsck, "SMALL_STORE", 1)
    monkeypatch.setattr(fsck, "check_segment", _die)
    report = home.verify(processes=2)
    assert report.verdict == "unverifiable"
    assert any("the process that checked it died" in line for line in report.not_checked)


# ---- checkpoints from elsewhere


def test_the_store_extends_every_older_checkpoint(home: Home) -> None:
    kept = []
    for seed in range(3):
        with home.writing() as writer:
            send(writer, request(seed))
        kept.append(home.checkpoint)
    assert home.verify(against=kept).verdict == "verified"


def test_a_newer_checkpoint_means_that_records_are_missing(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1))
    key = KeyFile.load(home.key, origin=ORIGIN)
    newer = sign_checkpoint(Checkpoint(ORIGIN, 1000, b"\1" * 32), key.signer)
    report = home.verify(against=[newer])
    assert (report.verdict, report.integrity) == ("failed", "verified")
    assert report.rollback[0].why == f"{1000 - report.size} records are missing: it covers 1000, the store has {report.size}"


def test_a_checkpoint_that_cannot_be_read_is_named_as_not_checked(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1))
    report = home.verify(against=[b"no note"])
    assert report.verdict == "unverifiable"
    assert "cannot be read" in report.as_json()["integrity"]["not_checked"][0]


def test_a_checkpoint_of_another_log_is_no_evidence_for_this_one(home: Home, tmp_path: Path) -> None:
    other = new_home(tmp_path / "other")
    for side in (home, other):
        with side.writing() as writer:
            send(writer, request(1))
    report = home.verify(against=[other.checkpoint])
    assert report.verdict == "failed"
    assert report.rollback[0].what == "against"


def test_without_a_key_kept_checkpoints_are_not_compared(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1))
    report = home.verify(verifier=None, against=[home.checkpoint])
    assert report.as_json()["integrity"]["not_checked"] == [
        "the checkpoint given with --against: no key is pinned",
        "the last checkpoint this machine signed: no key is pinned",
    ]


def test_a_head_that_was_signed_and_not_published_is_no_rollback(home: Home) -> None:
    writer = home.open()
    send(writer, request(1))
    settle(writer)
    older, history = home.checkpoint, home.files("checkpoints/*")
    send(writer, request(2))
    settle(writer)
    kill(writer)
    for path in history:
        path.unlink()
    (home.store / "checkpoint").write_bytes(older)  # as a crash between the two leaves it
    report = home.verify()
    assert report.verdict == "verified"
    assert report.size == open_checkpoint(home.state.read() or b"", home.verifier).size
    assert report.not_judged[0].startswith("checkpoint: covers")


def test_that_head_must_still_contain_the_published_one(home: Home, tmp_path: Path) -> None:
    fork = home.copy(tmp_path / "fork")
    for side, seed in ((home, 1), (fork, 2)):
        writer = side.open()
        send(writer, request(seed, count=2 + seed))
        settle(writer)
        kill(writer)
    (fork.store / "checkpoint").write_bytes(home.checkpoint)
    for path in fork.files("checkpoints/*"):
        path.unlink()
    report = fork.verify()
    assert report.verdict == "failed"
    assert {failure.what for failure in report.rollback} == {"fork"}


# ---- a writer that lies: it has the key, so leaves and seals are right, and the columns or contents are not


def _lying(record: dict[str, Any], *, tops: dict[str, Any] | None = None, facts: dict[str, Any] | None = None) -> Request:
    """A request of one record whose columns say something else."""
    asked = request(1, count=1, contents=False)
    data = canonical(BASE | {"facts": {"name": "a", "time": "7"}} | record)
    batch = columns.project([data], tops if tops is not None else BASE, [facts if facts is not None else {"name": "a", "time": "7"}])
    return Request([data], [encode_part(batch, None)], leaf_hashes([data]), asked.note)


LIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("kind", {"tops": BASE | {"kind": "note"}}, {}),
    ("sender", {"tops": BASE | {"sender": "somebody"}}, {}),
    ("role", {"tops": BASE | {"role": "approver"}}, {}),
    ("received", {"tops": BASE | {"received": "6"}}, {}),
    ("name", {"facts": {"name": "b", "time": "7"}}, {}),
    ("time", {"facts": {"name": "a", "time": "8"}}, {}),
    ("time, name", {"facts": {}}, {}),
    ("outcome", {"facts": {"name": "a", "time": "7", "outcome": "ok"}}, {}),
    ("input_tokens", {"facts": {"name": "a", "time": "7", "input_tokens": 1}}, {"facts": {"name": "a", "time": "7", "input_tokens": 2}}),
    ("score", {"facts": {"name": "a", "time": "7", "score": 0.5}}, {"facts": {"name": "a", "time": "7", "score": 0.25}}),
    (
        "contexts",
        {"facts": {"name": "a", "time": "7", "contexts": [{"source": "kb", "id": "1"}]}},
        {"facts": {"name": "a", "time": "7", "contexts": [{"source": "kb", "id": "2"}]}},
    ),
]


@pytest.mark.parametrize("sealed", [False, True], ids=["journal", "sealed"])
@pytest.mark.parametrize(("names", "said", "record"), LIES, ids=[names for names, _said, _record in LIES])
def test_a_column_that_is_not_what_the_record_says(
    home: Home, names: str, said: dict[str, Any], record: dict[str, Any], sealed: bool
) -> None:
    writer = home.open()
    receipt = send(writer, _lying(record, **said))
    if sealed:
        seal(writer)
    settle(writer)
    kill(writer)
    report = home.verify()
    assert [(failure.what, failure.index) for failure in report.failures] == [("column", receipt.start)]
    assert report.failures[0].why == f"record {receipt.start}: the column {names} is not what the record says"
    assert report.failures[0].file is not None
    assert report.failures[0].file.startswith("records/" if sealed else "journal/")


def _with_rows(rows: list[tuple[int, tuple[Any, ...]]], marks: list[Any]) -> Request:
    asked = request(1, count=1, contents=False)
    data = canonical(BASE | {"facts": {}, "span": {"attributes": marks}})
    content = ContentRows.empty()
    for ordinal, row in rows:
        content.add(0, ordinal, row)  # type: ignore[arg-type]
    part = encode_part(columns.project([data], BASE, [{}]), content.to_batch())
    return Request([data], [part], leaf_hashes([data]), asked.note)


SALT = b"\7" * 16
MARK = content_mark(salt=SALT, value=b"value", type="s")
GOOD = ("a", "s", SALT, b"value", None, None)


@pytest.mark.parametrize(
    ("rows", "marks", "why"),
    [
        ([(0, GOOD)], [], "which has none"),
        ([], [["a", MARK]], "is missing (5 bytes"),
        ([(0, ("a", "s", SALT, None, None, None))], [["a", MARK]], "is missing (5 bytes"),
        ([(0, ("a", "s", SALT, b"valuf", None, None))], [["a", MARK]], "is not what the record commits to"),
        ([(0, ("a", "s", b"\0" * 16, b"value", None, None))], [["a", MARK]], "is not what the record commits to"),
        ([(0, ("a", "s", SALT, None, "other", None))], [["a", MARK]], "is not what the record commits to"),
        ([(1, GOOD)], [["a", MARK]], "has no content number 1"),
        ([(-1, GOOD)], [["a", MARK]], "has no content number -1"),
        ([(0, GOOD), (0, GOOD)], [["a", MARK]], "has no content number 0"),
        ([(0, GOOD), (1, ("b", "s", SALT, b"value", None, None))], [["a", MARK], ["b", content_mark(salt=SALT, value=b"vALUE", type="s")]],
         "the content b of record"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sealed", [False, True], ids=["journal", "sealed"])
def test_contents_that_are_not_what_the_record_commits_to(home: Home, rows: Any, marks: Any, why: str, sealed: bool) -> None:
    writer = home.open()
    receipt = send(writer, _with_rows(rows, marks))
    if sealed:
        seal(writer)
    settle(writer)
    kill(writer)
    report = home.verify()
    assert report.verdict == "failed"
    assert {(failure.what, failure.index) for failure in report.failures} == {("content", receipt.start)}
    assert any(why in failure.why for failure in report.failures), report.failures


def test_a_value_of_another_length_that_shifts_bytes_into_the_salt_is_refused(home: Home) -> None:
    # Without a fixed salt length, salt "…x" with value "y" would have the commitment of salt "…" with value "xy".
    with home.writing() as writer:
        shifted = content_mark(salt=SALT, value=b"value", type="s")
        shifted["$content"]["bytes"] = 4
        receipt = send(writer, _with_rows([(0, GOOD)], [["a", shifted]]))
    assert {(failure.what, failure.index) for failure in home.verify().failures} == {("content", receipt.start)}


# ---- honest stores must never fail: facts of any text and number

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
INTEGERS = st.integers(min_value=-columns.MAX_SAFE_INTEGER, max_value=columns.MAX_SAFE_INTEGER)
REALS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.integers(min_value=0, max_value=2**63 - 1).map(str)
CONTEXT = st.fixed_dictionaries({"source": TEXTS, "id": TEXTS})


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if kind == columns.CONTEXTS:
        return st.lists(CONTEXT, max_size=3)
    return {columns.TEXT: TEXTS, columns.COUNT: INTEGERS, columns.REAL: REALS, columns.TIME: TIMES}[kind]


FACTS = st.fixed_dictionaries({}, optional={name: _values(kind) for name, kind in columns.FACTS.items()})


@pytest.fixture(scope="module")
def checker() -> ColumnChecker:
    return ColumnChecker()


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(facts=st.lists(FACTS, min_size=1, max_size=8), sender=TEXTS, received=TIMES)
def test_columns_of_any_facts_are_derived_again(checker: ColumnChecker, facts: list[dict[str, Any]], sender: str, received: str) -> None:
    tops = {"kind": "span", "received": received, "sender": sender, "vocabulary": None}
    records = [canonical({"v": 1, "kind": "span", "received": received, "sender": sender, "facts": fact}) for fact in facts]
    batch = columns.project(records, tops, facts)
    index = pa.array(range(len(records)), pa.int64())
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays([index, *batch.columns], schema=columns.SCHEMA)])
    assert checker.differences(table) == []


@pytest.mark.parametrize("time", [0, 1, -1, 2**63 - 1, 2**63 - 2, -(2**63) + 1])
def test_times_at_the_ends_of_their_range_are_the_same_in_column_and_record(checker: ColumnChecker, time: int) -> None:
    # The largest is "infinity" to a database: one emitter could otherwise make an honest store fail.
    facts: list[dict[str, Any]] = [{"time": str(time)}]
    records = [canonical(BASE | {"facts": facts[0]})]
    batch = columns.project(records, BASE, facts)
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays([pa.array([0], pa.int64()), *batch.columns], schema=columns.SCHEMA)])
    assert checker.differences(table) == []


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "\x1f\x7f", "\u2028", "🙂", "\ufeff", '"\\/', "NULL", "null", " 1 ", "ﬀ" * 1000])
def test_odd_texts_are_the_same_in_column_and_record(checker: ColumnChecker, text: str) -> None:
    facts: list[dict[str, Any]] = [{"name": text, "contexts": [{"source": text, "id": text}]}]
    records = [canonical(BASE | {"facts": facts[0]})]
    batch = columns.project(records, BASE, facts)
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays([pa.array([0], pa.int64()), *batch.columns], schema=columns.SCHEMA)])
    assert checker.differences(table) == []


# ---- completeness


def _sequenced(seed: int, numbers: list[int], *, service: str = "a", run: str | None = "r") -> Request:
    facts: list[dict[str, Any]] = [{"service": service, "sequence": number} | ({"run_id": run} if run else {}) for number in numbers]
    records = [canonical(BASE | {"facts": fact}) for fact in facts]
    return Request(records, [encode_part(columns.project(records, BASE, facts), None)], leaf_hashes(records), request(seed, count=0).note)


def test_a_gap_in_sequence_numbers_is_a_verdict_of_its_own(home: Home) -> None:
    with home.writing() as writer:
        send(writer, _sequenced(1, [1, 2, 4, 5]))
        send(writer, _sequenced(2, [5, 3]))
        send(writer, request(3))
        assert home.verify().as_json()["completeness"]["verdict"] in ("gap", "no_gap_found", "not_checkable")
        settle(writer)
    value = home.verify().as_json()
    assert (value["verdict"], value["completeness"]) == (
        "verified",
        {"verdict": "no_gap_found", "failures": [], "without_counters": ["support-agent"]},
    )
    with home.writing() as writer:
        send(writer, _sequenced(4, [9], run=None))
        send(writer, _sequenced(5, [8]))
    value = home.verify().as_json()
    assert value["verdict"] == "verified"
    assert value["completeness"]["verdict"] == "gap"
    (failure,) = value["completeness"]["failures"]
    assert failure["why"] == "a run r (sender loopback): nothing between 5 and 8"


def test_without_counters_completeness_is_not_checkable(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1))
    assert home.verify().as_json()["completeness"] == {"verdict": "not_checkable", "failures": [], "without_counters": ["support-agent"]}


def test_sequences_of_pieces_are_merged() -> None:
    one, other = Sequences(), Sequences()
    for sequences, number in ((one, 1), (one, 2), (other, 4)):
        facts = [{"service": "a", "run_id": "r", "sequence": number}]
        batch = columns.project([b"{}"], {"kind": "span", "sender": "s"}, facts)
        sequences.add(pa.Table.from_batches([batch]))
    other.services.add("b")
    one.merge(other)
    assert one.gaps() == [(("s", "a", "r"), 2, 4)]
    assert one.without_counters() == ["b"]


# ---- the report


def test_thousands_of_failures_are_counted_and_not_listed() -> None:
    report = fsck.Report(ORIGIN, key="pinned")
    for index in range(fsck.MAX_FAILURES + 7):
        report.fail(fsck.Failure("record", index, "f", "why"))
    value = report.as_json()["integrity"]
    assert (len(value["failures"]), value["failures_not_listed"], report.verdict) == (fsck.MAX_FAILURES, 7, "failed")


def test_one_bad_file_does_not_fill_the_report(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1, count=500, contents=False, size=16))
        seal(writer)
    for path in home.files("tile/0/**/*"):
        if path.is_file():
            path.write_bytes(os.urandom(path.stat().st_size))
    report = home.verify()
    assert report.verdict == "failed"
    assert len(report.failures) < 200


def test_the_secret_of_the_store_is_not_needed(home: Home) -> None:
    assert len(SECRET) == 32
    home.key.with_name("log.key.secret").unlink()
    home.key.unlink()
    assert home.verify().verdict == "unverifiable"
