"""Every attack and fault that broke other systems has a test of ours, and the table in `tests/attacks/README.md` names them all.

`python tests/test_attacks_named.py --write` makes that table anew.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ATTACKS = ROOT / "tests" / "attacks"
README = ATTACKS / "README.md"
MARKS = ("<!-- table: python tests/test_attacks_named.py --write -->", "<!-- end of the table -->")
_NUMBERED = re.compile(r"test_([0-9]{2})_\w+")

KNOWN: dict[int, tuple[str, str, str]] = {
    1: ("edit, insert, remove or reorder rows, or change a column alone", "leaf hash of the record; projection of the columns", "failed"),
    2: ("edit a detached value, or a person's name", "salted commitment in the record", "failed"),
    3: ("edit only statistics, bloom filter or metadata of a Parquet file", "seal over the file's bytes", "failed"),
    4: ("append bytes or a second footer to a Parquet file", "seal over the file's bytes", "failed"),
    5: ("swap two segments, with their side files or without", "seal; leaf hash of the seal record", "failed"),
    6: ("delete the newest records, with tiles and checkpoint", "kept checkpoint, last-signed state, witness", "failed: rollback"),
    7: ("delete two neighbouring segments", "the live files must tile all records", "failed"),
    8: (
        "delete or empty the whole store, or begin it anew",
        "kept checkpoint, last-signed state, witness",
        "no store, or failed: rollback",
    ),
    9: ("replace the log by a rebuilt one of the same origin", "pinned key; with its own key: what is held outside", "failed: fork"),
    10: ("fork: two checkpoints of one size, or two histories", "kept checkpoint, last-signed state; a witness refuses", "failed: fork"),
    11: (
        "restore a backup, and perhaps go on from it",
        "last-signed state; with it restored: what is held outside",
        "failed: rollback or fork",
    ),
    12: ("verify with a wrong key, or with none", "pinned key, never the one in the store", "failed; unverifiable"),
    13: ("pass an unsigned tail off as proven", "only what lies under the checkpoint is counted", "named, not judged"),
    14: ("put in a valid segment of another log", "leaf hash of the seal record", "failed"),
    15: ("pass a node off as a record", "leaves and nodes are hashed with prefixes of their own", "failed"),
    16: ("proofs with other hashes, indexes or sizes", "the path's length follows from index and size; the root", "refused"),
    17: ("signature lines in other forms, twice, or by strangers", "one form of a note; a key counts once", "failed, or counted once"),
    18: ("low-order or non-canonical Ed25519 keys and signatures", "refused before the signature is looked at", "refused; failed"),
    19: ("a clock that steps (no attack: an honest log must not break)", "nothing rests on the order of times", "verified"),
    20: ("two writers at once; a kill between any two durable steps", "lock; order of writes and recovery", "refused; verified"),
    21: ("put an erased value back with another salt", "salted commitment", "failed"),
    22: ("remove a value without an erasure", "every mark must be matching, never kept or erased", "failed: missing"),
    23: (
        "time stamps over other bytes, or outside their certificate's time",
        "RFC 3161, judged at the token's own time",
        "failed anchoring",
    ),
    24: ("names, links, archives and holes that lead elsewhere", "names of one form only; sizes before bytes", "failed; refused"),
    25: ("a second column of a name in another case, or other types", "columns must be exactly those of the schema", "failed"),
}
"""Number: what is done, what catches it, the verdict."""


def named_tests() -> dict[int, dict[str, list[str]]]:
    """By number: the tests of each file, in the order in which they stand."""
    found: dict[int, dict[str, list[str]]] = {}
    for path in sorted(ATTACKS.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            match = _NUMBERED.fullmatch(node.name) if isinstance(node, ast.FunctionDef) else None
            if match is not None:
                found.setdefault(int(match[1]), {}).setdefault(path.name, []).append(match[0])
    return found


def table() -> str:
    """The table of the README, made from the tests as they are."""
    tests = named_tests()
    lines = ["| | attack or fault | caught by | `verify` says | tests |", "|---|---|---|---|---|"]
    for number, (attack, caught, verdict) in KNOWN.items():
        cells = [f"[{file}]({file}): " + ", ".join(f"`{name}`" for name in names) for file, names in tests.get(number, {}).items()]
        lines.append(f"| {number} | {attack} | {caught} | {verdict} | {'<br>'.join(cells)} |")
    return "\n".join(lines)


def parts() -> tuple[str, str, str]:
    """The README before the table, the table, and what follows."""
    before, _, rest = README.read_text("utf-8").partition(MARKS[0] + "\n")
    middle, _, after = rest.partition("\n" + MARKS[1])
    return before, middle, after


def test_every_attack_is_tested() -> None:
    print(table())
    assert sorted(named_tests()) == sorted(KNOWN) == list(range(1, 26))


@pytest.mark.parametrize("number", KNOWN)
def test_the_table_names_the_tests_of(number: int) -> None:
    (row,) = [line for line in parts()[1].splitlines() if line.startswith(f"| {number} |")]
    for file, names in named_tests()[number].items():
        assert (ATTACKS / file).is_file()
        for name in names:
            assert f"`{name}`" in row


def test_the_table_is_made_from_the_tests() -> None:
    assert parts()[1] == table(), "make it anew: python tests/test_attacks_named.py --write"


def test_numbers_are_given_nowhere_else() -> None:
    """One place for each attack: a second copy would be forgotten."""
    others = [path for path in (ROOT / "tests").rglob("test_*.py") if ATTACKS not in path.parents]
    found = [
        f"{path.name}: {match[0]}" for path in others for match in re.finditer(r"(?m)^def test_[0-9]{1,2}_\w+", path.read_text("utf-8"))
    ]
    assert found == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(f"usage: {sys.argv[0]} --write")
    head, _old, tail = parts()
    README.write_text(f"{head}{MARKS[0]}\n{table()}\n{MARKS[1]}{tail}", "utf-8")
