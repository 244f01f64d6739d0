"""How the user can call `trail` again: by name, or by the path it was called by when the name is not on the PATH (`make demo`)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def own_name() -> str:
    """What to type for `trail`."""
    script = Path(sys.argv[0])
    if shutil.which("trail") or script.name != "trail":
        return "trail"
    try:
        return os.path.relpath(script)
    except ValueError:  # another drive
        return str(script)
