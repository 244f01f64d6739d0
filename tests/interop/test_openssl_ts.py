"""What we store is what `openssl ts -verify` reads: the checkpoint, the TimeStampResp over it, and the authority's root."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import tsa
from stores import request, send, settle, small_store
from tsa import OPENSSL, make_authority, needs_openssl

from ledger.anchors import timestamps, write_timestamp
from ledger.layout import Layout
from ledger.timestamps import fetch

pytestmark = [pytest.mark.interop, needs_openssl]


def openssl_verify(checkpoint: Path, token: Path, roots: Path) -> subprocess.CompletedProcess[str]:
    assert OPENSSL is not None
    return subprocess.run(
        [OPENSSL, "ts", "-verify", "-data", str(checkpoint), "-in", str(token), "-CAfile", str(roots)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("intermediate", [False, True])
def test_openssl_accepts_what_we_keep_and_nothing_else(tmp_path: Path, intermediate: bool) -> None:
    home = small_store(tmp_path / "home")
    authority = make_authority(tmp_path / "tsa", intermediate=intermediate)
    other = make_authority(tmp_path / "other", "Other")
    layout = Layout(home.store)
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        for seed in (98, 99):
            with home.writing() as writer:
                send(writer, request(seed))
                settle(writer)
            write_timestamp(layout, home.checkpoint, fetch(server.url, home.checkpoint, roots=authority.roots), url=server.url)
    (first, _, _), (second, _, _) = timestamps(layout)
    pairs = [(home.store / f"{name}.checkpoint", home.store / f"{name}.tsr") for name in (first, second)]
    for checkpoint, token in pairs:
        assert "Verification: OK" in openssl_verify(checkpoint, token, authority.roots_file).stdout
        assert openssl_verify(checkpoint, token, other.roots_file).returncode != 0
    (checkpoint, token), (another, _) = pairs
    refused = openssl_verify(another, token, authority.roots_file)
    assert refused.returncode != 0
    assert "message imprint mismatch" in refused.stderr
    assert checkpoint.read_bytes() != another.read_bytes()
