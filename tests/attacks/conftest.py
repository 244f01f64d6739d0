"""The store that is attacked: written once a module by the real writer, and copied for each attack."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import Home, small_store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three sealed segments, two of them with contents, and a tail in the journal; 21 records."""
    return small_store(tmp_path_factory.mktemp("attacked") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    """A copy to attack, with the key, the pin and the last-signed state of its owner."""
    return original.copy(tmp_path / "home")
