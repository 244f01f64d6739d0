"""`trail token`: who may send, and as what."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import MalformedError
from ledger.keys import config_dir, slug
from tui.exits import Exit
from tui.output import emit, emit_json, emit_table, say
from tui.times import parse_time
from tui.verb import Checked, VerbGroup, json_option, store_of

if TYPE_CHECKING:
    from ingest.auth import Token, TokenFile

_ROLES: Final = ("emitter", "approver", "policy", "reader", "auditor", "admin")


def _expiry(text: str) -> int:
    """`90d` from now, or a moment."""
    now = time.time_ns()
    moment = parse_time(text, now=now, end=True)
    if moment < now and not text[:4].isdigit():  # a length of time, which counts back elsewhere and forward here
        moment = 2 * now - moment
    if moment <= now:
        raise MalformedError(f"{text!r} has passed", hint='write "90d" or a day to come')
    return moment


@click.group(
    "token",
    cls=VerbGroup,
    examples=[
        ("trail token add ci-agents --role emitter --service support-agent --expires 90d", "prints the token, once"),
        ("trail token revoke ci-agents", "a running server refuses it from the next request on"),
    ],
)
def command() -> None:
    """Say who may send telemetry, and as what.

    Without tokens the server listens on this machine only, and every record says that it came from "loopback". With them each record
    names its sender; an approval counts as observed only from a sender of role approver that emitted nothing else in that run.
    """


def _tokens_option(function: Any) -> Any:
    return click.option(
        "--tokens", metavar="FILE", type=click.Path(path_type=Path), help="The token file.  [default: in the configuration directory]"
    )(function)


@command.command(
    "add",
    examples=[
        ("trail token add ci-agents --role emitter", "an agent's own telemetry, from any service"),
        ("trail token add slack --role approver", "what people answered"),
    ],
)
@click.argument("name", metavar="NAME")
@click.option("--role", type=click.Choice(_ROLES), required=True, help="What it is for.")
@click.option("--service", "services", multiple=True, metavar="NAME", help="A service.name it may speak for; repeat it.  [default: any]")
@click.option("--expires", metavar="T", type=Checked("time", _expiry), help='When it ends: "90d" from now, or a day or moment (UTC).')
@_tokens_option
@click.pass_context
def add(context: click.Context, name: str, role: str, services: tuple[str, ...], expires: int | None, tokens: Path | None) -> Exit:
    """Make a token and print it: the only time it is seen, for only its digest is kept."""
    from ingest.auth import Role

    file = _load(context, tokens)
    first = not any(_is_valid(token) for token in file.tokens)
    try:
        secret = file.add(name, Role(role), services, expires, now=time.time_ns())
    except MalformedError as exc:
        raise click.UsageError(f"{exc.message} ({exc.hint})", context) from exc
    emit(secret)
    say(f"kept its digest in {file.path}; a sender uses it with OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20TOKEN")
    if first:
        say("It is the first one: restart trail serve, which from then on refuses whoever has none.")
    return Exit.OK


@command.command(
    "list", examples=[("trail token list", "names, roles and services, no digests"), ("trail token list --json", "for a program")]
)
@_tokens_option
@json_option
@click.pass_context
def list_(context: click.Context, tokens: Path | None, as_json: bool) -> Exit:
    """List the tokens: names, roles, services, and whether they are valid."""
    file = _load(context, tokens)
    rows = [
        {
            "name": token.name,
            "role": token.role.value,
            "services": list(token.services),
            "state": _state(token),
            "created": _day(token.created),
            "expires": _day(token.expires),
            "revoked": _day(token.revoked),
        }
        for token in file.tokens
    ]
    if as_json:
        emit_json(rows)
    elif rows:
        emit_table(
            ["NAME", "ROLE", "STATE", "SERVICES", "CREATED", "EXPIRES"],
            [
                [row["name"], row["role"], row["state"], ", ".join(token.services) or "any", row["created"], row["expires"]]
                for row, token in zip(rows, file.tokens, strict=True)
            ],
        )
    if not rows:
        say(f"there are no tokens in {file.path}: the server takes telemetry from this machine only")
    return Exit.OK


@command.command(
    "revoke",
    examples=[("trail token revoke ci-agents", "at once, also in a running server"), ("trail token revoke slack", "its records stay")],
)
@click.argument("name", metavar="NAME")
@_tokens_option
@click.pass_context
def revoke(context: click.Context, name: str, tokens: Path | None) -> Exit:
    """Make a token invalid from now on; what it sent stays as it was recorded."""
    file = _load(context, tokens)
    try:
        file.revoke(name, now=time.time_ns())
    except MalformedError as exc:
        raise click.UsageError(f"{exc.message} (see {exc.hint})", context) from exc
    say(f"{name} is revoked")
    return Exit.OK


def _load(context: click.Context, path: Path | None) -> TokenFile:
    from ingest.auth import TokenFile
    from ledger.layout import Layout
    from ledger.settings import Settings

    if path is None:
        settings, _text = Settings.load(Layout(store_of(context)))
        path = config_dir() / f"tokens-{slug(settings.origin)}.json"
    return TokenFile.load(path)


def _is_valid(token: Token) -> bool:
    return _state(token) == "valid"


def _state(token: Token) -> str:
    if token.revoked is not None:
        return "revoked"
    return "expired" if token.expires is not None and token.expires <= time.time_ns() else "valid"


def _day(moment: int | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
