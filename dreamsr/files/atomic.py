"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamsr.errors import DreamSRError
from dreamsr.files.locks import sheltered
from dreamsr.files.paths import hidden_stem, unwritable


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` if the block succeeds.

    Its bytes are on the disk before its name is: a power failure leaves the old file or the new one.
    No `sweep` of another process takes it for a leftover.
    """
    temporary = path.with_name(f"{hidden_stem(path)}-{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with sheltered(path):
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


def make_folder(path: Path) -> None:
    """Make a folder with those above it; raises DreamSRError in one line."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DreamSRError(f"the folder {path} cannot be made: {error.strerror or error}") from error
