"""The passphrase of a key file: from the file that `TRAIL_PASSPHRASE_FILE` names, else asked for on a terminal.

Never by value: not as an argument, not in an environment variable, and in no message. A credential of systemd
(`LoadCredential=`, `TRAIL_PASSPHRASE_FILE=%d/passphrase`) is such a file.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Final

from ledger.durable import storage_errors
from ledger.errors import MalformedError, MissingKey

VARIABLE: Final = "TRAIL_PASSPHRASE_FILE"
MAX_BYTES: Final = 72
"""What OpenSSH's key derivation takes of one."""


def read_passphrase(path: Path, *, new: bool = False) -> bytes:
    """The passphrase for a key file.

    Args:
        path: the key file, for the question.
        new: it is to be chosen, so it is asked for twice.

    Raises:
        MissingKey: no file is named, and nobody can be asked.
        MalformedError: it is empty, too long, or was typed in two ways.
        StorageError: the file cannot be read.
    """
    named = os.environ.get(VARIABLE)
    if named:
        with storage_errors("reading", Path(named)), Path(named).open("rb") as file:
            # One line feed at the end is an editor's, not the passphrase's.
            passphrase = file.read(MAX_BYTES + 3).removesuffix(b"\n").removesuffix(b"\r")
        where = f"the file that {VARIABLE} names"
    elif sys.stdin is not None and sys.stdin.isatty():
        passphrase = getpass.getpass(f"{'New passphrase' if new else 'Passphrase'} for {path}: ").encode()
        if new and passphrase != getpass.getpass("Once more: ").encode():
            raise MalformedError("the two passphrases are not the same", hint="nothing was changed; try again")
        where = "what was typed"
    else:
        raise MissingKey(
            f"the key at {path} needs a passphrase, and there is no terminal to ask for it", path=path,
            hint=f"name a file that holds it: {VARIABLE}=FILE",
        )  # fmt: skip
    if not 0 < len(passphrase) <= MAX_BYTES:
        raise MalformedError(
            f"a passphrase has 1 to {MAX_BYTES} bytes; {where} is {'empty' if not passphrase else 'longer'}", hint="choose another one"
        )
    return passphrase
