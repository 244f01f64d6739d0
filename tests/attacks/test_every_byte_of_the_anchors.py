"""Every byte of what others said about a store: a changed one fails, or takes the anchor away, or is one of those that say nothing.

The same for the files that hold records, contents, tiles and seals is in `tests/ledger/test_damage_anywhere.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attacks import flip
from outside import Witness
from stores import Home, new_home, request, seal, send
from tsa import make_authority, needs_openssl

from ledger.anchors import append_cosigned, write_cosigned, write_timestamp
from ledger.fsck_report import Report
from ledger.layout import Layout
from ledger.timestamps import request as stamp_request
from ledger.trust import Trust

pytestmark = needs_openssl
PUBLISHED = 1_790_000_000_000_000_000
DAY = "checkpoints/2026-09-21.cosigned.jsonl"


@dataclass(frozen=True)
class Anchored:
    """A store with one anchor of each kind, and somebody who believes the witness and the authority."""

    home: Home
    trust: Trust
    silent: dict[str, list[range]]
    """Of each file, the bytes that say nothing to a verifier."""

    def copy(self, base: Path) -> Anchored:
        return Anchored(self.home.copy(base), self.trust, self.silent)

    def verify(self) -> Report:
        return self.home.verify(trust=self.trust, last_signed=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Anchored:
    base = tmp_path_factory.mktemp("anchored")
    home = new_home(base / "home", segment_records=1000)
    witness, authority = Witness.make(home, base / "witness"), make_authority(base / "tsa")
    layout = Layout(home.store)
    notes = []
    for seed in range(2):
        with home.writing() as writer:
            send(writer, request(seed, count=2))
            seal(writer)
        assert witness.see(home).status == 200
        notes.append(witness.latest)
        append_cosigned(layout, notes[-1], published=PUBLISHED)
    write_cosigned(layout, notes[-1])
    name = write_timestamp(layout, notes[-1], authority.stamp(stamp_request(notes[-1])[0]), url="http://tsa.example")
    (home.store / "tlog-policy").write_text(witness.policy_text)
    trust = Trust(witness.trust(home).keys, witness.trust(home).policy, authority.roots)
    data = (home.store / f"{name}.tsr").read_bytes()
    lines = (home.store / DAY).read_bytes()
    published = [range(at + 1, at + 1 + len(b'"published":"%d"' % PUBLISHED)) for at in _all(lines, b',"published"')]
    silent = {
        f"{name}.tsr": _silent_in(data, authority.root.der),
        DAY: published,  # a time that the writer noted, and nobody signed
        "tlog-policy": [range(1_000)],  # whom the server asks; whom to believe, the verifier says
    }
    return Anchored(home, trust, silent)


def _silent_in(token: bytes, root: bytes) -> list[range]:
    """The bytes of a token that nobody signed and that decide nothing: they are in no digest, and what it says is the same without them."""
    copy = token.index(root)  # the verifier has a root of his own
    signer = token.index(b"\x02\x01\x01", copy + len(root)) + 2  # the version of the SignerInfo
    algorithm = token.rindex(bytes.fromhex("06082a8648ce3d040302")) + 2  # the key of the certificate decides which one it is
    version = token.index(b"\x02\x01\x03\x31") + 2  # of the SignedData
    return [range(copy, copy + len(root)), range(signer, signer + 1), range(algorithm, algorithm + 8), range(version, version + 1)]


def _all(data: bytes, part: bytes) -> list[int]:
    found, at = [], data.find(part)
    while at >= 0:
        found.append(at)
        at = data.find(part, at + 1)
    return found


def files(home: Home) -> list[str]:
    """The files that hold anchors."""
    patterns = ("checkpoints/cosigned", "checkpoints/*.cosigned.jsonl", "checkpoints/timestamps/*", "tlog-policy")
    return [path.relative_to(home.store).as_posix() for pattern in patterns for path in home.files(pattern)]


def said(report: Report) -> dict[str, Any]:
    """Everything that the anchors say."""
    return {name: value for name, value in report.as_json()["anchoring"].items() if name != "not_checked"}


def flips(made: Anchored, *, stride: int) -> list[str]:
    """Bytes whose change makes no difference, outside of those that say nothing; and changes that would anchor more than before."""
    before = made.verify()
    assert (before.verdict, before.anchoring.verdict, len(before.anchoring.timestamps)) == ("verified", "anchored", 1)
    wrong = []
    for name in files(made.home):
        path = made.home.store / name
        data = path.read_bytes()
        for offset in range(0, len(data), stride):
            flip(path, offset)
            report = made.verify()
            path.write_bytes(data)
            silent = any(offset in where for where in made.silent.get(name, []))
            if report.verdict == "failed" or (silent and said(report) == said(before)):
                continue
            lost = (report.anchoring.to or 0) <= (before.anchoring.to or 0) and said(report) != said(before)
            if report.integrity != "verified" or not lost:
                wrong.append(f"{name} byte {offset} ({data[max(0, offset - 12) : offset + 12]!r}): {report.verdict}, {said(report)}")
    return wrong


def test_the_anchored_store_has_one_of_each(made: Anchored) -> None:
    assert len(files(made.home)) == 5


def test_some_bytes_of_the_anchors(made: Anchored, tmp_path: Path) -> None:
    assert flips(made.copy(tmp_path / "home"), stride=241) == []


@pytest.mark.slow
def test_every_byte_of_the_anchors(made: Anchored, tmp_path: Path) -> None:
    assert flips(made.copy(tmp_path / "home"), stride=1) == []


@pytest.mark.parametrize("number", range(5))
def test_an_anchor_that_is_gone_is_no_failure(made: Anchored, tmp_path: Path, number: int) -> None:
    """That somebody confirmed it can be forgotten; it can never be invented."""
    one = made.copy(tmp_path / "home")
    (one.home.store / files(one.home)[number]).unlink()
    report = one.verify()
    assert report.verdict == "verified"
    assert (report.anchoring.to or 0) <= (made.verify().anchoring.to or 0)


@pytest.mark.parametrize("number", range(4))
def test_nothing_in_place_of_an_anchor_keeps_verify_waiting(made: Anchored, tmp_path: Path, number: int) -> None:
    one = made.copy(tmp_path / "home")
    path = one.home.store / files(one.home)[number]
    path.unlink()
    path.symlink_to("/dev/zero")
    assert one.verify().integrity == "verified", "the records are what they were"
    path.unlink()
    os.mkfifo(path)
    assert one.verify().integrity == "verified"
