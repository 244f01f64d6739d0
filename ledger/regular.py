"""Opening ordinary files only.

In a store that a stranger hands over, a pipe, a device or a hole of a terabyte may lie where a file of a few kilobytes belongs, and would
keep its reader waiting for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it is not there, cannot be read, or is no ordinary file.
    """
    # Without waiting: opening a pipe for reading waits until somebody writes to it.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no ordinary file", str(path))
    return os.fdopen(fd, "rb")


def read_file(path: Path, *, limit: int) -> bytes:
    """The bytes of a small file.

    Raises:
        OSError: it is not there, is no ordinary file, is larger than `limit` bytes, or cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"has {size} bytes, more than {limit}", str(path))
        return file.read(limit)
