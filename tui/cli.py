"""The `trail` command: finds the verb, runs it, and turns whatever it came to into one sentence and one exit code.

Verbs are imported when they are called: `trail verify` loads no server, and `trail --help` loads nothing but this.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any, Final

import click

from ledger.errors import InvariantError, LedgerError
from tui.exits import Exit, exit_of
from tui.interrupts import leave
from tui.output import coloured, emit, safe
from tui.verb import ENVIRONMENT, refuse_empty, refuse_empty_environment, store_option

DISTRIBUTION: Final = "agent-trail"
SECTIONS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Record": {
        "demo": ("demo", "See all of it in a few seconds: record, ask, verify, tamper."),
        "init": ("init", "Make an empty store and its signing key."),
        "serve": ("serve", "Receive OpenTelemetry and keep it."),
        "import": ("import_", "Keep telemetry that lies in files."),
        "token": ("token", "Say who may send, and as what."),
    },
    "Ask": {
        "ask": ("ask", "What changed, who approved it, which policy allowed it?"),
        "runs": ("runs", "List what agents ran."),
        "timeline": ("timeline", "What happened, in order."),
        "show": ("show", "One record in full."),
        "sql": ("sql", "Ask anything else, in SQL."),
    },
    "Prove": {
        "verify": ("verify", "Check everything a store says."),
        "prove": ("prove", "A proof of one record, for somebody else."),
        "checkpoint": ("checkpoint", "The signed state of the log, to be kept elsewhere."),
        "witness": ("witness", "Cosign the checkpoints of others, and never two histories."),
        "timestamp": ("timestamp", "Have a time-stamping authority confirm a checkpoint."),
    },
    "Look after it": {
        "status": ("status", "How the store and its server are."),
        "info": ("info", "Names, keys, paths and versions."),
        "key": ("key", "Make, rotate and list signing keys; say what a stolen one exposes."),
        "doctor": ("doctor", "Find what is wrong with the set-up, and what to do."),
    },
}
"""The verbs by what they are for: name -> (module in `tui.commands`, one line)."""
VERBS: Final = {name: entry for verbs in SECTIONS.values() for name, entry in verbs.items()}
START: Final = """\
trail is the flight recorder of AI agents: it keeps their OpenTelemetry where nobody can change it unnoticed, and answers
what changed, who approved it, which policy allowed it, what the agent saw, how to undo it, and whether that is intact.

  trail demo        see it work, in a few seconds
  trail init        make a store, then: trail serve
  trail ask FILE    ask about a file, a table, a ticket
  trail --help      everything else
"""


class Trail(click.Group):
    """The command, with verbs that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = import_module(f"tui.commands.{entry[0]}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or the one that was meant."""
        if args[0] not in VERBS:
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            meant = f"did you mean {close[0]}?" if close else "see trail --help"
            raise click.UsageError(f"there is no verb {args[0]!r}: {meant}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse empty arguments, then parse."""
        refuse_empty(ctx, args)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_module, line) in verbs.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what else matters to all verbs."""
        with formatter.section("Environment"):
            formatter.write_dl([*ENVIRONMENT.items(), ("NO_COLOR", "no colours")])
        with formatter.section("Exit codes"):
            formatter.write_dl(
                [
                    ("0", "done; verified"),
                    ("1", "the evidence is false, or a required control is not met"),
                    ("2", "the command line cannot be meant like this"),
                    ("3", "unverifiable: unreadable, a newer format, no pinned key, nothing compared"),
                    ("4", "storage or I/O failed"),
                    ("130", "interrupted"),
                ]
            )


def _version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        emit(f"trail {metadata.version(DISTRIBUTION) if _is_installed() else 'from a source tree'}")
        context.exit()


def _is_installed() -> bool:
    try:
        metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return False
    return True


@click.group(cls=Trail, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}, params=[store_option()])
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")
@click.pass_context
def trail(context: click.Context) -> None:
    """The flight recorder of AI agents.

    Agents send it OpenTelemetry; it keeps what they saw and did as hash-chained Parquet, and answers with proof: what changed, who
    approved it, which policy allowed it, what the agent saw, how to undo it, and whether the evidence is intact.
    """
    refuse_empty_environment()
    if context.invoked_subcommand is None:
        emit(START.rstrip("\n"))


def run(args: Sequence[str]) -> int:
    """Run a command line; returns its exit code and never raises."""
    try:
        result: Any = trail.main(list(args), prog_name="trail", standalone_mode=False)
    except click.UsageError as exc:
        return _refuse(exc)
    except click.ClickException as exc:
        return _fail(exc.format_message(), "", Exit.STORAGE)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", "", Exit.INTERRUPTED)
    except InvariantError as exc:
        return _unexpected(exc)
    except LedgerError as exc:
        return _fail(_with_place(exc), exc.hint, exit_of(exc))
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename is not None else ""
        return _fail(f"{where}{exc.strerror or exc}", "check the path, its permissions and the disk", Exit.STORAGE)
    except Exception as exc:  # the last line before a traceback, which tells a user nothing
        return _unexpected(exc)
    return int(result) if isinstance(result, int) else Exit.OK


def main() -> None:
    """The entry point."""
    leave(run(sys.argv[1:]))


def _refuse(exc: click.UsageError) -> int:
    where = exc.ctx.command_path if exc.ctx is not None else "trail"
    return _fail(exc.format_message(), f"see {where} --help", Exit.USAGE)


def _unexpected(exc: Exception) -> int:
    if os.environ.get("TRAIL_DEBUG"):
        traceback.print_exception(exc)
    last = traceback.extract_tb(exc.__traceback__)[-1]
    text = f"unexpected {type(exc).__name__} in {last.name}: {exc}"
    return _fail(text, "this is a fault in trail: set TRAIL_DEBUG=1 to see where, and report it", Exit.STORAGE)


def _with_place(exc: LedgerError) -> str:
    """The message, and the file or record if it does not name them."""
    text = exc.message
    if exc.index is not None and str(exc.index) not in text:
        text += f" (record {exc.index})"
    if exc.path is not None and exc.path not in text and os.path.basename(exc.path) not in text:  # noqa: PTH119 - a text, not a path of ours
        text += f" ({exc.path})"
    return text


def _fail(text: str, hint: str, code: Exit) -> int:
    sys.stderr.write(f"{coloured('trail:', 'red', stream=sys.stderr)} {safe(text)}\n")
    if hint:
        sys.stderr.write(f"  hint: {safe(hint)}\n")
    return code


if __name__ == "__main__":
    main()
