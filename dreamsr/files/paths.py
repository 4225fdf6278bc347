"""Where paths lead, what they are called, and what to say of one that cannot be written."""

import errno
import hashlib
import os
from pathlib import Path

from dreamsr.errors import DiskFullError, DreamSRError


def real(path: Path) -> Path:
    """Absolute and without links; unlike `Path.resolve`, it takes links that lead to themselves."""
    return Path(os.path.realpath(path))


def own_name(path: Path) -> str:
    """The last part of a path: of `.` and `..`, too, and of a link its own."""
    return Path(os.path.abspath(path)).name


def hidden_stem(path: Path) -> str:
    """How the hidden companions of a file begin: short, however long its own name is."""
    return f".dreamsr-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def unwritable(path: Path, error: OSError) -> DreamSRError:
    """What to tell the user when a file cannot be written."""
    message = f"{path} cannot be written: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return DiskFullError(message, "free some space and run the same command again")
    # the libraries behind some formats do not pass on why
    return DreamSRError(message, "" if error.errno else "is there room on the disk?")
