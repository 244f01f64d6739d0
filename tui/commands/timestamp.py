"""`trail timestamp`: an authority's word for when the newest checkpoint existed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import LedgerError, MalformedError, ReadOnlyStore, StorageError, VerificationError
from tui.exits import Exit
from tui.opening import open_to_prove, trust_of
from tui.output import emit, emit_json, one_line, say, shout, warn
from tui.verb import Checked, json_option, store_of, verb, vkey_option

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ledger.layout import Layout

_ELSEWHERE: Final = "write it elsewhere with -o FILE"


def _url(text: str) -> str:
    from ledger.bounded_http import Address

    return Address.parse(text).url


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What one authority came to."""

    url: str
    token: bytes | None = None
    error: LedgerError | None = None
    kept: bool = False
    """It was in the store already: an authority need not be asked for the same checkpoint twice."""

    def as_json(self, name: str | None, roots: Sequence[Certificate], note: bytes) -> dict[str, Any]:
        """Everything about it; what the token says is evidence only where `verified` is true."""
        from ledger.timestamps import claimed_time, verify_token

        value: dict[str, Any] = {"url": self.url, "file": name, "verified": False, "error": self.error and self.error.message}
        if self.token is None:
            return value
        if not roots:
            return value | {"time": _iso(claimed_time(self.token))}
        stamp = verify_token(self.token, note, roots)
        return value | {
            "verified": True,
            "time": _iso(stamp.time),
            "no_later_than": _iso(stamp.no_later_than),
            "serial": str(stamp.serial),
            "policy": stamp.policy,
            "authority": stamp.authority,
        }


@verb(
    "timestamp",
    examples=[
        ("trail timestamp --tsa http://timestamp.example.com --tsa-roots root.pem", "ask this authority, and check what it says"),
        ("trail timestamp -o kept", "ask those of trail.toml; write kept.checkpoint and kept.tsr, for an archive"),
    ],
    exits={
        Exit.FALSE: "a token is false, or the store is not what was signed",
        Exit.UNVERIFIABLE: "no key is pinned, or there is no checkpoint yet",
        Exit.STORAGE: "no authority answered, or what it sent could not be written",
    },
)
@click.option(
    "--tsa",
    "urls",
    multiple=True,
    metavar="URL",
    type=Checked("url", _url),
    help="A time-stamping authority (RFC 3161), may be repeated.  [default: timestamp_urls in trail.toml]",
)
@click.option(
    "--tsa-roots",
    "roots_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The root certificates to believe, PEM; without any nobody is known to vouch for it.  [default: tsa_roots of your trust file]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write FILE.checkpoint and FILE.tsr instead of into the store.",
)
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context, urls: tuple[str, ...], roots_file: Path | None, output: Path | None, vkey: str | None, as_json: bool
) -> Exit:
    """Have the newest checkpoint time-stamped, and keep checkpoint and token in the store's checkpoints/timestamps.

    A token says that everything up to that checkpoint existed at its time, in the word of an authority that never sees the records: it gets
    a digest. It proves no later than, never the only version. It works beside a running server, which can stamp by itself
    (timestamp_urls in trail.toml). Anybody can check it: openssl ts -verify -data X.checkpoint -in X.tsr -CAfile root.pem
    """
    from ledger.timestamps import load_roots

    named = load_roots(roots_file) if roots_file is not None else None
    reader = open_to_prove(store_of(context), vkey=vkey).reader
    roots = named if named is not None else trust_of(reader.origin, None).tsa_roots
    urls = tuple(dict.fromkeys(urls or reader.settings.timestamp_urls))
    if not urls:
        raise click.UsageError(
            'no time-stamping authority is named: use --tsa URL, or put timestamp_urls = ["URL"] into trail.toml', context
        )
    if reader.key_status != "pinned":
        # A token over a checkpoint that nobody has checked would lend it a weight that it has not.
        return Exit.UNVERIFIABLE
    if not reader.note:
        raise MalformedError(
            "the log is empty: there is no checkpoint to stamp",
            path=reader.layout.root,
            hint="one is signed within a second of the first record",
        )
    if output is None:
        _require_writable(reader.layout)
    elif not output.parent.is_dir():
        raise StorageError(f"there is no directory {output.parent}", path=output.parent, hint="make it, or name another FILE with -o")
    stamps = [_ask(reader.layout, url, reader.note, roots, beside=output) for url in urls]
    rows = [
        stamp.as_json(None if stamp.token is None else _keep(reader.layout, stamp, reader.note, output, number), roots, reader.note)
        for number, stamp in enumerate(stamps, 1)
    ]
    if as_json:
        emit_json({"origin": reader.origin, "size": reader.size, "root": reader.root, "timestamps": rows})
    _tell(rows, stamps, reader.size, quiet=as_json)
    return _exit(stamps)


def _require_writable(layout: Layout) -> None:
    """Before an authority is asked for what could not be kept.

    Raises:
        StorageError: the directory of time stamps cannot be written.
    """
    from ledger import durable

    try:
        durable.make_dirs(layout.timestamps)
    except LedgerError as exc:
        raise type(exc)(exc.message, path=exc.path, hint=_ELSEWHERE) from exc
    if not os.access(layout.timestamps, os.W_OK | os.X_OK):
        raise ReadOnlyStore(f"{layout.timestamps} is not writable by this user", path=layout.timestamps, hint=_ELSEWHERE)


def _ask(layout: Layout, url: str, note: bytes, roots: Sequence[Certificate], *, beside: Path | None) -> _Stamp:
    """The authority's token, checked as far as the roots go; the one in the store, if it has stamped this checkpoint already."""
    from ledger import anchors
    from ledger.timestamps import fetch, require_signed, verify_token

    try:
        token = anchors.timestamp_of(layout, note, url=url) if beside is None else None
        if token is None:
            return _Stamp(url, fetch(url, note, roots=roots))
        if roots:
            verify_token(token, note, roots)
        else:
            require_signed(token, note)
        return _Stamp(url, token, kept=True)
    except LedgerError as exc:
        return _Stamp(url, error=exc)


def _keep(layout: Layout, stamp: _Stamp, note: bytes, output: Path | None, number: int) -> str:
    """Write note and token; where they are, without their endings."""
    from ledger import anchors, durable

    token = stamp.token or b""
    if output is None:
        return anchors.write_timestamp(layout, note, token, url=stamp.url)
    # One checkpoint, and as many tokens as there are authorities.
    name = f"{output.name}-{number}" if number > 1 else output.name
    durable.replace(output.with_name(f"{name}.checkpoint"), note)
    durable.replace(output.with_name(f"{name}.tsr"), token)
    return str(output.with_name(name))


def _tell(rows: list[dict[str, Any]], stamps: list[_Stamp], size: int, *, quiet: bool) -> None:
    for row, stamp in zip(rows, stamps, strict=True):
        if isinstance(stamp.error, VerificationError):
            shout("FALSE", f"{stamp.error.message}{f' ({stamp.error.hint})' if stamp.error.hint else ''}")
        elif stamp.error is not None:
            warn(f"{stamp.error.message}{f' ({stamp.error.hint})' if stamp.error.hint else ''}")
        elif not row["verified"]:
            shout(
                "NOT VERIFIED", f"{stamp.url} says {row['time']}, and nothing says who it is: name the root you were given with --tsa-roots"
            )
        if stamp.token is None or quiet:
            continue
        known = f"{row['time']}  {row['authority']}" if row["verified"] else f"{row['time']}  not verified"
        emit(f"{one_line(known)}  {row['file']}")
        say(f"{size:,} records {'were stamped already' if stamp.kept else 'are stamped'}: {row['file']}.checkpoint and .tsr")


def _exit(stamps: list[_Stamp]) -> Exit:
    if any(isinstance(stamp.error, VerificationError) for stamp in stamps):
        return Exit.FALSE
    return Exit.OK if any(stamp.token is not None for stamp in stamps) else Exit.STORAGE


def _iso(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}{f'.{moment:%f}'.rstrip('0') if moment.microsecond else ''}Z"
