"""A power cut after an answer: what was promised is on the disk, names in directories included.

The sweeps of `test_crash_points.py` ask what recovery makes of a cut, and recovery can rebuild nearly everything. These ask for the bytes
themselves, where nothing could rebuild them: a checkpoint that others have seen, and a witness's only memory of what it cosigned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes import Disk
from outside import Witness
from stores import kill, new_home, request, seal, send, settle


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that never breaks by itself, with what lies in the directory `one`."""
    disk = Disk(tmp_path / "one", 10**9, "never")
    yield disk
    disk.remove()


def test_what_was_published_survives(tmp_path: Path, disk: Disk) -> None:
    home = new_home(tmp_path / "one", segment_records=1000)
    disk.install()
    writer = home.open()
    for seed in range(3):
        send(writer, request(seed, count=2))
        settle(writer)
    seal(writer)
    kill(writer)
    before = home.checkpoint, home.state.read(), home.files("records/*.parquet")
    disk.lose()
    disk.remove()
    assert (home.checkpoint, home.state.read(), home.files("records/*.parquet")) == before
    with home.writing():
        pass
    assert home.verify(against=[before[0]]).verdict == "verified"


def test_a_cosignature_that_left_survives(tmp_path: Path, disk: Disk) -> None:
    # Otherwise the witness could cosign another history after the cut: it has no other memory.
    home = new_home(tmp_path / "home", segment_records=1000)
    witness = Witness.make(home, tmp_path / "one")
    disk.install()
    for seed in range(2):
        with home.writing() as writer:
            send(writer, request(seed))
        assert witness.see(home).status == 200
        cosigned = witness.latest
        disk.lose()
        assert witness.latest == cosigned
        assert cosigned is not None
        assert cosigned.startswith(home.checkpoint)
