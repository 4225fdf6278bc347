"""Where paths lead, and what they are called."""

import os
from pathlib import Path


def real(path: Path) -> Path:
    """Absolute and without links; unlike `Path.resolve`, it takes links that lead to themselves."""
    return Path(os.path.realpath(path))


def own_name(path: Path) -> str:
    """The last part of a path: of `.` and `..`, too, and of a link its own."""
    return Path(os.path.abspath(path)).name
