"""The sole right to make a file, among processes and machines that share a folder."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from dreamsr.files.paths import hidden_stem, unwritable

Claim = BaseFileLock
"""The right to make one file; `release` ends it."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems say that have files, but no locks on them."""
_COMPANION = re.compile(r"(\.dreamsr-[0-9a-f]{16})(?:-\d+\.part|\.lock)")


def claim(path: Path) -> Claim | None:
    """A lock on the right to make `path`, or None while another holds it; ends with `release` or the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _take(_lock(path))
    except OSError as error:
        raise unwritable(path, error) from error


def release(lock: Claim) -> None:
    """Give the right back and remove the file behind it."""
    # removed while held: whoever opened it before finds it without a name and opens a new one.
    # Windows refuses that, and its kind of lock removes the file itself
    with suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


@contextmanager
def sheltered(path: Path) -> Iterator[None]:
    """Inside, what is half-made for `path` is no leftover to a `sweep`: by a lock of its own, or by the claim on it."""
    try:
        lock = _take(_lock(path))
    except (OSError, NotImplementedError):  # without locks there is no job to sweep there, either
        lock = None
    try:
        yield
    finally:
        if lock:
            release(lock)


def sweep(folder: Path, target: Path | None = None) -> None:
    """Remove what killed processes left half-made in `folder`, or of `target` alone; the living keep theirs."""
    for path in folder.glob(f"{hidden_stem(target)}*" if target else ".dreamsr-*"):
        match = _COMPANION.fullmatch(path.name)
        with suppress(OSError):  # what cannot be removed does no harm
            if match and (lock := _take(folder / f"{match[1]}.lock")):
                try:
                    if path.suffix == ".part":
                        path.unlink(missing_ok=True)
                finally:
                    release(lock)


def _lock(path: Path) -> Path:
    return path.with_name(f"{hidden_stem(path)}.lock")


def _take(path: Path) -> Claim | None:
    # pictures are claimed in one thread and released in another
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            path.unlink(missing_ok=True)  # it was made to be locked
        raise
    return lock
