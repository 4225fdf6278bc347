"""The outcome of a benchmark, and its forms for people and programs."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamsr import __version__
from dreamsr.engine import statistics
from dreamsr.engine.evaluator import Benchmark, Facts, Results, Row
from dreamsr.engine.measure import COLUMNS
from dreamsr.engine.statistics import Mean, Means
from dreamsr.errors import DreamSRError
from dreamsr.files.page import Table


@dataclass(frozen=True)
class Evaluation:
    """Scores with all that they depend on."""

    rows: Sequence[Row]
    protocol: Facts
    methods: Mapping[str, Facts]
    """What is known of every method."""
    pairs: Sequence[tuple[str, str]] = ()
    """(method, reference) whose differences are wanted."""
    unpaired: Sequence[str] = ()
    """Pictures that were left out for want of a partner."""

    @property
    def pictures(self) -> list[str]:
        """Names of the pictures, in the order in which they were measured."""
        return list(dict.fromkeys(row.picture for row in self.rows))

    @cached_property
    def means(self) -> dict[str, Means]:
        """Means of every measure, by method."""
        return statistics.means(self.rows)

    @cached_property
    def differences(self) -> list[tuple[str, str, Means]]:
        """(method, reference, means of the paired differences), one for each of `pairs`."""
        return [(a, b, statistics.differences(self.rows, a, b)) for a, b in self.pairs]

    @property
    def infinite(self) -> list[str]:
        """Measures that are infinite since a picture equals its original, a line each."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for key, value in row.scores.items():
                if value == math.inf:
                    found.setdefault((row.method, key), []).append(row.picture)
        return [
            f"{method}: {key} is infinite (equal pictures) and left out of the mean: {', '.join(pictures)}"
            for (method, key), pictures in found.items()
        ]


def of(
    benchmark: Benchmark,
    rows: Sequence[Row],
    pairs: Sequence[tuple[str, str]],
    unpaired: Sequence[Path],
    broken: Collection[str] = (),
) -> Evaluation:
    """The outcome of a benchmark, without the pictures that turned out to be broken; DreamSRError if none is left."""
    rows = [row for row in rows if row.picture not in broken]
    if not rows:
        raise DreamSRError("no picture can be measured")
    methods = {contender.name: contender.facts for contender in benchmark.contenders}
    protocol = benchmark.measure.protocol(benchmark.scale, benchmark.inputs.degradation)
    if any(isinstance(contender, Results) and contender.cut for contender in benchmark.contenders):
        protocol["sizes"] = "pictures of different sizes were cut at the bottom and right to the smallest"
    return Evaluation(rows, protocol, methods, pairs, list(map(str, unpaired)))


def tables(evaluation: Evaluation) -> list[Table]:
    """Means with their intervals, and paired differences if there are any."""
    found = [_table(f"mean of {len(evaluation.pictures)}", evaluation.means)]
    if evaluation.pairs:
        found.append(_table("difference", {f"{a} - {b}": means for a, b, means in evaluation.differences}))
    return found


def _table(corner: str, lines: Mapping[str, Means]) -> Table:
    keys = _keys(lines.values())
    rows = [[name, *(cell(key, means.get(key)) for key in keys)] for name, means in lines.items()]
    return Table([corner, *keys], rows)


def cell(key: str, mean: Mean | None) -> str:
    """A mean with its interval in the digits of its measure, as in `27.31 (25.92..28.80)`."""
    if mean is None or math.isnan(mean.value):
        return "-"
    digits = COLUMNS[key].digits
    interval = "" if math.isnan(mean.low) else f" ({mean.low:.{digits}f}..{mean.high:.{digits}f})"
    return f"{mean.value:.{digits}f}{interval}"


def to_json(evaluation: Evaluation) -> str:
    """Everything; what is infinite or missing is null."""
    document = {
        "software": f"dreamsr {__version__}",
        "protocol": {**evaluation.protocol, "intervals": statistics.METHOD},
        "methods": evaluation.methods,
        **_summary(evaluation.means),
        "differences": [
            {"method": a, "against": b, **_summary({"difference": means})} for a, b, means in evaluation.differences
        ],
        "unpaired": evaluation.unpaired,
        "pictures": [
            {"picture": row.picture, "method": row.method, **{k: _finite(v) for k, v in row.scores.items()}}
            for row in evaluation.rows
        ],
    }
    return json.dumps(document, indent=2)


def _summary(lines: Mapping[str, Means]) -> dict[str, Any]:
    return {
        "means": {name: {k: _finite(m.value) for k, m in means.items()} for name, means in lines.items()},
        "intervals": {
            name: {k: [_finite(m.low), _finite(m.high)] for k, m in means.items()} for name, means in lines.items()
        },
        "counts": {name: {k: m.count for k, m in means.items()} for name, means in lines.items()},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def to_csv(evaluation: Evaluation) -> str:
    """A line a picture and method: its scores, what the method is, and the protocol, so that files can be joined."""
    scores = _keys(row.scores for row in evaluation.rows)
    facts = _keys(evaluation.methods.values())
    text = io.StringIO()
    writer = csv.DictWriter(text, ["picture", "method", *scores, *facts, *evaluation.protocol], lineterminator="\n")
    writer.writeheader()
    for row in evaluation.rows:
        known = {**evaluation.methods[row.method], **evaluation.protocol, **row.scores}
        writer.writerow({"picture": row.picture, "method": row.method, **known})
    return text.getvalue().rstrip("\n")


def _keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def to_markdown(evaluation: Evaluation) -> str:
    """The tables and remarks for a document."""
    blocks = [_markdown(table) for table in tables(evaluation)]
    return "\n\n".join([*blocks, "\n".join(f"* {line}" for line in remarks(evaluation))])


def _markdown(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(value.replace('|', chr(92) + '|') for value in line)} |" for line in lines)


def remarks(evaluation: Evaluation) -> list[str]:
    """Protocol, methods and what was left out, a line each."""
    return [
        *(f"{key}: {value}" for key, value in evaluation.protocol.items()),
        f"intervals: {statistics.METHOD}",
        *(f"{name}: {described(facts)}" for name, facts in evaluation.methods.items()),
        *evaluation.infinite,
        *(f"{path} has no partner and is left out" for path in evaluation.unpaired),
    ]


def described(facts: Facts) -> str:
    """Facts on one line, as `model bicubic-x4, steps 4, ...`; empty ones are left out."""
    return ", ".join(f"{key} {value}" for key, value in facts.items() if value != "")
