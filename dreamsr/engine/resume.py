"""Whether an output has to be made: what the manifest, the files and the settings say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamsr.engine.planning import Task
from dreamsr.files.manifest import Entry, Manifest, file_digest


@dataclass(frozen=True)
class Verdict:
    """What to do about an output, and why."""

    action: Literal["make", "skip", "settled"]
    """settled: another process was faster"""
    reason: str = ""
    entry: Entry | None = None


@dataclass(frozen=True)
class Judge:
    """Compares outputs with a manifest (None: there is none, and what exists is skipped)."""

    manifest: Manifest | None
    settings: str
    """Digest of the settings."""
    since: int = 0
    """Entries that were there when the job began."""
    overwrite: bool = False

    def __call__(self, task: Task) -> Verdict:
        # in this order: what another thread reads in between must not look like a picture of an earlier job
        entry = self.manifest.done(task.output) if self.manifest else None
        latest = self.manifest.since(self.since, task.output) if self.manifest else None
        if latest and latest.settings == self.settings:
            return Verdict("settled", entry=latest)
        made = _size(task.target)
        if self.overwrite or made is None:
            return Verdict("make")
        # its process was killed before it could note that it is done
        begun = self.manifest.begun(task.output) if self.manifest else None
        if begun and made == begun.output_bytes and _digest(task.target) == begun.output_sha256:
            entry = begun
        if entry is None:
            return Verdict("skip", "exists")
        if made != entry.output_bytes:
            return Verdict("skip", "exists and is not what was written")
        verdict = self._changes(task, entry)
        if verdict.action == "make" and entry.output_sha256 not in ("", _digest(task.target)):
            return Verdict("skip", "exists and is not what was written")
        return verdict

    def _changes(self, task: Task, entry: Entry) -> Verdict:
        if entry.settings != self.settings:
            return Verdict("make", "the settings changed")
        if not _same_input(task, entry):
            return Verdict("make", "the input changed")
        for path in task.files[1:]:
            if _size(path) is None:
                return Verdict("make", f"{path.name} is missing")
            if entry.beside is not None and path.name not in entry.beside:
                return Verdict("make", f"{path.name} is not of this picture")
        return Verdict("skip", entry=entry)


def _same_input(task: Task, entry: Entry) -> bool:
    """Size and time are enough; a file that was merely touched is read."""
    try:
        status = task.source.stat()
        if (status.st_size, status.st_mtime_ns) == (entry.input_bytes, entry.input_mtime_ns):
            return True
        return status.st_size == entry.input_bytes and file_digest(task.source) == entry.input_sha256
    except OSError:
        return False  # reading it will say what is wrong


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:
        return ""  # writing it will say what is wrong


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # writing it will say what is wrong
