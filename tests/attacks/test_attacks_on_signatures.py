"""Attacks on the signature lines and the keys of a store's checkpoint, each through `verify`.

Three kinds of ending: what has another form than the one form of a note is *failed* and names `checkpoint`; what adds lines of keys that
nobody asked for changes nothing; what no known key has signed is a wrong key.
"""

from __future__ import annotations

import base64
import hashlib

import pytest
from attacks import FIRST, flip, require_failed
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from stores import ORIGIN, Home
from trail_process import run_trail

from ledger.errors import MalformedError
from ledger.keys import KeyFile
from ledger.note import MAX_SIGNATURES, Signer, Verifier, encode_base64, parse_note, sign
from tui.exits import Exit

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""One of the two y of the points of order 8."""
SMALL_ORDER = [(y | sign_bit << 255).to_bytes(32, "little") for y in (0, 1, P - 1, Y8, P - Y8, P, P + 1) for sign_bit in (0, 1)]
"""Every encoding of a point of small order, those that are not canonical included (c2sp.org/CCTV/ed25519 has the same fourteen)."""


def text_of(note: bytes) -> bytes:
    return note[: note.index(b"\n\n") + 1]


def lines_of(note: bytes) -> list[bytes]:
    return note[note.index(b"\n\n") + 2 :].splitlines(keepends=True)


def put(home: Home, text: bytes, *lines: bytes) -> None:
    """Make this the store's checkpoint."""
    (home.store / "checkpoint").write_bytes(text + b"\n" + b"".join(lines))


def line(name: str, key_id: int, signature: bytes) -> bytes:
    """A signature line with any bytes."""
    return f"— {name} {base64.b64encode(key_id.to_bytes(4, 'big') + signature).decode()}\n".encode()


def stranger(number: int = 0) -> Signer:
    """Another key under the name of the log."""
    return Signer.generate(ORIGIN) if number == 0 else Signer.generate(f"witness.example/{number}")


def signed_by(text: bytes, *signers: Signer) -> list[bytes]:
    return lines_of(sign(text.decode(), signers))


def refused(home: Home, why: str = "") -> None:
    """The checkpoint is false, named, and for this reason."""
    report = home.verify()
    require_failed(report, what="checkpoint", file="checkpoint")
    assert any(why in failure.why for failure in report.failures), report.failures


def accepted(home: Home) -> None:
    report = home.verify()
    assert (report.verdict, report.size, report.key) == ("verified", 21, "pinned"), report.as_json()


def test_12_a_wrong_key_always_fails(home: Home) -> None:
    report = home.verify(verifier=stranger().verifier)
    require_failed(report, what="checkpoint", file="checkpoint")
    assert report.key == "wrong"


def test_12_without_a_key_nothing_is_verified(home: Home) -> None:
    report = home.verify(verifier=None)
    assert (report.verdict, report.key, report.failures) == ("unverifiable", "unpinned", [])
    flip(home.store / FIRST, 500)
    assert home.verify(verifier=None).verdict == "failed", "what is false is false under any key"


def test_12_a_checkpoint_signed_by_another_key_of_the_same_name(home: Home) -> None:
    text = text_of(home.checkpoint)
    put(home, text, *signed_by(text, stranger()))
    refused(home, "not signed by the pinned key")
    assert home.verify().key == "wrong"


def test_17_the_same_line_twice_counts_once(home: Home) -> None:
    note = home.checkpoint
    put(home, text_of(note), *lines_of(note) * 2)
    accepted(home)


def test_17_a_second_line_of_the_key_that_is_wrong_spoils_the_note(home: Home) -> None:
    note = home.checkpoint
    good = parse_note(note)[1][0]
    wrong = line(good.name, good.key_id, bytes(64))
    for lines in ([lines_of(note)[0], wrong], [wrong, lines_of(note)[0]], [wrong]):
        put(home, text_of(note), *lines)
        refused(home, "is wrong")


def test_17_an_unknown_key_with_the_same_name_says_nothing(home: Home) -> None:
    note = home.checkpoint
    text = text_of(note)
    unknown = signed_by(text, stranger())
    for lines in ([*unknown, *lines_of(note)], [*lines_of(note), *unknown]):
        put(home, text, *lines)
        accepted(home)
    put(home, text, *unknown)
    refused(home)


def test_17_the_key_id_of_the_log_on_the_signature_of_another(home: Home) -> None:
    text = text_of(home.checkpoint)
    good = parse_note(home.checkpoint)[1][0]
    other = parse_note(sign(text.decode(), [stranger()]))[1][0]
    put(home, text, line(good.name, good.key_id, other.signature))
    refused(home)


@pytest.mark.parametrize("count", [16, 17, MAX_SIGNATURES - 1])
def test_17_many_signatures_are_read(home: Home, count: int) -> None:
    note = home.checkpoint
    text = text_of(note)
    others = signed_by(text, *(stranger(number + 1) for number in range(count)))
    put(home, text, *others, *lines_of(note))
    accepted(home)


def test_17_a_flood_of_signatures_is_refused(home: Home) -> None:
    note = home.checkpoint
    good = lines_of(note)
    for count in (MAX_SIGNATURES, 10_000):
        put(home, text_of(note), *good, *[line("a", number, bytes(64)) for number in range(count)])
        refused(home, "note")


LINE = {
    "CRLF": lambda text, lines: (text, [lines.replace(b"\n", b"\r\n")]),
    "CRLF in the text": lambda text, lines: (text.replace(b"\n", b"\r\n"), [lines]),
    "a space behind the signature": lambda text, lines: (text, [lines.replace(b"\n", b" \n")]),
    "a tab behind the signature": lambda text, lines: (text, [lines.replace(b"\n", b"\t\n")]),
    "a space before the line": lambda text, lines: (text, [b" " + lines]),
    "two spaces behind the dash": lambda text, lines: (text, [lines.replace("— ".encode(), "—  ".encode())]),
    "a hyphen for the dash": lambda text, lines: (text, [lines.replace("—".encode(), b"-")]),
    "no newline at the end": lambda text, lines: (text, [lines.rstrip(b"\n")]),
    "an empty line behind": lambda text, lines: (text, [lines, b"\n"]),
    "base64 without its padding": lambda text, lines: (text, [lines.replace(b"=\n", b"\n")]),
    "base64 with bits in its padding": lambda text, lines: (text, [_other_padding(lines)]),
    "base64 with a line break": lambda text, lines: (text, [lines[:-20] + b"\n" + lines[-20:]]),
    "base64url": lambda text, lines: (text, [_url(lines)]),
    "a text behind the signature": lambda text, lines: (text, [lines.replace(b"\n", b" x\n")]),
}


def _other_padding(lines: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = len(lines.rstrip(b"=\n")) - 1
    return lines[:at] + bytes([alphabet[alphabet.index(lines[at]) ^ 1]]) + lines[at + 1 :]


def _url(lines: bytes) -> bytes:
    head, _space, encoded = lines.rpartition(b" ")
    data = base64.b64decode(encoded)
    # The bytes that differ in the other alphabet: such a signature there always is among a few.
    return head + b" " + base64.urlsafe_b64encode(data[:-1] + b"\xff") + b"\n"


@pytest.mark.parametrize("name", LINE)
def test_17_a_signature_line_in_another_form(home: Home, name: str) -> None:
    note = home.checkpoint
    text, lines = LINE[name](text_of(note), b"".join(lines_of(note)))
    (home.store / "checkpoint").write_bytes(text + b"\n" + b"".join(lines))
    assert home.checkpoint != note
    refused(home)


TEXT = {
    "a size with a leading zero": (b"\n21\n", b"\n021\n"),
    "a size with a plus": (b"\n21\n", b"\n+21\n"),
    "a size with a space behind": (b"\n21\n", b"\n21 \n"),
    "a size with a space before": (b"\n21\n", b"\n 21\n"),
    "a size with an underscore": (b"\n21\n", b"\n2_1\n"),
    "a size in other digits": (b"\n21\n", "\n\N{FULLWIDTH DIGIT TWO}\N{FULLWIDTH DIGIT ONE}\n".encode()),
    "a hexadecimal size": (b"\n21\n", b"\n0x15\n"),
    "no size": (b"\n21\n", b"\n\n"),
    "a size of 2^63": (b"\n21\n", b"\n9223372036854775808\n"),
    "a root without its padding": (b"=\n", b"\n"),
    "a space behind the root": (b"=\n", b"= \n"),
    "a space behind the origin": (b"agents\n", b"agents \n"),
}


@pytest.mark.parametrize("name", TEXT)
def test_17_another_form_of_the_text_under_a_right_signature(home: Home, name: str) -> None:
    # The holder of the key signs it: the form alone is the reason to refuse, for another reader may read another size.
    key = KeyFile.load(home.key, origin=ORIGIN)
    old, new = TEXT[name]
    text = text_of(home.checkpoint).replace(old, new)
    assert text != text_of(home.checkpoint)
    put(home, text, key.signer.sign(text.decode()).encode())
    report = home.verify()
    require_failed(report, what="checkpoint", file="checkpoint")
    assert not any("not signed" in failure.why for failure in report.failures), "the signature is right"


def key_string(public_key: bytes) -> str:
    """A verifier key with a right key id around any bytes."""
    blob = b"\x01" + public_key
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n" + blob).hexdigest()[:8]
    return f"{ORIGIN}+{key_id}+{encode_base64(blob)}"


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_18_a_checkpoint_under_a_key_of_small_order(home: Home, key: bytes) -> None:
    # Under the identity one signature fits every text; whoever gets such a key pinned needs no private one.
    vkey = key_string(key)
    text = text_of(home.checkpoint)
    put(home, text, line(ORIGIN, int(vkey.split("+")[1], 16), SMALL_ORDER[2] + bytes(32)))
    with pytest.raises(MalformedError):
        Verifier.parse(vkey)
    refused(home)


def test_18_the_library_beneath_would_take_it() -> None:
    """Why the keys are refused before the signature is looked at."""
    identity = SMALL_ORDER[2]
    for text in (b"anything", b"anything else"):
        Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), text)


def test_18_the_command_refuses_such_a_key(home: Home) -> None:
    ran = run_trail("verify", "--store", home.store, "--key", key_string(SMALL_ORDER[2]), "--json")
    assert ran.code in (Exit.USAGE, Exit.UNVERIFIABLE), ran.err
    assert ran.out == ""


def test_18_keys_that_are_not_canonical(home: Home) -> None:
    for y in range(P, 2**255):  # all 19 of them
        for sign_bit in (0, 1 << 255):
            with pytest.raises(MalformedError):
                Verifier.parse(key_string((y | sign_bit).to_bytes(32, "little")))


def test_18_a_signature_of_the_log_in_another_form(home: Home) -> None:
    """S + L satisfies the same equation (RFC 8032 5.1.7 asks for S < L), and R is no other point, least of all one of small order."""
    note = home.checkpoint
    good = parse_note(note)[1][0]
    r, s = good.signature[:32], int.from_bytes(good.signature[32:], "little")
    put(home, text_of(note), line(good.name, good.key_id, good.signature))
    accepted(home)
    others = [r + larger.to_bytes(32, "little") for larger in (s + L, s + 8 * L)]
    others += [point + s.to_bytes(32, "little") for point in SMALL_ORDER]
    others += [point + bytes(32) for point in SMALL_ORDER]
    for other in others:
        put(home, text_of(note), line(good.name, good.key_id, other))
        refused(home)


def test_18_signatures_of_another_length(home: Home) -> None:
    note = home.checkpoint
    good = parse_note(note)[1][0]
    for data in (b"", good.signature[:-1], good.signature + b"\0", good.signature * 2):
        put(home, text_of(note), line(good.name, good.key_id, data))
        refused(home)
