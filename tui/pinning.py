"""Pinning: which keys this user believes for a log, and which log lies at a path. Only ever on the word of the user, never of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import MissingKey, VerificationError
from ledger.keys import Pins
from ledger.trust import LogKeys
from tui.opening import origin_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What is pinned now, and what was before."""

    origin: str
    keys: tuple[str, ...]
    """As `ledger.trust.TrustedKey` reads them."""
    keys_before: tuple[str, ...]
    origin_before: str | None
    """Of the path."""


def pin(store: Path, specs: Sequence[str], *, replace: bool, pins: Pins) -> Pinned:
    """Pin keys for the log of a store, and that log for the store's path.

    Args:
        store: where it lies.
        specs: what `ledger.trust.TrustedKey` reads; none for the keys that are pinned for that log already.
        replace: in the place of whatever is pinned.
        pins: the user's.

    Raises:
        StoreMissing: there is no store.
        MissingKey: no key was named, and none is pinned.
        VerificationError: the store is of another log than the keys, or the path or the log is pinned already, for something else.
        MalformedError: one of them is no key, or the pins are damaged.
    """
    origin = origin_of(store)
    pinned = pins.key(origin)
    before = LogKeys.of(*pinned.split()).specs if pinned is not None else ()
    if not specs and not before:
        raise MissingKey(f"no key is pinned for {origin}", path=pins.path, hint="name the key that you were given: trail key pin VKEY")
    keys = LogKeys.of(*(specs or before))
    if keys.origin != origin:
        raise VerificationError(
            f"the key is for {keys.origin}, and the log at {store} is {origin}", expected=keys.origin, actual=origin, path=store,
            hint="name the store of that log with --store; if this is where it should lie, the store was replaced",
        )  # fmt: skip
    if not replace:
        pins.require_not_replaced(store, origin)
        if before and set(before) != set(keys.specs):
            raise VerificationError(
                f"other keys are pinned for {origin}: {' '.join(before)}", expected=list(before), actual=list(keys.specs), path=pins.path,
                hint="ask whoever gave you the new ones, by another way than they came; then --replace",
            )  # fmt: skip
    found = Pinned(origin=origin, keys=keys.specs, keys_before=before, origin_before=pins.origin_at(store))
    pins.add(" ".join(keys.specs), store=store)
    return found
