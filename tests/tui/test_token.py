"""Tokens: shown once, listed without secrets, revoked at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from trail_process import Ran

from tui.exits import Exit

Call = Callable[..., Ran]


@pytest.fixture
def store(trail: Call, tmp_path: Path) -> Path:
    assert trail("init", "--store", tmp_path / "store").code == Exit.OK
    return tmp_path / "store"


def test_add_list_revoke(trail: Call, store: Path) -> None:
    added = trail("token", "add", "ci", "--role", "emitter", "--service", "a", "--service", "b", "--expires", "90d", "--store", store)
    assert added.code == Exit.OK
    secret = added.out.strip()
    assert secret.startswith("trail_")
    listed = trail("token", "list", "--store", store)
    assert secret not in listed.out + listed.err + added.err
    (row,) = trail("token", "list", "--json", "--store", store).json
    assert (row["name"], row["role"], row["services"], row["state"]) == ("ci", "emitter", ["a", "b"], "valid")
    assert "sha256" not in row
    assert row["expires"] > row["created"]
    assert trail("token", "revoke", "ci", "--store", store).code == Exit.OK
    assert trail("token", "list", "--json", "--store", store).json[0]["state"] == "revoked"
    again = trail("token", "revoke", "ci", "--store", store)
    assert (again.code, again.out) == (Exit.USAGE, "")


@pytest.mark.parametrize(
    "args",
    [["ci", "--role", "emitter", "--expires", "2020-01-01"], ["two words", "--role", "emitter"], ["loopback", "--role", "emitter"], ["ci"]],
    ids=" ".join,
)
def test_what_cannot_be_a_token(trail: Call, store: Path, args: list[str]) -> None:
    ran = trail("token", "add", *args, "--store", store)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert trail("token", "list", "--json", "--store", store).json == []


def test_a_file_open_to_others_is_refused(trail: Call, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    assert trail("token", "add", "ci", "--role", "emitter", "--tokens", path, "--store", store).code == Exit.OK
    path.chmod(0o644)
    ran = trail("token", "list", "--tokens", path, "--store", store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "chmod 600" in ran.err
