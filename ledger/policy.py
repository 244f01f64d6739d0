"""Trust policies, c2sp.org/tlog-policy: which logs and witnesses are known, and which witnesses suffice together.

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> <k|any|all> <name>...
    quorum <name|none>

One item a line, separated by spaces and tabs; empty lines and lines that start with `#` are ignored. The same file serves whoever
submits checkpoints (it wants the URLs) and whoever verifies them (it does not). Only the verifier's own policy can make a checkpoint
*anchored*: a policy found beside a log says whom the log asked, not whom to believe.

The file is octets: a byte above 0x7F is opaque, and names that differ in a byte are two names however alike they look. Nothing here
reads a file or a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from ledger.errors import MalformedError
from ledger.note import SignatureType, Verifier, open_note, parse_note

MAX_POLICY_BYTES: Final = 1 << 20
"""The largest policy read."""

MAX_MEMBERS: Final = 1024
"""The most logs, the most witnesses and the most groups read; the specification asks for at least 32 of each."""

NO_QUORUM: Final = "none"
"""The quorum that asks for no cosignature, and a name that nothing may bear."""

_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_BLANKS = re.compile(rb"[ \t]+")
_COUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLog:
    """A log that the policy accepts checkpoints of; the name in its key is its origin."""

    verifier: Verifier
    url: str | None = None
    """Where the log can be read; what it means is the application's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWitness:
    """A witness that the policy knows."""

    name: str
    """What the policy calls it; it means nothing outside of the policy, and need not be the name in its key."""
    verifier: Verifier
    """Its cosignature key."""
    url: str | None = None
    """The prefix to submit checkpoints to (c2sp.org/tlog-witness)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGroup:
    """Witnesses and other groups of which so many have to agree."""

    name: str
    threshold: int
    """How many members suffice, from 1 to all of them."""
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """That a witness of the policy has cosigned: verified, never claimed."""

    witness: PolicyWitness
    timestamp: int
    """When, in seconds since the epoch, by the witness's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy; holding one made by `parse` means that it is well formed."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    """In the order of the file, so that members come before the groups that they are members of."""
    quorum: str
    """The witness or group that must have cosigned, or `none`."""

    @classmethod
    def parse(cls, text: str | bytes) -> Policy:
        """The policy in a file.

        A text with octets that are not UTF-8 is to be decoded with `surrogateescape`; names and URLs come out the same way.

        Raises:
            MalformedError: it is not a policy; the message starts with the line's number, from 1.
        """
        reading = _Reading()
        reading.read(text, {"log": reading.log, "witness": reading.witness, "group": reading.group, "quorum": reading.set_quorum})
        if reading.quorum is None:
            raise MalformedError("the policy has no quorum line", hint='add "quorum NAME", or "quorum none" to ask for no cosignature')
        return cls(logs=tuple(reading.logs), witnesses=tuple(reading.witnesses), groups=tuple(reading.groups), quorum=reading.quorum)

    @property
    def wants_cosignatures(self) -> bool:
        """Whether any cosignature is asked for at all; if not, being met says nothing."""
        return self.quorum != NO_QUORUM

    def is_met_by(self, names: Collection[str]) -> bool:
        """Whether the witnesses of these names (the policy's names for them) are a quorum.

        Names of groups and unknown ones do not count. `quorum none` is met by nobody at all: whether that is worth anything says
        `has_quorum`.
        """
        if not self.wants_cosignatures:
            return True
        met = {witness.name for witness in self.witnesses if witness.name in names}
        # Members precede their groups in the file, so one pass in its order is enough, however deep the groups are.
        for group in self.groups:
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return self.quorum in met

    def has_quorum(self, names: Collection[str]) -> bool:
        """Whether these witnesses confirm something: they are a quorum, and the policy asks for one at all."""
        return self.wants_cosignatures and bool(names) and self.is_met_by(names)

    def cosignatures(self, note: bytes) -> tuple[Cosignature, ...]:
        """The verified cosignatures on a checkpoint, in the order of the policy, at most one for each witness.

        The log's own signature is not looked at, here or anywhere in a policy: verify it first.

        Raises:
            MalformedError: it is not a note.
            BadSignature: a line of a witness that is known is wrong; then the whole note is (c2sp.org/signed-note).
        """
        known = {(witness.verifier.name, witness.verifier.key_id) for witness in self.witnesses}
        _text, lines = parse_note(note)
        if not any((line.name, line.key_id) in known for line in lines):
            return ()
        times = {
            (line.name, line.key_id): line.timestamp for line in open_note(note, [witness.verifier for witness in self.witnesses]).verified
        }
        found = []
        for witness in self.witnesses:
            timestamp = times.get((witness.verifier.name, witness.verifier.key_id))
            if timestamp is not None:
                found.append(Cosignature(witness=witness, timestamp=timestamp))
        return tuple(found)


def parse_logs(text: str | bytes) -> tuple[PolicyLog, ...]:
    """The logs in a file that has only the `log` lines of a policy: what a witness is told to cosign for.

    Raises:
        MalformedError: it has other lines, or one of them is malformed; the message starts with the line's number, from 1.
    """
    reading = _Reading()
    reading.read(text, {"log": reading.log})
    return tuple(reading.logs)


@dataclass(slots=True)
class _Reading:
    """What the lines so far have defined."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: list[PolicyGroup] = field(default_factory=list)
    quorum: str | None = None
    defined: set[str] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)
    """Names that are members of a group already; a second time would count one witness twice."""
    log_keys: set[bytes] = field(default_factory=set)
    witness_keys: set[bytes] = field(default_factory=set)
    ids: set[tuple[str, int]] = field(default_factory=set)

    def read(self, text: str | bytes, keywords: dict[str, Callable[[list[str]], None]]) -> None:
        """Read all lines, each by the function of its keyword.

        A last line without a newline is taken: a file that was cut at the end of a line could not be told from a whole one either.
        """
        try:
            data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as exc:
            raise MalformedError("the policy has a character that no octets stand for") from exc
        if len(data) > MAX_POLICY_BYTES:
            raise MalformedError(f"a policy of {len(data)} bytes is too large", expected=MAX_POLICY_BYTES, actual=len(data))
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                self._read_line(line, keywords)
            except MalformedError as exc:
                raise MalformedError(
                    f"line {number}: {exc.message}", hint=exc.hint, expected=exc.expected, actual=exc.actual, index=number
                ) from exc

    def _read_line(self, line: bytes, keywords: dict[str, Callable[[list[str]], None]]) -> None:
        if (wrong := _FORBIDDEN.search(line)) is not None:
            raise MalformedError(f"the control character 0x{wrong[0][0]:02x}", actual=wrong[0])
        content = line.strip(b" \t")
        if not content or content.startswith(b"#"):
            return
        keyword, *items = [item.decode("utf-8", "surrogateescape") for item in _BLANKS.split(content)]
        if keyword not in keywords:
            raise MalformedError(f"{keyword!r} is not one of {', '.join(keywords)}", expected=list(keywords), actual=keyword)
        keywords[keyword](items)

    def log(self, items: list[str]) -> None:
        """`log <vkey> [<url>]`."""
        if not 1 <= len(items) <= 2:
            raise MalformedError("a log has a key and perhaps a URL: log VKEY [URL]")
        verifier = _key(items[0], SignatureType.ED25519, "log")
        self._require_new_key(verifier, self.log_keys, "log")
        self.logs.append(PolicyLog(verifier=verifier, url=items[1] if items[1:] else None))

    def witness(self, items: list[str]) -> None:
        """`witness <name> <vkey> [<url>]`."""
        if not 2 <= len(items) <= 3:
            raise MalformedError("a witness has a name, a key and perhaps a URL: witness NAME VKEY [URL]")
        verifier = _key(items[1], SignatureType.COSIGNATURE, "witness")
        self._require_new_key(verifier, self.witness_keys, "witness")
        self._define(items[0])
        self.witnesses.append(PolicyWitness(name=items[0], verifier=verifier, url=items[2] if items[2:] else None))

    def group(self, items: list[str]) -> None:
        """`group <name> <k|any|all> <name>...`."""
        if len(items) < 3:
            raise MalformedError("a group has a name, a number and members: group NAME K|any|all NAME...")
        name, count, *members = items
        for member in members:
            self._require_defined(member)
            if member in self.grouped:
                raise MalformedError(f"{member!r} is a member of a group already", actual=member)
            self.grouped.add(member)
        threshold = {"any": "1", "all": str(len(members))}.get(count, count)
        if not _COUNT.fullmatch(threshold) or int(threshold) > len(members):
            raise MalformedError(f"{count!r} is not any, all, or a number from 1 to {len(members)}", actual=count)
        if len(self.groups) >= MAX_MEMBERS:
            raise MalformedError(f"more than {MAX_MEMBERS} groups", expected=MAX_MEMBERS)
        self._define(name)
        self.groups.append(PolicyGroup(name=name, threshold=int(threshold), members=tuple(members)))

    def set_quorum(self, items: list[str]) -> None:
        """`quorum <name|none>`."""
        if len(items) != 1:
            raise MalformedError("a quorum is one name: quorum NAME, or quorum none")
        if self.quorum is not None:
            raise MalformedError("a second quorum")
        if items[0] != NO_QUORUM:
            self._require_defined(items[0])
        self.quorum = items[0]

    def _define(self, name: str) -> None:
        if name == NO_QUORUM:
            raise MalformedError(f"the name {NO_QUORUM!r} is taken: it means that no cosignature is asked for")
        if name in self.defined:
            raise MalformedError(f"{name!r} is defined already; witnesses and groups share their names", actual=name)
        self.defined.add(name)

    def _require_defined(self, name: str) -> None:
        if name not in self.defined:
            raise MalformedError(f"{name!r} is no witness or group of a line before this one", actual=name)

    def _require_new_key(self, verifier: Verifier, keys: set[bytes], what: str) -> None:
        """One key under two names would count twice: what is compared is the key itself."""
        if verifier.public_key in keys:
            raise MalformedError(f"another {what} has the same public key, under this or another name", actual=verifier.vkey)
        if len(keys) >= MAX_MEMBERS:
            raise MalformedError(f"more than {MAX_MEMBERS} keys of one kind", expected=MAX_MEMBERS)
        # Whoever makes keys can make two that share the 32 bits of an ID; on a note they could not be told apart.
        if (verifier.name, verifier.key_id) in self.ids:
            raise MalformedError(f"another key has the name and ID {verifier.name}+{verifier.key_id:08x}")
        keys.add(verifier.public_key)
        self.ids.add((verifier.name, verifier.key_id))


def _key(vkey: str, kind: SignatureType, what: str) -> Verifier:
    verifier = Verifier.parse(vkey)
    if verifier.type is not kind:
        raise MalformedError(
            f"the key of a {what} has type 0x{kind:02x}, not 0x{verifier.type:02x}",
            hint="a log signs with type 0x01, a witness cosigns with type 0x04",
            expected=int(kind),
            actual=int(verifier.type),
        )
    return verifier
