"""The log of a run: one JSON object a step or validation, each on a line of its own."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamsr.files.atomic import write
from dreamsr.files.paths import unwritable


def append(log: Path, values: Mapping[str, Any]) -> None:
    """Add a line; raises DreamSRError where that is not possible."""
    line = json.dumps(values, default=str)  # paths as text
    try:
        with log.open("a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise unwritable(log, error) from error


def forget(log: Path, step: int) -> None:
    """Drop what was logged after a step, whose state was saved last."""
    if log.exists():
        lines = [line for line in _lines(log) if _step(line) <= step]
        write(log, "".join(line + "\n" for line in lines).encode())


def has(log: Path, step: int, key: str) -> bool:
    """Whether something with `key` was logged at a step."""
    return any(_step(line) == step and key in json.loads(line) for line in _lines(log))


def _lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def _step(line: str) -> float:
    """The step of a line; infinity for one that a crash cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
