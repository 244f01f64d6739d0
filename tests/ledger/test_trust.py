"""What a verifier brings along: keys and how far each is believed, and the file that says so."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fixed_keys import fixed

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import BadSignature, MalformedError, StorageError, VerificationError
from ledger.merkle import EMPTY_ROOT, leaf_hash
from ledger.note import Signer
from ledger.trust import MAX_KEYS, LogKeys, Trust, TrustedKey

ORIGIN = "example.com/log"
OLD, NEW, THIRD = (fixed(ORIGIN, number) for number in range(3))
STRANGER = fixed("example.com/other")
WITNESS = fixed("witness.example").cosigner.vkey
NOBODY = "quorum none\n"


def note(size: int, *signers: Signer, origin: str = ORIGIN) -> bytes:
    """A checkpoint that they all have signed."""
    checkpoint = Checkpoint(origin, size, leaf_hash(b"x") if size else EMPTY_ROOT)
    first, *rest = signers
    return sign_checkpoint(checkpoint, first) + "".join(signer.sign(checkpoint.text()) for signer in rest).encode()


# TrustedKey


@pytest.mark.parametrize("end", ["", "@<=0", "@<=240", f"@<={(1 << 63) - 1}"])
def test_a_trusted_key_is_read_and_written(end: str) -> None:
    key = TrustedKey.parse(OLD.vkey + end)
    assert (key.verifier.vkey, key.spec) == (OLD.vkey, OLD.vkey + end)
    assert key.until == (int(end[3:]) if end else None)


@pytest.mark.parametrize(
    "end", ["@<=", "@<=-1", "@<=01", "@<= 1", "@<=1 ", "@<=1.0", "@<=1e3", "@<=٣", "@<=x", "@<=3@<=4", "@<", "@3", "<=3"]
)
def test_a_size_is_a_size(end: str) -> None:
    with pytest.raises(MalformedError):
        TrustedKey.parse(OLD.vkey + end)


@pytest.mark.parametrize("spec", ["", "@<=3", "name", "name+00000000+AAAA@<=3"])
def test_a_trusted_key_is_a_key(spec: str) -> None:
    with pytest.raises(MalformedError):
        TrustedKey.parse(spec)


# LogKeys


def test_log_keys_are_of_one_log() -> None:
    keys = LogKeys.of(f"{OLD.vkey}@<=3", NEW.verifier)
    assert keys.origin == ORIGIN
    assert keys.specs == (f"{OLD.vkey}@<=3", NEW.vkey)
    assert LogKeys.of(*keys.specs).specs == keys.specs
    with pytest.raises(MalformedError, match="several logs"):
        LogKeys.of(OLD.vkey, STRANGER.vkey)


def test_how_many_keys_a_log_may_have() -> None:
    specs = [f"{OLD.vkey}@<={number}" for number in range(MAX_KEYS + 1)]
    assert len(LogKeys.of(*specs[:-1]).keys) == MAX_KEYS
    with pytest.raises(MalformedError, match="not 65") as many:
        LogKeys.of(*specs)
    assert "leave out the oldest" in many.value.hint and "trail init --continues" in many.value.hint
    with pytest.raises(MalformedError, match="not 0") as none:
        LogKeys.of()
    assert "VKEY" in none.value.hint


def test_a_checkpoint_by_any_of_the_keys_opens() -> None:
    keys = LogKeys.of(OLD.vkey, NEW.vkey)
    for signers in ((OLD,), (NEW,), (OLD, NEW), (THIRD, NEW)):
        assert keys.open(note(7, *signers)).size == 7
    with pytest.raises(BadSignature):
        keys.open(note(7, THIRD))


def test_an_ended_key_is_believed_to_its_end_exactly() -> None:
    keys = LogKeys.of(f"{OLD.vkey}@<=240", NEW.vkey)
    assert [keys.open(note(size, OLD)).size for size in (0, 1, 240)] == [0, 1, 240]
    with pytest.raises(BadSignature, match="covers 241 records, and the key that signed it is believed up to 240") as late:
        keys.open(note(241, OLD))
    assert (late.value.expected, late.value.actual) == (240, 241)
    assert keys.open(note(241, NEW)).size == 241
    assert keys.open(note(241, OLD, NEW)).size == 241, "the new key's word is enough"


def test_two_ended_keys_end_where_the_later_one_does() -> None:
    keys = LogKeys.of(f"{OLD.vkey}@<=3", f"{NEW.vkey}@<=5")
    assert keys.open(note(5, OLD, NEW)).size == 5
    with pytest.raises(BadSignature, match="up to 5 only"):
        keys.open(note(6, OLD, NEW))
    with pytest.raises(BadSignature, match="up to 3 only"):
        keys.open(note(4, OLD))


def test_a_key_named_twice_is_believed_as_far_as_the_wider_of_the_two() -> None:
    for ends in (("@<=3", "@<=5"), ("@<=5", "@<=3")):
        keys = LogKeys.of(*(OLD.vkey + end for end in ends))
        assert (keys.open(note(5, OLD)).size, keys.until(OLD.verifier)) == (5, 5)
        with pytest.raises(BadSignature):
            keys.open(note(6, OLD))
    keys = LogKeys.of(f"{OLD.vkey}@<=3", OLD.vkey)
    assert (keys.open(note(6, OLD)).size, keys.until(OLD.verifier)) == (6, None)


def test_a_wrong_line_of_a_known_key_spoils_the_note() -> None:
    keys = LogKeys.of(OLD.vkey, NEW.vkey)
    mixed = note(4, NEW) + note(5, OLD).split(b"\n\n")[1]
    with pytest.raises(BadSignature):
        keys.open(mixed)
    assert LogKeys.of(NEW.vkey).open(mixed).size == 4, "a line by a key that nobody knows is none of our business"


def test_a_checkpoint_of_another_log_is_not_taken_for_ours() -> None:
    with pytest.raises(VerificationError, match="of another log") as other:
        LogKeys.of(OLD.vkey).open(note(4, OLD, origin="example.com/other"))
    assert not isinstance(other.value, BadSignature)


@pytest.mark.parametrize("junk", [b"", b"junk", b"a\nb\n\n", b"\xff\n\n\xe2\x80\x94 x y\n"])
def test_what_is_no_note_is_malformed(junk: bytes) -> None:
    with pytest.raises(MalformedError):
        LogKeys.of(OLD.vkey).open(junk)


def test_a_signed_text_that_is_no_checkpoint_is_malformed() -> None:
    with pytest.raises(MalformedError):
        LogKeys.of(OLD.vkey).open(f"{ORIGIN}\nfour\n\n{OLD.sign(f'{ORIGIN}{chr(10)}four{chr(10)}')}".encode())


def test_ends_of_others_hold_and_nothing_else_of_them() -> None:
    pinned = LogKeys.of(OLD.vkey, f"{NEW.vkey}@<=9", THIRD.vkey)
    stated = LogKeys.of(f"{OLD.vkey}@<=3", f"{NEW.vkey}@<=20", Signer.generate(ORIGIN).vkey)
    assert pinned.ended_by(stated).specs == (f"{OLD.vkey}@<=3", f"{NEW.vkey}@<=9", THIRD.vkey)
    assert pinned.ended_by(LogKeys.of(f"{OLD.vkey}@<=0")).keys[0].until == 0
    assert pinned.ended_by(LogKeys.of(f"{OLD.vkey}@<=3", OLD.vkey)).specs == pinned.specs, "it is believed without an end as well"


# Trust.load


def trust_file(directory: Path, *lines: str) -> Path:
    path = directory / "trust.toml"
    path.write_text("\n".join(lines))
    return path


def root_certificate() -> bytes:
    """A self-signed certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_an_empty_trust_file_believes_nothing(tmp_path: Path) -> None:
    assert Trust.load(trust_file(tmp_path)) == Trust(None, None, ())
    assert Trust.load(trust_file(tmp_path, "keys = []", "tsa_roots = []"), origin=ORIGIN) == Trust(None, None, ())


def test_a_whole_trust_file(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "policy").write_text(f"witness a {WITNESS}\nquorum a\n")
    (tmp_path / "root.pem").write_bytes(root_certificate())
    path = trust_file(
        tmp_path, f'keys = ["{OLD.vkey}@<=3", "{NEW.vkey}"]', 'policy = "beside/policy"', 'tsa_roots = ["root.pem", "root.pem"]'
    )
    trust = Trust.load(path)
    assert specs(trust) == (f"{OLD.vkey}@<=3", NEW.vkey)
    assert cosigner(trust) == ("a", WITNESS, "a")
    assert [root.serial_number for root in trust.tsa_roots] == [1, 1]


def test_a_policy_as_text_is_the_same_and_a_file_may_have_any_octets(tmp_path: Path) -> None:
    as_text = Trust.load(trust_file(tmp_path, 'policy_text = """', f"witness a {WITNESS}", "quorum a", '"""'))
    assert cosigner(as_text) == ("a", WITNESS, "a")
    (tmp_path / "policy").write_bytes(b"witness \xff " + WITNESS.encode() + b"\nquorum \xff\n")
    as_octets = Trust.load(trust_file(tmp_path, 'policy = "policy"'))
    assert as_octets.policy is not None
    assert as_octets.policy.is_met_by({b"\xff".decode("utf-8", "surrogateescape")})


def specs(trust: Trust) -> tuple[str, ...]:
    return trust.keys.specs if trust.keys is not None else ()


def cosigner(trust: Trust) -> tuple[str, str, str]:
    """The only witness of the policy: its name, its key, and the quorum."""
    assert trust.policy is not None
    (witness,) = trust.policy.witnesses
    return witness.name, witness.verifier.vkey, trust.policy.quorum


def with_logs(directory: Path, *logs: Signer, keys: str = "") -> Path:
    policy = "".join(f"log {log.vkey}\n" for log in logs) + NOBODY
    return trust_file(directory, keys, f'policy_text = """\n{policy}"""')


def test_a_log_line_never_widens_what_keys_says(tmp_path: Path) -> None:
    trust = Trust.load(with_logs(tmp_path, OLD, keys=f'keys = ["{OLD.vkey}@<=3"]'))
    assert specs(trust) == (f"{OLD.vkey}@<=3",)
    assert trust.keys is not None
    with pytest.raises(BadSignature):
        trust.keys.open(note(4, OLD))


def test_a_log_line_counts_for_a_key_that_keys_does_not_name(tmp_path: Path) -> None:
    assert specs(Trust.load(with_logs(tmp_path, OLD))) == (OLD.vkey,)
    both = Trust.load(with_logs(tmp_path, OLD, NEW, keys=f'keys = ["{OLD.vkey}@<=3"]'))
    assert specs(both) == (f"{OLD.vkey}@<=3", NEW.vkey)


def test_log_lines_of_other_logs_are_left_out(tmp_path: Path) -> None:
    both = with_logs(tmp_path, STRANGER, OLD)
    assert specs(Trust.load(both, origin=ORIGIN)) == (OLD.vkey,)
    assert specs(Trust.load(both, origin=STRANGER.name)) == (STRANGER.vkey,)
    with pytest.raises(MalformedError, match="several logs"):
        Trust.load(both)
    assert specs(Trust.load(with_logs(tmp_path, STRANGER, OLD, keys=f'keys = ["{NEW.vkey}"]'))) == (
        NEW.vkey,
        OLD.vkey,
    )


def test_a_trust_file_for_other_logs_only(tmp_path: Path) -> None:
    for path in (with_logs(tmp_path, STRANGER), with_logs(tmp_path, OLD, keys=f'keys = ["{STRANGER.vkey}"]')):
        with pytest.raises(VerificationError, match=r"is about the log example\.com/other"):
            Trust.load(path, origin=ORIGIN)
        assert specs(Trust.load(path)) == (STRANGER.vkey,)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("kyes = []", "unknown member 'kyes'"),
        ("keys = 'x'", "keys is not of the right type"),
        ("keys = [1]", "keys is not of the right type"),
        ("tsa_roots = 'root.pem'", "tsa_roots is not of the right type"),
        ("policy = ['x']", "policy is not of the right type"),
        ("policy_text = 3", "policy_text is not of the right type"),
        ("keys = ['x']", "not the length of a key"),
        (f"keys = ['{OLD.vkey}@<=x']", "not a canonical decimal number"),
        (f"keys = ['{OLD.vkey}', '{STRANGER.vkey}']", "several logs"),
        ("policy_text = 'quorum nobody'", "line 1"),
        ("policy_text = ''", "no quorum line"),
        ("keys = [", "is no trust file"),
        ("[keys]", "keys is not of the right type"),
    ],
)
def test_a_trust_file_with_a_mistake_in_it(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(MalformedError, match=says):
        Trust.load(trust_file(tmp_path, line))


def test_a_trust_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "trust.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedError, match="is no trust file"):
        Trust.load(tmp_path / "trust.toml")


@pytest.mark.parametrize("line", ["policy = 'nowhere'", "tsa_roots = ['nowhere.pem']"])
def test_a_file_that_a_trust_file_names_is_not_there(tmp_path: Path, line: str) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        Trust.load(trust_file(tmp_path, line))


def test_a_trust_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Trust.load(tmp_path / "trust.toml")


def test_a_root_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("junk")
    with pytest.raises(MalformedError):
        Trust.load(trust_file(tmp_path, "tsa_roots = ['root.pem']"))
