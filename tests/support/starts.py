"""Starts that must be refused."""

from __future__ import annotations

import pytest
from stores import Home

from ledger.errors import NotAppendOnly, StorageError


def require_refused(home: Home, *words: str) -> StorageError | NotAppendOnly:
    """The start is refused with a sentence and a hint, twice over, and nothing but temporary files has changed."""
    before = {path: path.read_bytes() for path in home.files("**/*") if path.is_file() and path.name != "lock"}
    for _ in range(2):
        with pytest.raises((StorageError, NotAppendOnly)) as caught:
            home.open()
        for word in words:
            assert word in str(caught.value)
        assert caught.value.hint
    after = {path: path.read_bytes() for path in home.files("**/*") if path.is_file() and path.name != "lock"}
    assert {path for path in before if before[path] != after.get(path) and "tile" not in path.parts} == set()
    return caught.value
