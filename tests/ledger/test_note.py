"""Signed notes: what Go writes is read, what Go or the specification forbids is refused, keys included."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadSignature, MalformedError
from ledger.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    MAX_TIMESTAMP,
    NoteSignature,
    SignatureType,
    Signer,
    Verifier,
    decode_base64,
    encode_base64,
    open_note,
    parse_note,
    sign,
)

TLOG = Path(__file__).parents[1] / "vectors" / "tlog-15"
TLOG_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493

# c2sp.org/CCTV/ed25519: every encoding of a point of small order, the six non-canonical ones included.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


def signer(name: str = "log.example/a", seed: int = 1) -> Signer:
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


LOG = signer()
WITNESS = signer("witness.example/w", 2)
TEXT = "log.example/a\n7\nsome text\n\nafter an empty line \N{EM DASH} and one more\n"
NOTE = sign(TEXT, [LOG])
UNKNOWN = "\N{EM DASH} other.example AAAAAAE=\n"


def with_lines(*lines: str, text: str = TEXT) -> bytes:
    return (text + "\n" + "".join(lines)).encode()


# ---- reading and writing


def test_a_note_as_go_writes_it() -> None:
    """A checkpoint signed by tessera, and the arithmetic of its key ID done by hand."""
    data = (TLOG / "checkpoint.15").read_bytes()
    note = open_note(data, [Verifier.parse(TLOG_KEY)])
    text, _, line = data.decode().partition("\n\n")
    assert note.text == text + "\n"
    [signature] = note.verified
    assert signature.line() == line
    key = base64.b64decode(TLOG_KEY.split("+", 2)[2])
    digest = hashlib.sha256(b"example.com/log/testdata\n" + key).digest()
    assert signature.key_id == int.from_bytes(digest[:4], "big") == 0x33D7B496


def test_signing_and_opening() -> None:
    note = open_note(NOTE, [LOG.verifier])
    assert note.text == TEXT
    assert [(line.name, line.timestamp) for line in note.verified] == [(LOG.name, None)]
    assert note.unverified == ()
    assert sign(TEXT, [LOG]) == NOTE, "Ed25519 signs the same text to the same bytes"


line_text = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]) | st.just("\n"), max_size=40).map(lambda text: text + "\n")


@given(line_text)
def test_any_text_comes_back(text: str) -> None:
    both = [LOG.verifier, WITNESS.verifier]
    assert open_note(sign(text, [LOG, WITNESS]), both).text == text


@given(st.binary(max_size=80) | line_text.map(str.encode))
def test_what_parses_is_written_the_same(data: bytes) -> None:
    for candidate in (data, data + b"\n" + UNKNOWN.encode()):
        try:
            text, lines = parse_note(candidate)
        except MalformedError:
            continue
        assert (text + "\n" + "".join(line.line() for line in lines)).encode() == candidate


@pytest.mark.parametrize("text", ["", "no newline", "a\rb\n", "a\tb\n", "a\0\n", "\ud800\n"])
def test_texts_that_no_note_can_have(text: str) -> None:
    with pytest.raises(MalformedError):
        sign(text, [LOG])


def test_a_text_cannot_run_into_the_signatures() -> None:
    with pytest.raises(MalformedError):
        sign("innocent\n\n\N{EM DASH} other.example AAAAAAE=", [LOG])
    with pytest.raises(MalformedError):
        sign(TEXT, [])


# ---- who has signed


def test_unknown_keys_say_nothing() -> None:
    stranger = signer("stranger.example", 3)
    data = with_lines(stranger.sign(TEXT), LOG.sign(TEXT), UNKNOWN)
    note = open_note(data, [LOG.verifier])
    assert [line.name for line in note.verified] == [LOG.name]
    assert [line.name for line in note.unverified] == ["stranger.example", "other.example"]
    with pytest.raises(BadSignature) as caught:
        open_note(data, [WITNESS.verifier])
    assert caught.value.expected == [WITNESS.vkey]
    with pytest.raises(BadSignature):
        open_note(data, [])


def test_an_unknown_key_with_the_same_name_is_unknown() -> None:
    impostor = signer(LOG.name, 4)
    assert impostor.verifier.key_id != LOG.verifier.key_id
    with pytest.raises(BadSignature):
        open_note(sign(TEXT, [impostor]), [LOG.verifier])
    note = open_note(sign(TEXT, [impostor, LOG]), [LOG.verifier])
    assert [line.key_id for line in note.verified] == [LOG.verifier.key_id]
    assert [line.key_id for line in note.unverified] == [impostor.verifier.key_id]


def test_a_wrong_signature_under_a_known_key_spoils_the_note() -> None:
    """Whoever writes the key's name and ID over garbage is not ignored, even beside a right signature."""
    wrong = NoteSignature(name=LOG.name, key_id=LOG.verifier.key_id, signature=bytes(64)).line()
    other = LOG.sign("another text\n")
    for lines in (
        [wrong],
        [other],
        [wrong, LOG.sign(TEXT)],
        [LOG.sign(TEXT), wrong],
        [LOG.sign(TEXT), other],
    ):
        with pytest.raises(BadSignature):
            open_note(with_lines(*lines), [LOG.verifier])
    with pytest.raises(BadSignature):
        open_note(with_lines(LOG.sign(TEXT), wrong), [LOG.verifier, WITNESS.verifier])


@pytest.mark.parametrize("size", [1, 63, 65, 72])
def test_a_signature_of_another_length_is_wrong(size: int) -> None:
    line = NoteSignature(name=LOG.name, key_id=LOG.verifier.key_id, signature=bytes(size)).line()
    with pytest.raises(BadSignature):
        open_note(with_lines(line), [LOG.verifier])


def test_a_key_that_signed_twice_counts_once() -> None:
    twice = with_lines(LOG.sign(TEXT), LOG.sign(TEXT), UNKNOWN, UNKNOWN)
    note = open_note(twice, [LOG.verifier])
    assert (len(note.verified), len(note.unverified)) == (1, 1)
    early, late = WITNESS.cosign(TEXT, 5), WITNESS.cosign(TEXT, 9)
    note = open_note(with_lines(early, late), [WITNESS.cosigner])
    assert [line.timestamp for line in note.verified] == [5]


def test_the_same_key_given_twice_is_one_key() -> None:
    assert len(open_note(NOTE, [LOG.verifier, Verifier.parse(LOG.vkey)]).verified) == 1


def test_two_keys_under_one_name_and_id_are_ambiguous() -> None:
    other = signer(LOG.name, 4).verifier
    other.key_id = LOG.verifier.key_id
    with pytest.raises(MalformedError):
        open_note(NOTE, [LOG.verifier, other])


@pytest.mark.parametrize("count", [16, 17, MAX_SIGNATURES])
def test_many_signatures_are_read(count: int) -> None:
    strangers = [f"\N{EM DASH} w{i}.example AAAAAAE=\n" for i in range(count - 1)]
    assert len(open_note(with_lines(*strangers, LOG.sign(TEXT)), [LOG.verifier]).unverified) == count - 1


def test_a_flood_is_not() -> None:
    with pytest.raises(MalformedError):
        open_note(with_lines(LOG.sign(TEXT), *[UNKNOWN] * MAX_SIGNATURES), [LOG.verifier])
    long = "x" * MAX_NOTE_BYTES + "\n"
    with pytest.raises(MalformedError):
        open_note(with_lines(LOG.sign(long), text=long), [LOG.verifier])


# ---- damage


def test_every_flipped_bit_is_noticed() -> None:
    for at in range(len(NOTE)):
        for bit in range(8):
            damaged = NOTE[:at] + bytes([NOTE[at] ^ 1 << bit]) + NOTE[at + 1 :]
            with pytest.raises((MalformedError, BadSignature)):
                open_note(damaged, [LOG.verifier])


def test_every_cut_is_noticed() -> None:
    for end in range(len(NOTE)):
        with pytest.raises((MalformedError, BadSignature)):
            open_note(NOTE[:end], [LOG.verifier])


LINE = LOG.sign(TEXT)
SIGNATURE = LINE.split(" ")[2].strip()
TRAPS = {
    "CRLF everywhere": NOTE.replace(b"\n", b"\r\n"),
    "CRLF after the signature": NOTE[:-1] + b"\r\n",
    "a space after the signature": NOTE[:-1] + b" \n",
    "a space before the signature": NOTE.replace(SIGNATURE.encode(), b" " + SIGNATURE.encode()),
    "a tab for the space": NOTE.replace(b" " + SIGNATURE.encode(), b"\t" + SIGNATURE.encode()),
    "no newline at the end": NOTE[:-1],
    "a blank line at the end": NOTE + b"\n",
    "text behind the signatures": NOTE + b"more\n",
    "no blank line": with_lines(LINE).replace(b"\n\n\xe2", b"\n\xe2"),
    "two blank lines": with_lines(LINE).replace(b"\n\n\xe2", b"\n\n\n\xe2"),
    "no signatures": TEXT.encode() + b"\n",
    "nothing": b"",
    "only newlines": b"\n\n\n",
    "no text": b"\n" + LINE.encode(),
    "a hyphen for the dash": NOTE.replace("\n\N{EM DASH} log".encode(), b"\n- log"),
    "an en dash": NOTE.replace("\n\N{EM DASH} log".encode(), "\n\N{EN DASH} log".encode()),
    "no space after the dash": NOTE.replace("\n\N{EM DASH} log".encode(), "\n\N{EM DASH}log".encode()),
    "two spaces after the dash": NOTE.replace("\n\N{EM DASH} log".encode(), "\n\N{EM DASH}  log".encode()),
    "a byte order mark": b"\xef\xbb\xbf" + NOTE,
    "UTF-16": NOTE.decode().encode("utf-16"),
    "not UTF-8": NOTE.replace(b"some", b"s\xffme"),
    "an overlong encoding": NOTE.replace(b"some", b"s\xc1\xafme"),
    "a surrogate": NOTE.replace(b"some", b"s\xed\xa0\x80me"),
    "a null": NOTE.replace(b"some", b"s\0me"),
    "no name": with_lines(f"\N{EM DASH} {SIGNATURE}\n"),
    "no signature": with_lines(f"\N{EM DASH} {LOG.name}\n"),
    "an empty signature": with_lines(f"\N{EM DASH} {LOG.name} \n"),
    "a plus in the name": with_lines(f"\N{EM DASH} a+b {SIGNATURE}\n"),
    "a no-break space in the name": with_lines(f"\N{EM DASH} a\N{NO-BREAK SPACE}b {SIGNATURE}\n"),
    "a line separator in the name": with_lines(f"\N{EM DASH} a\N{LINE SEPARATOR}b {SIGNATURE}\n"),
    "a key ID alone": with_lines(f"\N{EM DASH} {LOG.name} AAAAAA==\n"),
    "base64 without padding": NOTE.replace(SIGNATURE.encode(), SIGNATURE.rstrip("=").encode()),
    "base64 with more padding": NOTE.replace(SIGNATURE.encode(), SIGNATURE.encode() + b"===="),
    "base64 with junk": NOTE.replace(SIGNATURE.encode(), SIGNATURE[:8].encode() + b"!" + SIGNATURE[8:].encode()),
    "a malformed line beside a good one": with_lines(LINE, "\N{EM DASH} x y\n"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps(name: str) -> None:
    assert TRAPS[name] != NOTE
    with pytest.raises((MalformedError, BadSignature)):
        open_note(TRAPS[name], [LOG.verifier])


def test_base64_with_bits_in_its_padding_is_refused() -> None:
    """Python decodes it to the same bytes; several notes would otherwise carry one signature."""
    assert SIGNATURE.endswith("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = SIGNATURE.rstrip("=")[-1]
    other = SIGNATURE.replace(last + "=", alphabet[alphabet.index(last) + 1] + "=")
    assert base64.b64decode(other, validate=True) == base64.b64decode(SIGNATURE)
    with pytest.raises(MalformedError):
        open_note(NOTE.replace(SIGNATURE.encode(), other.encode()), [LOG.verifier])


@given(st.binary(max_size=20))
def test_base64_reads_back(data: bytes) -> None:
    assert decode_base64(encode_base64(data)) == data


@given(st.text("AZaz09+/=-_ \n\u00e9", max_size=12))
def test_base64_accepts_only_what_it_writes(text: str) -> None:
    try:
        data = decode_base64(text)
    except MalformedError:
        return
    assert encode_base64(data) == text


# ---- keys as strings


def test_keys_read_back() -> None:
    for verifier in (LOG.verifier, WITNESS.cosigner, Verifier.parse(TLOG_KEY)):
        again = Verifier.parse(verifier.vkey)
        assert (again.name, again.key_id, again.type) == (verifier.name, verifier.key_id, verifier.type)
        assert again.public_key == verifier.public_key
    signing = Signer.parse(LOG.encode())
    assert (signing.encode(), signing.vkey) == (LOG.encode(), LOG.vkey)
    assert signing.sign(TEXT) == LOG.sign(TEXT)
    assert Signer.generate("a").vkey != Signer.generate("a").vkey


def test_a_plus_in_the_base64_of_a_key_separates_nothing() -> None:
    plus = next(key for seed in range(256) if "+" in (key := signer("a", seed).vkey).split("+", 2)[2])
    assert Verifier.parse(plus).vkey == plus


def key_string(blob: bytes, name: str = "a") -> str:
    """A verifier key with a right key ID around any bytes."""
    digest = hashlib.sha256(name.encode() + b"\n" + blob).digest()
    return f"{name}+{digest[:4].hex()}+{encode_base64(blob)}"


KEY = LOG.verifier.public_key
BAD_KEYS = {
    "nothing": "",
    "a name": "a",
    "no key": "a+00000000",
    "a wrong key ID": TLOG_KEY.replace("33d7b496", "33d7b497"),
    "an upper-case key ID": TLOG_KEY.replace("33d7b496", "33D7B496"),
    "a long key ID": TLOG_KEY.replace("33d7b496", "033d7b496"),
    "another name": TLOG_KEY.replace("testdata", "testdata2"),
    "a newline at the end": TLOG_KEY + "\n",
    "a space at the start": " " + TLOG_KEY,
    "no name at all": key_string(b"\x01" + KEY, ""),
    "a space in the name": key_string(b"\x01" + KEY, "a b"),
    "type 0x02": key_string(b"\x02" + KEY),
    "type 0x06": key_string(b"\x06" + KEY),
    "a key cut short": key_string(b"\x01" + KEY[:-1]),
    "a key too long": key_string(b"\x01" + KEY + b"\0"),
    "no key bytes": key_string(b"\x01"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_verifier_keys(name: str) -> None:
    Verifier.parse(key_string(b"\x01" + KEY))
    with pytest.raises(MalformedError):
        Verifier.parse(BAD_KEYS[name])


def test_bad_private_keys_do_not_show_themselves() -> None:
    good = LOG.encode()
    secret = good.split("+")[-1]
    cosigning = base64.b64encode(b"\x04" + bytes([1]) * 32).decode()
    for bad in (
        "",
        LOG.vkey,
        good.replace("PRIVATE", "private"),
        good + "\n",
        good[:-1],
        good.replace(f"{LOG.verifier.key_id:08x}", "00000000"),
        good.replace(secret, cosigning),
        good.replace(secret, secret[:-1] + "!"),
    ):
        with pytest.raises(MalformedError) as caught:
            Signer.parse(bad)
        error = caught.value
        assert secret[:12] not in f"{error} {error.expected} {error.actual} {error.hint}"


def test_the_private_key_of_the_go_documentation_form() -> None:
    assert LOG.encode() == f"PRIVATE+KEY+log.example/a+{LOG.verifier.key_id:08x}+AQEB" + "AQEB" * 10


# ---- keys as points


@pytest.mark.parametrize("encoded", SMALL_ORDER)
def test_keys_of_small_order_are_refused(encoded: str) -> None:
    """Under such a key a signature can be right that nobody made; see below."""
    key = bytes.fromhex(encoded)
    with pytest.raises(MalformedError):
        Verifier.parse(key_string(b"\x01" + key))
    with pytest.raises(MalformedError):
        Verifier("a", key, SignatureType.COSIGNATURE)


def test_why_keys_of_small_order_are_refused() -> None:
    """Under the identity as a key, one signature fits every text. The library beneath does not mind."""
    identity = bytes.fromhex(SMALL_ORDER[4])
    for text in (b"anything", b"anything else"):
        Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), text)


def test_keys_of_another_length_are_refused() -> None:
    for length in (0, 31, 33):
        with pytest.raises(MalformedError):
            Verifier("a", KEY[:1] * length)


def test_keys_that_are_not_points_or_not_canonical_are_refused() -> None:
    for y in range(P, 2**255):  # all 19 of them
        for sign_bit in (0, 1 << 255):
            with pytest.raises(MalformedError):
                Verifier("a", (y | sign_bit).to_bytes(32, "little"))
    refused = 0
    for y in range(2, 202):
        try:
            Verifier("a", y.to_bytes(32, "little"))
        except MalformedError:
            refused += 1
    assert 70 < refused < 130, "about half of all y are on the curve"


@given(st.binary(min_size=32, max_size=32))
def test_keys_that_can_be_made_are_accepted(seed: bytes) -> None:
    made = Signer("a", Ed25519PrivateKey.from_private_bytes(seed))
    assert Verifier.parse(made.vkey).vkey == made.vkey


def test_a_signature_has_one_form() -> None:
    """S + L satisfies the same equation (RFC 8032 5.1.7 asks for S < L), and R is no other point."""
    line = parse_note(NOTE)[1][0]
    r, s = line.signature[:32], int.from_bytes(line.signature[32:], "little")
    LOG.verifier.verify(TEXT, r + s.to_bytes(32, "little"))
    for larger in (s + L, s + 8 * L):
        with pytest.raises(BadSignature):
            LOG.verifier.verify(TEXT, r + larger.to_bytes(32, "little"))
    for encoded in SMALL_ORDER:
        with pytest.raises(BadSignature):
            LOG.verifier.verify(TEXT, bytes.fromhex(encoded) + s.to_bytes(32, "little"))


# ---- cosignatures


def test_a_cosignature_carries_its_time() -> None:
    data = with_lines(LOG.sign(TEXT), WITNESS.cosign(TEXT, 1_679_315_147))
    note = open_note(data, [LOG.verifier, WITNESS.cosigner])
    assert [(line.name, line.timestamp) for line in note.verified] == [
        (LOG.name, None),
        (WITNESS.name, 1_679_315_147),
    ]
    assert len(base64.b64decode(data.decode().split(" ")[-1])) == 4 + 8 + 64


def test_the_form_of_the_specification() -> None:
    """The example of c2sp.org/tlog-cosignature; only its form, as its key is not published."""
    line = (
        "\N{EM DASH} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJs"
        "X3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    [signature] = parse_note(with_lines(line))[1]
    assert signature.line() == line
    assert len(signature.signature) == 72
    assert int.from_bytes(signature.signature[:8], "big") == 1_679_315_147


def test_the_message_of_a_cosignature() -> None:
    [line] = parse_note(with_lines(WITNESS.cosign(TEXT, 7)))[1]
    key = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32).public_key()
    key.verify(line.signature[8:], b"cosignature/v1\ntime 7\n" + TEXT.encode())
    digest = hashlib.sha256(b"witness.example/w\n\x04" + key.public_bytes_raw()).digest()
    assert line.key_id == WITNESS.cosigner.key_id == int.from_bytes(digest[:4], "big")


def test_the_time_of_a_cosignature_is_signed() -> None:
    [line] = parse_note(with_lines(WITNESS.cosign(TEXT, 7)))[1]
    assert WITNESS.cosigner.verify(TEXT, line.signature) == 7
    for time in (0, 6, 8, MAX_TIMESTAMP, MAX_TIMESTAMP + 1, 2**64 - 1):
        with pytest.raises(BadSignature):
            WITNESS.cosigner.verify(TEXT, time.to_bytes(8, "big") + line.signature[8:])
    for size in (0, 7, 8, 64, 71, 73):
        with pytest.raises(BadSignature):
            WITNESS.cosigner.verify(TEXT, line.signature[:1] * size)


def test_the_two_types_do_not_pass_for_each_other() -> None:
    plain, cosigned = LOG.sign(TEXT), LOG.cosign(TEXT, 7)
    assert LOG.vkey != LOG.cosigner.vkey
    with pytest.raises(BadSignature):
        open_note(with_lines(plain), [LOG.cosigner])
    with pytest.raises(BadSignature):
        open_note(with_lines(cosigned), [LOG.verifier])
    assert len(open_note(with_lines(plain, cosigned), [LOG.verifier, LOG.cosigner]).verified) == 2


@pytest.mark.parametrize("time", [-1, MAX_TIMESTAMP + 1])
def test_times_out_of_range_are_not_signed(time: int) -> None:
    with pytest.raises(MalformedError):
        WITNESS.cosign(TEXT, time)
