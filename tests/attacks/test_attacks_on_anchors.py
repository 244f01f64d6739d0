"""Attacks on what others said about a store: time stamps and cosignatures, over a real store and through `verify`.

A time stamp proves *no later than*, never *the only version*: a true one anchors nothing, and a false one fails the store. One of an
authority that the verifier does not know is neither.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attacks import flip, named, require_failed
from outside import Witness
from stores import Home, request, seal, send
from tsa import DAY, Authority, make_authority, needs_openssl, refused, tst_info

from ledger.anchors import append_cosigned, write_cosigned, write_timestamp
from ledger.checkpoint import open_checkpoint
from ledger.fsck_report import Report
from ledger.layout import Layout
from ledger.note import parse_note
from ledger.policy import Policy
from ledger.timestamps import request as stamp_request
from ledger.trust import LogKeys, Trust
from ledger.witness_files import policy_line

URL = "http://tsa.example/tsr"
NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "tsa")


def believed(home: Home, authority: Authority) -> Report:
    """The verdict of somebody who believes the log's key and this authority."""
    return home.verify(trust=Trust(LogKeys.of(home.vkey), None, authority.roots))


def made_at(authority: Authority, note: bytes, time: datetime, **changes: object) -> bytes:
    """A token over a note with this time in it, truly signed by a certificate of the authority's root."""
    info = tst_info(hashlib.sha256(note).digest(), time.strftime("%Y%m%d%H%M%SZ"))
    return authority.certified(**changes).forge(info)


def put(home: Home, token: bytes, note: bytes | None = None) -> str:
    """Lay a token beside a checkpoint, as a server does; the name of the two files without their endings."""
    return write_timestamp(Layout(home.store), home.checkpoint if note is None else note, token, url=URL)


@needs_openssl
def test_a_true_token_is_listed_and_anchors_nothing(home: Home, authority: Authority) -> None:
    name = put(home, authority.stamp(stamp_request(home.checkpoint)[0]))
    report = believed(home, authority)
    (stamp,) = report.as_json()["anchoring"]["timestamps"]
    assert (stamp["size"], stamp["where"]) == (21, name)
    assert (report.verdict, report.as_json()["anchoring"]["verdict"]) == ("verified", "unanchored")


@needs_openssl
def test_23_a_token_for_another_digest(home: Home, authority: Authority) -> None:
    for number, other in enumerate((home.checkpoint + b"\n", home.checkpoint.replace(b"21", b"20"), b"\0")):
        place = home.copy(home.base.with_name(f"other-{number}"))
        name = put(place, authority.stamp(stamp_request(other)[0]))
        report = believed(place, authority)
        assert report.as_json()["anchoring"]["verdict"] == "failed"
        require_anchor_failed(report, what="time stamp", file=name, index=21)
        assert report.integrity == "verified", "the records are what they were: three verdicts"


def require_anchor_failed(report: Report, *, what: str, file: str, index: int | None) -> None:
    assert report.verdict == "failed"
    failures = report.as_json()["anchoring"]["failures"]
    assert [(f["what"], f["file"], f["index"]) for f in failures] == [(what, file, index)], failures


@needs_openssl
def test_23_a_certificate_that_has_expired_and_was_valid_then(home: Home, authority: Authority) -> None:
    """Judged at the token's time, not at today's."""
    put(home, made_at(authority, home.checkpoint, NOW - 30 * DAY, start=NOW - 60 * DAY, end=NOW - DAY))
    report = believed(home, authority)
    assert report.verdict == "verified", report.as_json()["anchoring"]
    (stamp,) = report.as_json()["anchoring"]["timestamps"]
    assert stamp["time"].startswith(f"{NOW - 30 * DAY:%Y-%m-%d}")


@needs_openssl
@pytest.mark.parametrize(
    ("made", "start", "end"),
    [(NOW - DAY, NOW - 60 * DAY, NOW - 30 * DAY), (NOW - 60 * DAY, NOW - 30 * DAY, NOW + 30 * DAY)],
    ids=["after it had expired", "before it began"],
)
def test_23_a_token_made_outside_the_time_of_its_certificate(
    home: Home, authority: Authority, made: datetime, start: datetime, end: datetime
) -> None:
    name = put(home, made_at(authority, home.checkpoint, made, start=start, end=end))
    report = believed(home, authority)
    require_anchor_failed(report, what="time stamp", file=name, index=21)


@needs_openssl
def test_23_a_token_of_an_authority_that_nobody_named(home: Home, authority: Authority, tmp_path: Path) -> None:
    stranger = make_authority(tmp_path / "stranger", authority.root.certificate.subject.rfc4514_string())
    put(home, stranger.stamp(stamp_request(home.checkpoint)[0]))
    # To whoever does not know the authority it says nothing, true or false, whether other roots are named or none; and that is said.
    for report in (believed(home, authority), home.verify()):
        anchoring = report.as_json()["anchoring"]
        assert (report.verdict, anchoring["verdict"], anchoring["timestamps"], anchoring["failures"]) == ("verified", "unanchored", [], [])
        assert any(text.startswith("1 time stamps") for text in anchoring["not_checked"])


@needs_openssl
def test_23_a_certificate_that_is_not_for_time_stamps(home: Home, authority: Authority) -> None:
    name = put(home, made_at(authority, home.checkpoint, NOW - DAY, usage=None))
    require_anchor_failed(believed(home, authority), what="time stamp", file=name, index=21)


def test_23_a_refusal_passed_off_as_a_token(home: Home, authority: Authority) -> None:
    name = put(home, refused())
    require_anchor_failed(believed(home, authority), what="time stamp", file=name, index=21)


@needs_openssl
def test_23_a_changed_byte_of_a_token(home: Home, authority: Authority) -> None:
    name = put(home, authority.stamp(stamp_request(home.checkpoint)[0]))
    path = home.store / f"{name}.tsr"
    data = path.read_bytes()
    # The copy of the root that a token brings along is not signed, and not believed: the verifier has its own.
    root = data.index(authority.root.der)
    accepted = []
    for offset in range(0, len(data), 131):
        if not root <= offset < root + len(authority.root.der):
            flip(path, offset)
            accepted += [offset] if believed(home, authority).verdict != "failed" else []
            path.write_bytes(data)
    assert accepted == []
    flip(path, root + 100)
    (stamp,) = believed(home, authority).as_json()["anchoring"]["timestamps"]
    assert stamp["authority"] == authority.signer.certificate.subject.rfc4514_string()
    path.write_bytes(data[:-1])
    require_anchor_failed(believed(home, authority), what="time stamp", file=name, index=21)


@needs_openssl
def test_23_a_true_token_over_a_checkpoint_of_another_history(home: Home, authority: Authority, tmp_path: Path) -> None:
    fork = home.copy(tmp_path / "fork")
    with fork.writing() as writer:
        send(writer, request(81))
        seal(writer)
    with home.writing() as writer:
        send(writer, request(82, count=20))
    name = put(home, authority.stamp(stamp_request(fork.checkpoint)[0]), fork.checkpoint)
    report = believed(home, authority)
    require_failed(report, what="fork", file=name)
    assert report.forks, "both notes are kept: a proof against whoever signed both"


# ------------------------------------------------------------------------------------------------------------- cosignatures


def cosigned(home: Home, *witnesses: Witness) -> bytes:
    """The store's checkpoint with the cosignature lines of these, one behind the other."""
    lines = []
    for witness in witnesses:
        if witness.latest is None:
            assert witness.see(home).status == 200
        note = witness.latest
        assert note is not None
        lines += [line.line() for line in parse_note(note)[1] if line.name == witness.verifier.name]
    return home.checkpoint + "".join(lines).encode()


def both(home: Home, tmp_path: Path) -> tuple[Witness, Witness, Trust]:
    """Two witnesses, and a verifier who wants both."""
    first, second = (Witness.make(home, tmp_path / name, name=f"{name}.example/w") for name in ("first", "second"))
    lines = [
        policy_line(first.verifier),
        policy_line(second.verifier),
        "group both all first.example/w second.example/w",
        "quorum both",
        "",
    ]
    return first, second, Trust(LogKeys.of(home.vkey), Policy.parse("\n".join(lines)))


def test_17_a_cosignature_twice_is_no_quorum_of_two(home: Home, tmp_path: Path) -> None:
    first, second, trust = both(home, tmp_path)
    for note, verdict in (
        (cosigned(home, first, second), "anchored"),
        (cosigned(home, first), "unanchored"),
        (cosigned(home, first, first), "unanchored"),
    ):
        write_cosigned(Layout(home.store), note)
        report = home.verify(trust=trust)
        assert (report.verdict, report.as_json()["anchoring"]["verdict"]) == ("verified", verdict)


def test_17_a_witness_of_the_same_name_and_another_key_counts_for_nothing(home: Home, tmp_path: Path) -> None:
    first, second, trust = both(home, tmp_path)
    false = Witness.make(home, tmp_path / "false", name=second.verifier.name)
    write_cosigned(Layout(home.store), cosigned(home, first, false))
    assert home.verify(trust=trust).as_json()["anchoring"]["verdict"] == "unanchored"


def test_17_a_wrong_cosignature_of_a_known_witness_fails(home: Home, tmp_path: Path) -> None:
    first, second, trust = both(home, tmp_path)
    good = cosigned(home, first, second).decode()
    last = good.rstrip("\n").split(" ")[-1]
    digit = "A" if last[40] != "A" else "B"
    write_cosigned(Layout(home.store), good.replace(last, last[:40] + digit + last[41:]).encode())
    report = home.verify(trust=trust)
    assert report.verdict == "failed"
    assert {failure["file"] for failure in report.as_json()["anchoring"]["failures"]} == {"checkpoints/cosigned"}


def test_10_a_cosigned_fork_in_the_store_is_a_proof_against_the_log(home: Home, tmp_path: Path) -> None:
    """The holder of the key shows another history to a witness, which has seen no other: its cosignature is right, and tells on the log."""
    witness = Witness.make(home, tmp_path / "witness")
    fork = home.copy(tmp_path / "fork")
    with fork.writing() as writer:
        send(writer, request(81))
    with home.writing() as writer:
        send(writer, request(82, count=20))
    assert witness.see(fork).status == 200
    note, trust = witness.latest, witness.trust(home)
    assert note is not None
    assert trust.policy is not None
    assert [found.witness.name for found in trust.policy.cosignatures(note)] == [witness.verifier.name]
    size = open_checkpoint(note, home.verifier).size
    assert home.verify(trust=trust).verdict == "verified"
    append_cosigned(Layout(home.store), note, published=1_790_000_000_000_000_000)
    report = home.verify(trust=trust)
    require_failed(report, what="fork", index=size)
    assert any(file is not None and file.endswith(".cosigned.jsonl") for _what, file, _index in named(report))
    assert [found.kept for found in report.forks] == [note], "with the witness's line: it proves more than the log's own word"
    assert report.as_json()["anchoring"]["verdict"] != "anchored"
