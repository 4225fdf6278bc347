"""What a job made of what: one JSON object a line, appended by every process that works on the folder."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from dreamsr.errors import DreamSRError
from dreamsr.files.paths import unwritable

NAME = ".dreamsr.jsonl"


@dataclass(frozen=True)
class Entry:
    """What became of one output. Names are relative to the folders of the job, with forward slashes."""

    output: str
    input: str
    status: Literal["begun", "done", "failed"]
    """begun: whole, and about to take its name"""
    settings: str
    """Digest of everything besides the input that decides the bytes of the output."""
    model: str
    """Digest of the model's file."""
    seed: int
    compiled: bool = False
    """Whether the network was compiled, which changes the last bits."""
    input_sha256: str = ""
    input_bytes: int = 0
    input_mtime_ns: int = 0
    output_bytes: int = 0
    output_sha256: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    message: str = ""
    warnings: tuple[str, ...] = ()
    beside: tuple[str, ...] | None = None
    """Names of what was written with it, in the same folder: comparison, maps; None: not noted, as formerly."""
    agreement: float | None = None
    """PSNR between the picture, reduced again, and its input."""
    time: str = ""
    """When it was written, UTC, ISO 8601."""


class Manifest:
    """The manifest of an output folder: read once, then followed as this and other processes append to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.entries: list[Entry] = []
        """Of what has ended, in order; a job's own lie behind those that it found at its start."""
        self._position = 0
        self._last: dict[str, int] = {}
        self._done: dict[str, Entry] = {}
        self._begun: dict[str, Entry] = {}
        self._mutex = threading.Lock()
        self._lock = FileLock(folder / ".dreamsr.lock", thread_local=False, poll_interval=0.005)
        self.refresh()

    def done(self, output: str) -> Entry | None:
        """The entry of the last time that this output was made; None if it never was."""
        return self._done.get(output)

    def begun(self, output: str) -> Entry | None:
        """What was about to take the name of this output when its process was killed, or does so just now."""
        return self._begun.get(output)

    def since(self, count: int, output: str) -> Entry | None:
        """The last entry of this output behind the first `count` of `entries`; None if there is none."""
        index = self._last.get(output, -1)
        return self.entries[index] if index >= count else None

    def refresh(self) -> None:
        """Read what was appended since the last time; a line without its end is left for later."""
        with self._mutex:
            for line in self._new_lines():
                self._position += len(line)
                if entry := _parse(line):
                    self._take(entry)

    def _take(self, entry: Entry) -> None:
        if entry.status == "begun":
            self._begun[entry.output] = entry
            return
        self.entries.append(entry)
        self._last[entry.output] = len(self.entries) - 1  # `since` reads meanwhile
        if entry.status == "done":
            self._done[entry.output] = entry
            self._begun.pop(entry.output, None)

    def append(self, entry: Entry) -> None:
        """Add a whole line, also behind one that a crash tore."""
        line = json.dumps(asdict(entry)).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._mutex, self._lock, self.path.open("a+b") as file:
                end = file.seek(0, 2)
                file.seek(max(0, end - 1))
                torn = file.read(1) not in (b"", b"\n")
                file.write(b"\n" * torn + line)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _new_lines(self) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DreamSRError(f"{self.path} cannot be read: {error.strerror or error}") from error
        return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)


def digest(document: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_KNOWN = {f.name for f in fields(Entry)}


def _parse(line: bytes) -> Entry | None:
    """None for a torn line, or one that another version wrote in another shape."""
    try:
        document = {k: v for k, v in json.loads(line).items() if k in _KNOWN}
        lists = {key: tuple(value) for key, value in document.items() if isinstance(value, list)}
        entry = Entry(**document | lists)
        return entry if isinstance(entry.output, str) else None
    except (ValueError, TypeError, AttributeError):
        return None
