"""Compressed bodies: every coding, damage, bombs, and the account of bytes in flight."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest import bodies
from ingest.bodies import (
    BadEncoding,
    Budget,
    Coding,
    Overloaded,
    TooLarge,
    UnsupportedEncoding,
    decompress,
    parse_coding,
)

COMPRESS: dict[Coding, Callable[[bytes], bytes]] = {
    Coding.GZIP: gzip.compress,
    Coding.DEFLATE: zlib.compress,
    Coding.ZSTD: zstandard.compress,
}
compressed = pytest.mark.parametrize("coding", list(COMPRESS))
NO_LIMIT = 1 << 30


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, Coding.NONE),
        ("", Coding.NONE),
        ("identity", Coding.NONE),
        ("gzip", Coding.GZIP),
        (" GZip ", Coding.GZIP),
        ("x-gzip", Coding.GZIP),
        ("deflate", Coding.DEFLATE),
        ("zlib", Coding.DEFLATE),
        ("zstd", Coding.ZSTD),
    ],
)
def test_codings_by_name(header: str | None, coding: Coding) -> None:
    assert parse_coding(header) is coding


@pytest.mark.parametrize("header", ["br", "snappy", "gzip, gzip", "gzip;q=1"])
def test_other_codings_are_refused_with_a_list_of_ours(header: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate, zstd"):
        parse_coding(header)


@compressed
@given(st.binary(max_size=2_000), st.integers(0, 300))
def test_decompression_undoes_compression(coding: Coding, data: bytes, times: int) -> None:
    plain = data * times
    assert decompress(COMPRESS[coding](plain), coding, limit=len(plain)) == plain


@compressed
def test_a_body_larger_than_every_buffer(coding: Coding) -> None:
    noise = random.Random(7).randbytes(700_000)
    plain = noise + bytes(3_000_000) + noise
    assert decompress(COMPRESS[coding](plain), coding, limit=len(plain)) == plain


def test_an_uncompressed_body_is_handed_through() -> None:
    body = b"as it is"
    assert decompress(body, Coding.NONE, limit=100) is body


@compressed
def test_several_members_are_one_body_except_in_deflate(coding: Coding) -> None:
    body = COMPRESS[coding](b"one ") + COMPRESS[coding](b"two")
    if coding is Coding.DEFLATE:
        with pytest.raises(BadEncoding, match="after the end"):
            decompress(body, coding, limit=100)
    else:
        assert decompress(body, coding, limit=100) == b"one two"


@pytest.mark.parametrize("coding", [Coding.GZIP, Coding.ZSTD])
def test_an_endless_row_of_empty_members_is_refused(coding: Coding) -> None:
    body = COMPRESS[coding](b"") * (bodies.MEMBERS_MAX + 1)
    with pytest.raises(BadEncoding, match="members"):
        decompress(body, coding, limit=100)


@compressed
def test_cut_anywhere_it_is_incomplete(coding: Coding) -> None:
    body = COMPRESS[coding](random.Random(1).randbytes(300) + b"a" * 300)
    for end in range(len(body)):
        with pytest.raises(BadEncoding, match=r"incomplete|not \w+, as"):
            decompress(body[:end], coding, limit=NO_LIMIT)


@compressed
@pytest.mark.parametrize("damage", [b"not compressed at all", b"\x00" * 64, b"{}"])
def test_something_else_is_not_what_its_header_says(coding: Coding, damage: bytes) -> None:
    with pytest.raises(BadEncoding, match=coding.value):
        decompress(damage, coding, limit=NO_LIMIT)


@compressed
def test_data_behind_the_end_is_refused(coding: Coding) -> None:
    with pytest.raises(BadEncoding):
        decompress(COMPRESS[coding](b"plain") + b"more, not compressed", coding, limit=NO_LIMIT)


@compressed
def test_one_byte_over_the_limit_is_too_large(coding: Coding) -> None:
    plain = bytes(1_000_000)
    with pytest.raises(TooLarge, match="999999 bytes once decompressed"):
        decompress(COMPRESS[coding](plain), coding, limit=len(plain) - 1)


@compressed
def test_a_bomb_costs_its_limit_and_a_piece(coding: Coding) -> None:
    bomb = COMPRESS[coding](bytes(300_000_000))
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompress(bomb, coding, limit=4 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    piece = 8 << 20 if coding is Coding.ZSTD else bodies.PIECE_BYTES
    assert peak < (4 << 20) * 1.2 + 2 * piece


def test_a_zstd_window_larger_than_any_encoder_of_exporters_uses_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(BadEncoding, match="memory"):
        decompress(compressor.compress(b"x" * 1000) + compressor.flush(), Coding.ZSTD, limit=NO_LIMIT)


@compressed
def test_every_piece_is_accounted_for_before_it_is_kept(coding: Coding) -> None:
    budget = Budget(1_000_000)
    with budget.lease() as lease:
        decompress(COMPRESS[coding](bytes(900_000)), coding, limit=NO_LIMIT, take=lease.take)
        assert budget.taken == 900_000
        with pytest.raises(Overloaded) as refused:
            decompress(COMPRESS[coding](bytes(900_000)), coding, limit=NO_LIMIT, take=lease.take)
        assert refused.value.retry_after == 1
    assert budget.taken == 0


def test_a_budget_is_shared_and_given_back_whatever_happens() -> None:
    budget = Budget(10)
    with budget.lease() as first:
        first.take(6)
        with pytest.raises(Overloaded), budget.lease() as second:
            second.take(4)
            second.take(1)
        assert budget.taken == 6
        first.give(2)
        assert budget.taken == 4
    assert budget.taken == 0
