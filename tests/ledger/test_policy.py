"""c2sp.org/tlog-policy: every rule of the page, and that a quorum is met by those that it names and nobody else."""

from __future__ import annotations

import itertools

import pytest
from fixed_keys import fixed
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import BadSignature, MalformedError
from ledger.merkle import EMPTY_ROOT
from ledger.note import Signer, Verifier
from ledger.policy import MAX_MEMBERS, MAX_POLICY_BYTES, Policy, parse_logs

LOG = fixed("example.com/log")
KEYS = [fixed(f"witness.example/{number}") for number in range(6)]
VKEYS = [signer.cosigner.vkey for signer in KEYS]
EXAMPLE = f"""
log {LOG.vkey}

witness X1 {VKEYS[0]}
witness X2 {VKEYS[1]}
witness X3 {VKEYS[2]}
group X-witnesses 2 X1 X2 X3

witness Y1 {VKEYS[3]}
witness Y2 {VKEYS[4]}
witness Y3 {VKEYS[5]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""
WITNESSES = "".join(f"witness w{number} {vkey}\n" for number, vkey in enumerate(VKEYS))


def note(*cosigners: Signer, time: int = 1_700_000_000) -> bytes:
    checkpoint = Checkpoint(LOG.name, 0, EMPTY_ROOT)
    signed = sign_checkpoint(checkpoint, LOG)
    return signed + "".join(signer.cosign(checkpoint.text(), time + place) for place, signer in enumerate(cosigners)).encode()


def refused(text: str | bytes) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        Policy.parse(text)
    return caught.value


def test_the_example_of_the_specification() -> None:
    policy = Policy.parse(EXAMPLE)
    assert [log.verifier.vkey for log in policy.logs] == [LOG.vkey]
    assert [witness.name for witness in policy.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert [(group.name, group.threshold) for group in policy.groups] == [("X-witnesses", 2), ("Y-witnesses", 1), ("X-and-Y", 2)]
    assert policy.quorum == "X-and-Y" and policy.wants_cosignatures


def test_the_example_is_met_by_exactly_the_sets_it_describes() -> None:
    policy = Policy.parse(EXAMPLE)
    names = [witness.name for witness in policy.witnesses]
    for count in range(len(names) + 1):
        for chosen in itertools.combinations(names, count):
            expected = sum(name[0] == "X" for name in chosen) >= 2 and any(name[0] == "Y" for name in chosen)
            assert policy.is_met_by(chosen) is expected, chosen


def test_names_of_groups_and_strangers_never_count() -> None:
    policy = Policy.parse(EXAMPLE)
    assert not policy.is_met_by({"X-and-Y", "X-witnesses", "Y-witnesses", "none", "stranger"})
    assert not policy.is_met_by(["X1", "X1", "Y1"])  # twice the same one


def test_a_quorum_of_one_witness_and_none() -> None:
    one = Policy.parse(f"witness a {VKEYS[0]}\nquorum a\n")
    assert one.is_met_by({"a"}) and not one.is_met_by(set())
    none = Policy.parse("quorum none\n")
    assert none.is_met_by(set()) and not none.wants_cosignatures


def test_nobody_is_never_a_quorum() -> None:
    known = f"witness a {VKEYS[0]}\nwitness b {VKEYS[1]}\n"
    for quorum, met in (("none", []), ("a", [{"a"}, {"a", "b"}, ["a", "stranger"]])):
        policy = Policy.parse(f"{known}quorum {quorum}\n")
        for names in ([], {"a"}, {"b"}, {"a", "b"}, ["a", "stranger"], ["none"]):
            assert policy.has_quorum(names) is (names in met), (quorum, names)


def test_white_space_comments_urls_and_the_order_of_lines() -> None:
    text = (
        f"  # a comment\n\t\nquorum   none\t\n \twitness\ta \t {VKEYS[0]}  http://w.example/x \n#witness nonsense\nlog {LOG.vkey} http://l"
    )
    policy = Policy.parse(text)
    assert policy.witnesses[0].url == "http://w.example/x"
    assert policy.logs[0].url == "http://l"


@pytest.mark.parametrize("name", ["2", "any", "all", "quorum", "#x", "a,b", "é", "日本"])
def test_names_may_be_anything_without_blanks(name: str) -> None:
    policy = Policy.parse(f"witness {name} {VKEYS[0]}\ngroup g all {name}\nquorum g\n")
    assert policy.is_met_by({name})


def test_names_are_octets_and_not_characters() -> None:
    kelvin, k, raw = "\u212a".encode(), b"K", b"\xff\xc3"
    lines = [b"witness " + name + b" " + vkey.encode() for name, vkey in zip((kelvin, k, raw), VKEYS, strict=False)]
    policy = Policy.parse(b"\n".join([*lines, b"quorum " + raw, b""]))
    assert len({witness.name for witness in policy.witnesses}) == 3
    assert [witness.name.encode("utf-8", "surrogateescape") for witness in policy.witnesses] == [kelvin, k, raw]
    assert policy.is_met_by({raw.decode("utf-8", "surrogateescape")})
    assert Policy.parse(b"\n".join([*lines, b"quorum " + raw, b""]).decode("utf-8", "surrogateescape")).quorum == policy.quorum


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"witness a {VKEYS[0]}\nquorum b\n", 2),  # never defined
        (f"quorum a\nwitness a {VKEYS[0]}\n", 1),  # defined after it
        (f"witness a {VKEYS[0]}\ngroup g any a b\nquorum g\n", 2),
        (f"witness a {VKEYS[0]}\ngroup g any a g\nquorum g\n", 2),  # itself
        (f"witness a {VKEYS[0]}\ngroup g any a none\nquorum g\n", 2),
        (f"witness a {VKEYS[0]}\ngroup g any a a\nquorum g\n", 2),  # counted twice
        (f"witness a {VKEYS[0]}\ngroup g any a\ngroup h any a\nquorum g\n", 3),  # in two groups
        (f"witness none {VKEYS[0]}\nquorum none\n", 1),
        (f"witness a {VKEYS[0]}\ngroup none any a\nquorum none\n", 2),
        (f"witness a {VKEYS[0]}\ngroup a any a\nquorum a\n", 2),  # one name space
        (f"witness a {VKEYS[0]}\nwitness a {VKEYS[1]}\nquorum a\n", 2),
        (f"witness a {VKEYS[0]}\nwitness b {VKEYS[0]}\nquorum a\n", 2),  # one key twice
        (f"log {LOG.vkey}\nlog {LOG.vkey}\nquorum none\n", 2),
        ("quorum none\nquorum none\n", 2),
        ("quorum none none\n", 1),
        ("quorum\n", 1),
        ("log\nquorum none\n", 1),
        (f"log {LOG.vkey} url more\nquorum none\n", 1),
        (f"witness {VKEYS[0]}\nquorum none\n", 1),
        (f"witness a {VKEYS[0]} url more\nquorum none\n", 1),
        (f"witness a {VKEYS[0]}\ngroup g any\nquorum g\n", 2),
        (f"witness a {VKEYS[0]}\ngroup g a\nquorum g\n", 2),
        ("nonsense\nquorum none\n", 1),
        ("Quorum none\n", 1),
        ("\ufeffquorum none\n", 1),
        ("quorum none\r\n", 1),
        ("quorum\x0bnone\n", 1),
        ("quorum none\x7f\n", 1),
        ("# in comments too \x00\nquorum none\n", 1),
        ("quorum none\n# \r\n", 2),
        ("quorum none\n# \x7f\n", 2),
        ("quorum none\n\x0c\n", 2),
        ("quorum none\n# \x1b\n", 2),
        ("quorum\u00a0none\n", 1),  # no space of Unicode separates
        (f"log {VKEYS[0]}\nquorum none\n", 1),  # a witness's key
        (f"witness a {LOG.vkey}\nquorum none\n", 1),  # a log's key
        (f"witness a {VKEYS[0]}x\nquorum none\n", 1),
        ("witness a b\nquorum none\n", 1),
    ],
)
def test_refused_with_the_number_of_the_line(text: str, line: int) -> None:
    error = refused(text)
    assert error.message.startswith(f"line {line}: ")
    assert error.index == line


@pytest.mark.parametrize("count", ["0", "4", "-1", "+1", "1_0", "01", " ", "1.0", "ANY", "\u0661", "9" * 5000])
def test_a_threshold_is_a_plain_number_from_one_to_all(count: str) -> None:
    refused(f"{WITNESSES}group g {count} w0 w1 w2\nquorum g\n")


def test_a_policy_without_a_quorum_is_none() -> None:
    assert "quorum" in refused(f"log {LOG.vkey}\n").message
    refused("")


def test_one_public_key_under_two_names_is_a_duplicate() -> None:
    renamed = Verifier("another.example/name", KEYS[0].cosigner.public_key, KEYS[0].cosigner.type)
    assert renamed.key_id != KEYS[0].cosigner.key_id
    refused(f"witness a {VKEYS[0]}\nwitness b {renamed.vkey}\nquorum none\n")
    refused(f"log {LOG.vkey}\nlog {Verifier('example.com/other', LOG.verifier.public_key).vkey}\nquorum none\n")
    # A log and a witness are different things, whoever runs them.
    Policy.parse(f"log {LOG.vkey}\nwitness a {LOG.cosigner.vkey}\nquorum none\n")


def test_two_keys_that_share_a_name_and_an_id_cannot_both_be_known() -> None:
    # Found by trying 170,092 keys: 32 bits are no obstacle to whoever makes keys.
    first = "witness.example/w+b4615282+BJ+Aag2bElQKf1JG94b+Zz6u1EcKACilljcbBKDa9M/l"
    second = "witness.example/w+b4615282+BFpAhjB9ObDXqvOZWkF60TMFFqr0oxWlsDiPvmgLvo9Z"
    for vkey in (first, second):
        Policy.parse(f"witness a {vkey}\nquorum a\n")
    assert "ID" in refused(f"witness a {first}\nwitness b {second}\nquorum a\n").message


def test_more_keys_than_any_policy_needs_are_refused() -> None:
    lines = [f"witness w{number} {Signer.generate('w.example/w').cosigner.vkey}" for number in range(MAX_MEMBERS + 1)]
    assert len(Policy.parse("\n".join([*lines[:-1], "quorum w0"])).witnesses) == MAX_MEMBERS
    assert refused("\n".join([*lines, "quorum w0"])).index == MAX_MEMBERS + 1


def test_a_text_that_stands_for_no_octets_is_refused() -> None:
    refused("# \ud800\nquorum none\n")


def test_thirty_two_of_each_and_a_bound() -> None:
    logs = [Signer.generate(f"example.com/{number}").vkey for number in range(32)]
    witnesses = [Signer.generate(f"w.example/{number}").cosigner.vkey for number in range(32)]
    lines = [f"log {vkey}" for vkey in logs] + [f"witness w{number} {vkey}" for number, vkey in enumerate(witnesses)]
    lines += [f"group g{number} all w{number} {f'g{number - 1}' if number else ''}" for number in range(32)]
    policy = Policy.parse("\n".join([*lines, "quorum g31", ""]))
    assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (32, 32, 32)
    everyone = {witness.name for witness in policy.witnesses}
    assert policy.is_met_by(everyone) and not policy.is_met_by(everyone - {"w0"})
    refused("#" * (MAX_POLICY_BYTES + 1))


def test_a_chain_of_groups_as_long_as_allowed_costs_no_stack_and_one_more_is_refused() -> None:
    groups = "group g0 all w0\n" + "".join(f"group g{number} all g{number - 1}\n" for number in range(1, MAX_MEMBERS))
    assert Policy.parse(f"{WITNESSES}{groups}quorum g{MAX_MEMBERS - 1}\n").is_met_by({"w0"})
    refused(f"{WITNESSES}{groups}group more all w1\nquorum more\n")


def test_logs_of_a_witness_are_log_lines_only() -> None:
    assert [log.verifier.vkey for log in parse_logs(f"# mine\n\nlog {LOG.vkey}\n")] == [LOG.vkey]
    assert parse_logs("") == ()
    for line in ("quorum none", f"witness a {VKEYS[0]}", f"log {VKEYS[0]}", f"log {LOG.vkey}\nlog {LOG.vkey}"):
        with pytest.raises(MalformedError, match="line "):
            parse_logs(line)


def test_cosignatures_are_verified_and_named_by_the_policy() -> None:
    policy = Policy.parse(EXAMPLE)
    found = policy.cosignatures(note(KEYS[4], KEYS[0], Signer.generate("stranger.example/w")))
    assert [(item.witness.name, item.timestamp) for item in found] == [("X1", 1_700_000_001), ("Y2", 1_700_000_000)]
    assert policy.cosignatures(note()) == ()
    assert policy.cosignatures(note(Signer.generate("witness.example/0"))) == ()  # the name of one that is known, another key


def test_a_wrong_line_of_a_known_witness_refuses_the_note() -> None:
    policy = Policy.parse(EXAMPLE)
    other = Checkpoint(LOG.name, 1, bytes(32))
    wrong = note(KEYS[0]) + KEYS[3].cosign(other.text(), 1).encode()
    with pytest.raises(BadSignature):
        policy.cosignatures(wrong)
    with pytest.raises(MalformedError):
        policy.cosignatures(b"no note\n")


def test_the_logs_own_signature_is_not_a_cosignature() -> None:
    policy = Policy.parse(f"witness log {LOG.cosigner.vkey}\nquorum log\n")
    assert policy.cosignatures(note()) == ()


@given(st.binary(max_size=200))
def test_any_octets_are_a_policy_or_malformed(data: bytes) -> None:
    for text in (data, b"quorum none\n" + data):
        try:
            Policy.parse(text)
        except MalformedError:
            continue


@given(st.lists(st.sampled_from(["w0", "w1", "g", "h", "none", "any", "all", "1", "2", "group", "quorum", "\n"]), max_size=14))
def test_no_arrangement_of_words_lets_one_witness_count_twice(words: list[str]) -> None:
    try:
        policy = Policy.parse("\n".join(WITNESSES.splitlines()[:2]) + "\n" + " ".join(words))
    except MalformedError:
        return
    members = [member for group in policy.groups for member in group.members]
    assert len(members) == len(set(members))
    assert policy.is_met_by(set()) is not policy.wants_cosignatures
    assert policy.is_met_by({"w0", "w1"})
