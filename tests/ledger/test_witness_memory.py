"""What a store remembers of its witnesses, and who shows less than that."""

from __future__ import annotations

from pathlib import Path

import pytest
from witness_servers import policy_of

from ledger.anchors import append_cosigned, write_cosigned
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.layout import Layout
from ledger.note import Signer, parse_note
from ledger.witness_memory import forgetful, remembered

ORIGIN = "example.com/agents"
LOG = Signer.generate(ORIGIN)
ONE, TWO, STRANGER = (Signer.generate(f"example.org/{name}") for name in ("one", "two", "stranger"))
POLICY = policy_of(f"witness one {ONE.cosigner.vkey}\n", f"witness two {TWO.cosigner.vkey}\n")
DAY = 86_400_000_000_000


def cosigned(size: int, *witnesses: Signer, origin: str = ORIGIN) -> bytes:
    note = sign_checkpoint(Checkpoint(origin, size, bytes([size]) * 32), LOG if origin == ORIGIN else Signer.generate(origin))
    text, _lines = parse_note(note)
    return note + "".join(witness.cosign(text, 1_790_000_000 + size) for witness in witnesses).encode()


def spoiled(note: bytes) -> bytes:
    return note[:-10] + (b"A" if note[-10:-9] != b"A" else b"B") + note[-9:]


def test_the_largest_of_each_witness_is_remembered(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.history.mkdir()
    assert remembered(layout, POLICY, ORIGIN) == {}
    for day, note in enumerate(
        [
            cosigned(5, TWO),
            cosigned(10, ONE, TWO),
            cosigned(20, ONE, STRANGER),
            spoiled(cosigned(90, ONE)),
            cosigned(91, ONE, origin="example.com/another"),
        ]
    ):
        append_cosigned(layout, note, published=1_790_000_000_000_000_000 + day * DAY)
    assert remembered(layout, POLICY, ORIGIN) == {"one": 20, "two": 10}
    assert remembered(layout, POLICY, ORIGIN, days=3) == {"one": 20}
    write_cosigned(layout, cosigned(30, ONE, TWO))
    assert remembered(layout, POLICY, ORIGIN) == {"one": 30, "two": 30}


def test_a_witness_that_shows_less_than_it_has_cosigned_is_named() -> None:
    stored = [cosigned(7, ONE), cosigned(12, ONE), cosigned(50, TWO), cosigned(60, STRANGER)]
    why = forgetful(POLICY, cosigned(10, ONE), stored)
    assert why is not None
    assert why.startswith("the witness one forgot 2 records: it has cosigned 12 and knows 10")
    assert "retire" in why


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(cosigned(12, ONE), id="the same"),
        pytest.param(cosigned(13, ONE), id="more"),
        pytest.param(cosigned(1, STRANGER), id="a witness that nobody named"),
        pytest.param(cosigned(1), id="no cosignature: nobody can say whose it is"),
        pytest.param(spoiled(cosigned(1, ONE)), id="a wrong cosignature is another finding"),
        pytest.param(cosigned(1, ONE, origin="example.com/another"), id="another log"),
        pytest.param(b"rubbish", id="no note"),
    ],
)
def test_who_has_forgotten_nothing_that_is_known(shown: bytes) -> None:
    assert forgetful(POLICY, shown, [cosigned(12, ONE), spoiled(cosigned(90, ONE)), b"rubbish"]) is None


def test_a_note_with_the_lines_of_two_tells_only_if_both_have_more() -> None:
    shown = cosigned(10, ONE, TWO)
    assert forgetful(POLICY, shown, [cosigned(12, ONE)]) is None, "the witness may be the other one"
    why = forgetful(POLICY, shown, [cosigned(14, ONE), cosigned(12, TWO)])
    assert why is not None
    assert "forgot 2 records" in why
