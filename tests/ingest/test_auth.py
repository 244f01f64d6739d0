"""Tokens: what the file holds, who gets in, and what happens when it changes under a running server."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from ingest.auth import (
    LOOPBACK,
    TELEMETRY_ROLES,
    Forbidden,
    LiveTokens,
    Role,
    Sender,
    TokenFile,
    Unauthenticated,
    require,
)
from ledger.errors import MalformedError, StorageError, UnsupportedFormat

NOW = 1_795_163_338 * 10**9
DAY = 86_400 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "configuration" / "tokens.json"


def test_a_token_is_shown_once_and_kept_as_a_digest(path: Path) -> None:
    secret = TokenFile.load(path).add("shop", Role.EMITTER, ["checkout"], NOW + DAY, now=NOW)
    assert re.fullmatch(r"trail_[A-Za-z0-9_-]{43}", secret)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in path.read_text("utf-8")
    assert json.loads(path.read_bytes()) == {
        "version": 1,
        "tokens": [
            {
                "name": "shop",
                "role": "emitter",
                "services": ["checkout"],
                "sha256": hashlib.sha256(secret.encode()).hexdigest(),
                "created": "2026-11-20T08:28:58Z",
                "expires": "2026-11-21T08:28:58Z",
            }
        ],
    }


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_a_token_makes_its_sender(path: Path, scheme: str) -> None:
    tokens = TokenFile.load(path)
    tokens.add("other", Role.READER, now=NOW)
    secret = tokens.add("shop", Role.EMITTER, ["checkout"], now=NOW)
    sender = TokenFile.load(path).authenticate(scheme + secret, NOW)
    assert sender == Sender("shop", Role.EMITTER, ("checkout",))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (None, "wants a token"),
        ("", "Bearer <token>"),
        ("Bearer", "Bearer <token>"),
        ("Basic dXNlcjpwYXNz", "Bearer <token>"),
        ("Bearer a b", "Bearer <token>"),
        ("Bearer " + "a" * 10_000, "Bearer <token>"),
        ("Bearer \u00e4", "Bearer <token>"),
        ("Bearer trail_" + "A" * 43, "does not know"),
    ],
)
def test_without_a_known_token_nobody_gets_in(path: Path, header: str | None, why: str) -> None:
    tokens = TokenFile.load(path)
    tokens.add("shop", Role.EMITTER, now=NOW)
    with pytest.raises(Unauthenticated, match=why) as refused:
        tokens.authenticate(header, NOW)
    assert "A" * 43 not in str(refused.value)


def test_an_expired_token_ends_at_its_moment(path: Path) -> None:
    tokens = TokenFile.load(path)
    header = "Bearer " + tokens.add("shop", Role.EMITTER, (), NOW + DAY, now=NOW)
    assert tokens.authenticate(header, NOW + DAY - 1).name == "shop"
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.authenticate(header, NOW + DAY)


def test_a_revoked_name_can_be_given_anew_and_its_old_token_stays_out(path: Path) -> None:
    tokens = TokenFile.load(path)
    old = tokens.add("shop", Role.EMITTER, now=NOW)
    tokens.revoke("shop", now=NOW + DAY)
    new = tokens.add("shop", Role.EMITTER, now=NOW + DAY)
    again = TokenFile.load(path)
    assert again.authenticate("Bearer " + new, NOW + DAY).name == "shop"
    with pytest.raises(Unauthenticated, match="revoked"):
        again.authenticate("Bearer " + old, NOW)
    assert [token.revoked for token in again.tokens] == [NOW + DAY, None]


def test_what_cannot_be_added_or_revoked(path: Path) -> None:
    tokens = TokenFile.load(path)
    tokens.add("shop", Role.EMITTER, now=NOW)
    for name in ("", "loopback", "unauthenticated", "a b", "-a", "x" * 65, "shop", "shop\n"):
        with pytest.raises(MalformedError):
            tokens.add(name, Role.EMITTER, now=NOW)
    with pytest.raises(MalformedError, match="empty"):
        tokens.add("other", Role.EMITTER, [""], now=NOW)
    with pytest.raises(MalformedError, match="no valid token"):
        tokens.revoke("other", now=NOW)
    assert [token.name for token in TokenFile.load(path).tokens] == ["shop"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    TokenFile.load(path).add("shop", Role.EMITTER, now=NOW)
    path.chmod(mode)
    with pytest.raises(StorageError, match="other users") as refused:
        TokenFile.load(path)
    assert "chmod 600" in refused.value.hint


GOOD = {"name": "a", "role": "emitter", "services": [], "sha256": "0" * 64, "created": "2026-11-20T10:00:00Z"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"tokens": [1]}',
        *(
            json.dumps({"tokens": [entry]})
            for entry in (
                {},
                GOOD | {"role": "root"},
                GOOD | {"name": "loopback"},
                GOOD | {"name": 5},
                GOOD | {"services": "checkout"},
                GOOD | {"services": [""]},
                GOOD | {"sha256": "0" * 63},
                GOOD | {"created": "2026-11-20T10:00:00"},
                GOOD | {"expires": "soon"},
                GOOD | {"only_from": "10.0.0.0/8"},
            )
        ),
    ],
)
def test_a_damaged_file_is_refused_as_a_whole(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content, "utf-8")
    path.chmod(0o600)
    with pytest.raises(MalformedError, match="not a token file"):
        TokenFile.load(path)


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"version": 2, "tokens": []}', "utf-8")
    path.chmod(0o600)
    with pytest.raises(UnsupportedFormat, match="version 2"):
        TokenFile.load(path)


def test_a_running_server_sees_a_new_token_and_a_revocation(path: Path) -> None:
    file = TokenFile.load(path)
    live = LiveTokens(path)
    header = "Bearer " + file.add("shop", Role.EMITTER, now=NOW)
    assert live.authenticate(header, NOW).name == "shop"
    file.revoke("shop", now=NOW)
    with pytest.raises(Unauthenticated, match="revoked"):
        live.authenticate(header, NOW)


@pytest.mark.parametrize("fault", ["damaged", "open"])
def test_a_running_server_lets_nobody_in_by_a_file_it_cannot_trust(path: Path, fault: str) -> None:
    header = "Bearer " + TokenFile.load(path).add("shop", Role.EMITTER, now=NOW)
    live = LiveTokens(path)
    good = path.read_bytes()
    if fault == "damaged":
        path.write_bytes(good[:-20])
    else:
        path.chmod(0o644)
    for _ in range(2):
        with pytest.raises(StorageError):
            live.authenticate(header, NOW)
    path.write_bytes(good)
    path.chmod(0o600)
    os.utime(path, ns=(NOW, NOW))
    assert live.authenticate(header, NOW).name == "shop"


def test_a_token_file_that_is_gone_lets_nobody_in(path: Path) -> None:
    header = "Bearer " + TokenFile.load(path).add("shop", Role.EMITTER, now=NOW)
    live = LiveTokens(path)
    path.unlink()
    with pytest.raises(Unauthenticated):
        live.authenticate(header, NOW)


@pytest.mark.parametrize("role", Role)
def test_only_those_who_act_approve_or_decide_send_telemetry(role: Role) -> None:
    sender = Sender("s", role, ())
    if role in (Role.READER, Role.AUDITOR):
        with pytest.raises(Forbidden, match="admin, approver, emitter, policy"):
            require(sender, TELEMETRY_ROLES)
    else:
        require(sender, TELEMETRY_ROLES)


def test_loopback_without_tokens_may_do_all() -> None:
    require(LOOPBACK, [])
