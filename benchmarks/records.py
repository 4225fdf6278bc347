"""Flat dataclasses of numbers and words as CSV files."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from dreamsr.files.atomic import atomic

R = TypeVar("R", bound=Any)


def read(kind: type[R], path: Path) -> list[R]:
    """The records of a file; none if it is not there."""
    if not path.exists():
        return []
    types: dict[str, Any] = {field.name: field.type for field in fields(kind)}
    with path.open(newline="") as file:
        return [kind(**{key: types[key](value) for key, value in row.items()}) for row in csv.DictReader(file)]


def write(path: Path, records: Sequence[Any]) -> None:
    """At least one record, all of one kind."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(records[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, records))
