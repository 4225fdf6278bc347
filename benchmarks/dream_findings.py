"""What can be said of the models of the study: means over seeds and pictures, with intervals over both."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from dream_scores import Score

from dreamsr.engine.statistics import RESAMPLES, SEED, Mean

Array = npt.NDArray[np.float64]
HIGHER = {"psnr_y": 1, "ssim_y": 1, "lpips": -1, "psnr_lr": 1}
"""1 where a higher value is better, else -1."""


class Group(NamedTuple):
    """Models that differ in their seeds alone, and how they are sampled."""

    method: str
    trained: int
    steps: int


def values(scores: Sequence[Score], group: Group, key: str) -> Array:
    """A measure by (seeds, pictures), both in order."""
    mine = sorted((s.seed, s.picture, getattr(s, key)) for s in scores if (s.method, s.trained, s.steps) == group)
    seeds = len({seed for seed, _, _ in mine})
    return np.array([value for _, _, value in mine]).reshape(seeds, -1)


def difference(scores: Sequence[Score], group: Group, reference: Group, key: str) -> Mean:
    """The mean of `group` - `reference`, of equal seeds and pictures."""
    table = values(scores, group, key) - values(scores, reference, key)
    return _with_interval(float(table.mean()), resampled_means(table))


def speedup(scores: Sequence[Score], curve: Sequence[Group], target: Group, key: str) -> Mean:
    """How many times fewer steps of training `curve` needs to be as good as `target`; 0: it never is."""
    table = np.stack([values(scores, group, key) for group in (*curve, target)]) * HIGHER[key]
    trained = [group.trained for group in curve]

    def ratio(means: Array) -> float:
        return target.trained / reached(trained, means[:-1], means[-1])

    return _with_interval(ratio(table.mean((1, 2))), np.array([ratio(means) for means in resampled_means(table)]))


def resampled_means(table: Array) -> Array:
    """Means of values (..., seeds, pictures) as (RESAMPLES, ...): both axes are drawn with replacement, each by itself.

    With three seeds their spread is underestimated, by a factor of sqrt(2/3).
    """
    random = np.random.default_rng(SEED)
    seeds, pictures = (random.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in table.shape[-2:])
    means: Array = np.einsum("rs,...sp,rp->r...", seeds, table, pictures, optimize=True)
    return means


def _with_interval(value: float, resampled: Array) -> Mean:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Mean(value, float(low), float(high), RESAMPLES)


def reached(steps: Sequence[int], curve: Sequence[float] | Array, goal: float) -> float:
    """The step at which a curve, linear in log(steps), first is at `goal` or above; infinity if it never is."""
    above = next((i for i, value in enumerate(curve) if value >= goal), None)
    if above is None:
        return math.inf
    if above == 0:
        return steps[0]
    share = (goal - curve[above - 1]) / (curve[above] - curve[above - 1])
    return float(steps[above - 1] * (steps[above] / steps[above - 1]) ** share)
