"""What all verbs share: `--store` before or after the verb, help that teaches, and no empty arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from ledger.errors import LedgerError, MalformedError
from tui.exits import MEANINGS, Exit

DEFAULT_STORE: Final = "trail-store"
ENVIRONMENT: Final = {
    "TRAIL_STORE": "the store, where --store is not given",
    "TRAIL_KEY": "the signing key's file",
    "TRAIL_PASSPHRASE_FILE": "the file with the signing key's passphrase",
    "TRAIL_VKEY": "the public key to believe",
    "TRAIL_STATE": "the directory of the last signed state",
    "TRAIL_WITNESS": "the witness's directory, where --dir is not given",
    "TRAIL_TOKEN": "the token that a running server wants of trail import",
}
"""The variables that the command reads; one that is set and empty is a mistake, not a default."""
Function = TypeVar("Function", bound=Callable[..., Any])
_STORE_KEY: Final = "tui.store"


def store_of(context: click.Context) -> Path:
    """The store of this run: after the verb, before it, `TRAIL_STORE`, else `./trail-store`."""
    chosen = context.meta.get(_STORE_KEY) or os.environ.get("TRAIL_STORE") or DEFAULT_STORE
    return Path(chosen)


def named_store(context: click.Context) -> str | None:
    """What `--store` said, if it was given: for what must not touch the store that everything else uses."""
    named: str | None = context.meta.get(_STORE_KEY)
    return named


def refuse_empty(context: click.Context, args: Sequence[str]) -> None:
    """An empty argument is an unset variable, and never means "no filter".

    Raises:
        UsageError: there is one.
    """
    before = context.info_name or "trail"
    for arg in args:
        name, equals, value = arg.partition("=")
        if not arg.strip() or (name.startswith("--") and equals and not value.strip()):
            after = name if equals else before
            raise click.UsageError(f"an argument after {after} is empty: is a variable unset?", context)
        before = arg


def refuse_empty_environment() -> None:
    """The same for the variables that are read.

    Raises:
        UsageError: one is set and empty.
    """
    for name in ENVIRONMENT:
        if name in os.environ and not os.environ[name].strip():
            raise click.UsageError(f"the environment variable {name} is set and empty: unset it, or give it a value")


def _remember_store(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_STORE_KEY] = value


def store_option() -> click.Option:
    """`--store`, which every command takes."""
    return click.Option(
        ["--store"],
        metavar="DIR",
        expose_value=False,
        callback=_remember_store,
        help="The store.  [default: TRAIL_STORE, else ./trail-store]",
    )


class Verb(click.Command):
    """One verb: takes `--store`, refuses empty arguments, shows examples and exit codes in its help."""

    def __init__(
        self, name: str | None, *, examples: Sequence[tuple[str, str]] = (), exits: Mapping[Exit, str] | None = None, **named: Any
    ) -> None:
        """As `click.Command`.

        Args:
            name: the verb.
            examples: (command line, what it does).
            exits: what its exit codes mean, beyond or instead of `MEANINGS`.
            named: for `click.Command`.
        """
        named["params"] = [*named.get("params", []), store_option()]
        named.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(name, **named)
        self.examples = tuple(examples)
        self.exits = dict(exits or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse empty arguments, then parse."""
        refuse_empty(ctx, args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and exit codes."""
        write_examples(self.examples, formatter)
        codes = {Exit.OK: MEANINGS[Exit.OK], Exit.USAGE: MEANINGS[Exit.USAGE], Exit.STORAGE: MEANINGS[Exit.STORAGE], **self.exits}
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), codes[code]) for code in sorted(codes)])


class VerbGroup(click.Group):
    """A verb of several (`trail token add`)."""

    command_class = Verb

    def __init__(self, name: str | None = None, *, examples: Sequence[tuple[str, str]] = (), **named: Any) -> None:
        """As `click.Group`, with examples."""
        named["params"] = [*named.get("params", []), store_option()]
        named.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(name, **named)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse empty arguments, then parse."""
        refuse_empty(ctx, args)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the whole first paragraph of its help: click would cut it after some words."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, " ".join((command.help or "").split("\n\n")[0].split())) for name, command in commands if command is not None]
            )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(self.examples, formatter)


def verb(
    name: str, *, examples: Sequence[tuple[str, str]], exits: Mapping[Exit, str] | None = None
) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function a verb; its docstring is the purpose."""

    def decorate(function: Callable[..., Any]) -> Verb:
        return click.command(name, cls=Verb, examples=examples, exits=exits)(function)

    return decorate


def write_examples(examples: Sequence[tuple[str, str]], formatter: click.HelpFormatter) -> None:
    """Command lines as they are typed: never wrapped."""
    if not examples:
        return
    with formatter.section("Examples"):
        for line, what in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n{'':>{formatter.current_indent}}    {what}\n")


class Checked(click.ParamType[Any]):
    """A parameter read by one of our own strict parsers, whose refusal is a usage error."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        """`read` raises a `LedgerError` for what it does not take."""
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except LedgerError as exc:
            self.refuse(exc, param, ctx)

    def refuse(self, exc: LedgerError, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        """Say why, with the hint."""
        self.fail(f"{exc.message}{f' ({exc.hint})' if exc.hint else ''}", param, ctx)


def read_vkey(text: str) -> str:
    """A public key as the user gave it, `VKEY` or `VKEY@<=SIZE`.

    Raises:
        MalformedError: it is none.
    """
    from ledger.trust import TrustedKey

    try:
        return TrustedKey.parse(text).spec
    except MalformedError as exc:
        raise MalformedError(f"not a public key: {exc.message}", hint="it looks like NAME+HEX+BASE64; see trail info") from exc


def _together(context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> str | None:
    from ledger.trust import LogKeys

    if not given:
        return None
    try:
        return " ".join(LogKeys.of(*given).specs)
    except MalformedError as exc:
        raise click.UsageError(exc.message, context) from exc


def vkey_option(function: Function) -> Function:
    """`--key VKEY` of verbs that read: the keys given, with spaces between, or None."""
    return click.option(
        "--key",
        "vkey",
        metavar="VKEY",
        type=Checked("vkey", read_vkey),
        multiple=True,
        callback=_together,
        help="The log's public key; after a rotation: --key 'OLD@<=SIZE' --key NEW.  "
        "[default: TRAIL_VKEY, else the pinned one, else your trust file's]",
    )(function)


def json_option(function: Function) -> Function:
    """`--json` of verbs that read."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def tail_option(function: Function) -> Function:
    """`--tail` of verbs that read."""
    return click.option(
        "--tail", is_flag=True, help="Also show records that are acknowledged and not yet under a signed checkpoint (a second or less)."
    )(function)
