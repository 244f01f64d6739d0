"""Submitting checkpoints to one witness: its remembered size, the proof from there, its answers, and when to try again.

What a witness answers is verified before it counts. A witness that claims to know more than we have signed is asked for the checkpoint:
if the log itself has signed it, the store is what is wrong (`ledger.comparison`), else the witness is.

A witness that knows less than it has cosigned has forgotten (`ledger.witness_memory`). It is not brought up to date: after that nobody
could see any more that it had forgotten, and what it cosigns would count as before. It is asked again from the size that it had cosigned:
it counts again as soon as it has its memory back, and not before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Final, assert_never

from ledger import merkle
from ledger.checkpoint import Checkpoint
from ledger.comparison import Account
from ledger.durable import storage_errors
from ledger.errors import LedgerError, MalformedError, NotAppendOnly, VerificationError, WitnessUnreachable
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, NoteSignature, Verifier, open_note, parse_note
from ledger.policy import PolicyWitness
from ledger.regular import read_file
from ledger.tree import tile_nodes
from ledger.trust import LogKeys
from ledger.witness_client import Conflict, Cosigned, Refused, WitnessClient
from ledger.witness_memory import forgot
from ledger.witness_protocol import AddCheckpoint
from ledger.witness_state import WitnessState

logger = logging.getLogger(__name__)

_MAX_ROUNDS: Final = 4
"""Somebody else may move the witness on between its answer and our next try, but not for ever."""
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 6


class Submitter:
    """One witness. `cosign` is for one thread at a time; `state` and `due` may be read by any."""

    def __init__(
        self,
        witness: PolicyWitness,
        url: str,
        layout: Layout,
        keys: LogKeys,
        known: Sequence[Verifier],
        *,
        evidence: Path,
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
        timeout: float,
    ) -> None:
        """Ask nothing yet.

        Args:
            witness: which one.
            url: its submission prefix.
            layout: the store, whose tiles give the proofs.
            keys: the log's.
            known: the keys of all witnesses of the policy: lines of others are not kept.
            evidence: where checkpoints that contradict the store are kept.
            monotonic: seconds.
            jitter: a random number from 0 to 1.
            timeout: seconds for one request.

        Raises:
            MalformedError: the URL is none.
        """
        self.witness = witness
        self.state = WitnessState(name=witness.name, url=url)
        self.due = monotonic()
        """When it may be asked again, on the clock `monotonic`."""
        self.busy = threading.Event()
        self._client = WitnessClient(url, timeout=timeout)
        self._layout = layout
        self._keys = keys
        self._known = list(known)
        self._evidence = evidence
        self._monotonic = monotonic
        self._jitter = jitter
        self._size = 0
        """Of the checkpoint that the witness is thought to know."""
        self._cosigned_size = 0
        """Of the largest checkpoint that it has verifiably cosigned."""

    def remember(self, size: int) -> None:
        """Take note that this witness has verifiably cosigned a checkpoint of this size, perhaps long ago."""
        self._cosigned_size = max(size, self._cosigned_size)
        self._size = max(size, self._size)

    def cosign(self, note: bytes, checkpoint: Checkpoint) -> tuple[NoteSignature, ...]:
        """Have a published checkpoint cosigned.

        Returns:
            The verified cosignatures of known witnesses, this one's among them.

        Raises:
            NotAppendOnly: the witness shows that the store was rolled back or forked.
            LedgerError: it did not cosign; `state` says so, and `due` when to try again.
        """
        try:
            signatures = self._cosigned(note, checkpoint)
        except LedgerError as exc:
            self._failed(exc.message)
            raise
        except BaseException:
            self._failed("submitting failed after an internal error; see the log")
            raise
        own = next(signature for signature in signatures if _is_by(signature, self.witness.verifier))
        self.remember(checkpoint.size)
        if self.state.error:
            logger.warning("the witness %s cosigns again", self.witness.name)
        self.state = replace(self.state, size=checkpoint.size, cosigned=own.timestamp, error="", tries=0)
        return signatures

    def close(self) -> None:
        """Close the connection; a request in progress fails."""
        self._client.close()

    def _set_size(self, size: int) -> None:
        """Go on from what the witness says that it knows.

        Raises:
            WitnessUnreachable: it is less than what it has cosigned.
        """
        if size < self._cosigned_size:
            raise WitnessUnreachable(forgot("it", knows=size, cosigned=self._cosigned_size))
        self._size = size

    def _cosigned(self, note: bytes, checkpoint: Checkpoint) -> tuple[NoteSignature, ...]:
        nodes = tile_nodes(self._layout.root, checkpoint.size)
        for _ in range(_MAX_ROUNDS):
            if self._size > checkpoint.size:
                why = f"it knows size {self._size} already, and was asked to cosign {checkpoint.size}"
                self._compare(why)  # perhaps the store has less than it once had
                raise WitnessUnreachable(why)
            path = tuple(merkle.consistency_path(self._size, checkpoint.size, nodes))
            answer = self._client.submit(AddCheckpoint(old=self._size, proof=path, note=note))
            match answer:
                case Cosigned(lines):
                    return self._verified(note, lines)
                case Conflict(size) if size <= checkpoint.size and size != self._size:
                    self._set_size(size)
                case Conflict(size):
                    self._compare(f"it claims to know size {size}")
                case Refused(HTTPStatus.UNPROCESSABLE_ENTITY | HTTPStatus.CONFLICT as status, text):
                    self._compare(
                        f"it says that the checkpoint of size {checkpoint.size} does not extend the one that it knows ({status}, {text})"
                    )
                case Refused(status, text):
                    raise WitnessUnreachable(f"it refuses the checkpoint: {status} {text}")
                case unexpected:
                    assert_never(unexpected)
        raise WitnessUnreachable("it names another size each time it is asked")

    def _verified(self, note: bytes, lines: str) -> tuple[NoteSignature, ...]:
        """The right ones among the lines that a witness sent.

        Raises:
            WitnessUnreachable: they are no signature lines, one of a known key is wrong, or its own is not there.
        """
        text, _signatures = parse_note(note)
        try:
            found = open_note(f"{text}\n{lines}".encode(), self._known).verified
        except (MalformedError, VerificationError) as exc:
            raise WitnessUnreachable(f"what it sent is no cosignature of the checkpoint: {exc.message}") from exc
        if not any(_is_by(signature, self.witness.verifier) for signature in found):
            raise WitnessUnreachable("it sent a cosignature of another witness, and none of its own")
        return found

    def _compare(self, claim: str) -> None:
        """Look at what the witness knows; return if it is consistent with the store, so that the next try can start from there.

        Raises:
            NotAppendOnly: it contradicts the store.
            WitnessUnreachable: it has nothing to show for its claim.
        """
        theirs = self._client.newest(self._keys.origin)
        if theirs is None:
            raise WitnessUnreachable(f"{claim}, and shows no checkpoint")
        # After theirs was fetched: what we publish meanwhile cannot be missing.
        with storage_errors("reading", self._layout.checkpoint):
            ours = read_file(self._layout.checkpoint, limit=MAX_NOTE_BYTES)
        head = self._keys.open(ours)
        nodes = tile_nodes(self._layout.root, head.size)
        account = Account(keys=self._keys, nodes=nodes, size=head.size, root=head.root, signed=ours, evidence=self._evidence)
        try:
            checkpoint = account.compare(self.witness.name, theirs)
        except NotAppendOnly:
            raise
        except (MalformedError, VerificationError) as exc:
            raise WitnessUnreachable(f"{claim}, and shows a checkpoint that this log has not signed: {exc.message}") from exc
        self._set_size(checkpoint.size)

    def _failed(self, why: str) -> None:
        tries = self.state.tries + 1
        wait = min(_FIRST_WAIT_SECONDS * 2 ** min(tries - 1, _MOST_DOUBLINGS), _LONGEST_WAIT_SECONDS)
        # Jittered, or all who lost the same witness would come back in the same moment.
        self.due = self._monotonic() + wait * (0.5 + self._jitter() / 2)
        if why != self.state.error:
            logger.warning("the witness %s (%s): %s", self.witness.name, self.state.url, why)
        self.state = replace(self.state, error=why, tries=tries)


def _is_by(signature: NoteSignature, verifier: Verifier) -> bool:
    return (signature.name, signature.key_id) == (verifier.name, verifier.key_id)
