"""Files that appear whole or not at all."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamsr.errors import DiskFullError, DreamSRError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` if the block succeeds.

    Its bytes are on the disk before its name is: a power failure leaves the old file or the new one.
    """
    temporary = path.with_name(f"{hidden_stem(path)}-{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _settle(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write(path: Path, data: bytes) -> None:
    """Put a file in place, whole."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def _settle(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


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


def make_folder(path: Path) -> None:
    """Make a folder with those above it; raises DreamSRError in one line."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DreamSRError(f"the folder {path} cannot be made: {error.strerror or error}") from error
