"""Means over pictures, what is known of them, and paired differences."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dreamsr.engine.evaluator import Row

RESAMPLES = 10_000
SEED = 0
METHOD = f"95 %, percentile bootstrap over pictures, {RESAMPLES} resamples, seed {SEED}"
_CHUNK = 100


@dataclass(frozen=True)
class Mean:
    """A mean over `count` pictures, with the ends of its 95 % interval; nan where that says nothing."""

    value: float
    low: float
    high: float
    count: int


Means = Mapping[str, Mean]
"""By measure."""


def mean(values: Iterable[float]) -> Mean:
    """Mean of the finite values; the value alone if none is finite.

    The interval is the percentile bootstrap's (Efron 1979), the same at every call.
    """
    given = list(values)
    known = np.array([v for v in given if math.isfinite(v)])
    if not len(known):
        return Mean(given[0] if given else math.nan, math.nan, math.nan, 0)
    low, high = _interval(known) if len(known) > 1 else (math.nan, math.nan)
    return Mean(float(known.mean()), low, high, len(known))


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    random, count = np.random.default_rng(SEED), len(values)
    chunks = [values[random.integers(count, size=(_CHUNK, count))].mean(1) for _ in range(RESAMPLES // _CHUNK)]
    low, high = np.quantile(np.concatenate(chunks), (0.025, 0.975))
    return float(low), float(high)


def means(rows: Sequence[Row]) -> dict[str, Means]:
    """Means of every method, in order of appearance; of the peak memory the largest."""
    return {
        method: {key: (_largest if key == "peak_mib" else mean)(values.values()) for key, values in scores.items()}
        for method, scores in _columns(rows).items()
    }


def _largest(values: Collection[float]) -> Mean:
    return Mean(max(values), math.nan, math.nan, len(values))


def differences(rows: Sequence[Row], method: str, reference: str) -> Means:
    """Mean differences `method` - `reference` over the pictures where both are finite, measure by measure."""
    columns = _columns(rows)
    ours, theirs = columns[method], columns[reference]
    return {
        key: mean(ours[key][name] - theirs[key][name] for name in ours[key] if math.isfinite(theirs[key][name]))
        for key in ours
        if key in theirs and key != "peak_mib"
    }


def _columns(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by method, measure and picture."""
    columns: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        for key, value in row.scores.items():
            columns.setdefault(row.method, {}).setdefault(key, {})[row.picture] = value
    return columns
