"""Searching the few levels that a model is best sampled at.

An elitist evolution on pairs of pictures, all candidates with the same noise (AutoDiffusion, arXiv 2309.10438,
and USF, arXiv 2312.07243, do the like with FID).
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dreamsr.config import Grid, ModelConfig, SamplerName, TunedGrid
from dreamsr.core.process import Process
from dreamsr.core.sampling import SAMPLERS
from dreamsr.data.degrade import Pairs
from dreamsr.engine import sources
from dreamsr.engine.memory import Frugal
from dreamsr.engine.schedule import Settings, schedule, usual_span
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, images
from dreamsr.files.checkpoint import Model
from dreamsr.metrics import LPIPS, luma, psnr, ssim

Objective = Literal["lpips", "psnr"]
PARENTS = 4
SPREAD = (0.5, 0.05)
"""Standard deviation of the moves in lambda, of the first and of the last trial; a tenth of it in log noise scale."""
GAP = 0.05
"""Least distance of two levels in lambda."""
LEAST = 32
"""Pixels on a side of a picture to tune on: smaller ones tell nothing, and SSIM has no value for them."""
_SIDE = 192
GRIDS: tuple[Grid, ...] = ("lambda", "karras")


@dataclass(frozen=True)
class Candidate:
    """A way to sample, as the search makes and scores it."""

    sampler: SamplerName
    lambdas: tuple[float, ...]
    """Increasing; one for every step."""
    noise_scale: float = 1.0


@dataclass(frozen=True)
class Trial:
    """A candidate with its score, and the best so far."""

    number: int
    candidate: Candidate
    score: float
    best: Candidate
    best_score: float


def search(
    score: Callable[[Candidate], float],
    first: Sequence[Candidate],
    limits: tuple[float, float],
    trials: int,
    seed: int,
) -> Iterator[Trial]:
    """Minimise `score`: all of `first`, then children of the best so far, up to `trials` in all.

    limits: the lowest and the highest lambda. Never worse than the best of `first`; the same under the same seed.
    """
    rng = random.Random(seed)
    known: list[tuple[float, Candidate]] = []
    for number in range(max(trials, len(first))):
        if number < len(first):
            candidate = first[number]
        else:
            spread = SPREAD[0] * (SPREAD[1] / SPREAD[0]) ** (number / trials)
            candidate = _child(rng.choice(known[:PARENTS])[1], limits, spread, rng)
        value = score(candidate)
        known.append((value, candidate))
        known.sort(key=lambda scored: scored[0])
        yield Trial(number + 1, candidate, value, known[0][1], known[0][0])


def _child(parent: Candidate, limits: tuple[float, float], spread: float, rng: random.Random) -> Candidate:
    moved = sorted(x + rng.gauss(0, spread) for x in parent.lambdas)
    sampler = rng.choice(_samplers(len(moved))) if rng.random() < 0.25 else parent.sampler
    noise_scale = parent.noise_scale * math.exp(rng.gauss(0, spread / 10))
    return Candidate(sampler, _apart(moved, limits), noise_scale)


def _samplers(steps: int) -> list[SamplerName]:
    """Those that draw no noise between the steps and need no more of them."""
    return [name for name, known in SAMPLERS.items() if known.variance is None and known.least_steps <= steps]


def _apart(lambdas: Sequence[float], limits: tuple[float, float]) -> tuple[float, ...]:
    """The nearest increasing lambdas, to four digits, that lie inside of the limits and at least GAP apart,
    or as far as there is room for."""
    low, high = limits
    gap = min(GAP, (high - low) / len(lambdas))
    result: list[float] = []
    for i, x in enumerate(lambdas):
        room = high - gap * (len(lambdas) - 1 - i)
        result.append(min(max(x, low if not result else result[-1] + gap), room))
    return tuple(max(low, math.floor(x * 1e4) / 1e4) for x in result)


def limits(model: Model) -> tuple[float, float]:
    """The lambdas that the model was trained on."""
    return Process(model.config.process).span


def starts(model: Model, steps: int) -> list[Candidate]:
    """What sampling is without tuning and with it, and other spacings and samplers between the same ends."""
    own, process = model.config.sampling, Process(model.config.process)
    usual = schedule(model.config.with_tuned(), Settings(steps=steps))
    found = [Candidate(usual.name, _lambdas(usual.levels), usual.noise_scale)]
    found += [Candidate(g.sampler, g.lambdas, g.noise_scale) for g in own.tuned if len(g.lambdas) == steps]
    for grid in GRIDS:
        lambdas = _lambdas(process.levels(steps, grid, usual_span(own, process)))
        found += [Candidate(name, lambdas, own.noise_scale) for name in _samplers(steps)]
    return list(dict.fromkeys(found))


def _lambdas(levels: Tensor) -> tuple[float, ...]:
    rows = levels[:-1]
    return tuple(torch.log(rows[:, 0] / rows[:, 1]).tolist())


def load_pairs(folder: Path, count: int, model: ModelConfig, low: Path | None = None) -> Pairs:
    """The middles, at most 192 x 192, of `count` pictures spread over a folder, and what a model is given of them.

    low: a folder of that, by name; else they are degraded as the model expects.
    """
    paths, partners = images.find(folder), sources.partners([folder], low, model.scale)
    if not paths:
        raise UsageError(f"no {images.KINDS} picture in {folder}")
    if partners:
        paths = [path for path in paths if path in partners.files]
    if not paths:
        raise UsageError(f"no picture of {low} has a partner of the same name in {folder}")
    chosen = [paths[i * len(paths) // count] for i in range(count)] if count < len(paths) else paths
    found = sources.middles(chosen, model, partners, _SIDE)
    large = [pair for pair in zip(found.inputs, found.originals, strict=True) if min(pair[1].shape[-2:]) >= LEAST]
    if not large:
        raise UsageError("; ".join([f"no picture in {folder} has {LEAST} pixels on a side", *found.unread[:1]]))
    return Pairs([lr for lr, _ in large], [hr for _, hr in large], found.unread)


def objective(model: Model, pairs: Pairs, kind: Objective, lpips: LPIPS | None) -> Callable[[Candidate], float]:
    """The mean over pairs of LPIPS + 1 - SSIM, or of minus PSNR, SSIM and PSNR on Y; lower is better.

    It is taken at fidelity 0, the end of the dial that levels and noise make a difference to; there SSIM is
    a guard against noise that LPIPS alone would take for texture.
    """
    scale = model.config.scale

    def distance(sr: Tensor, hr: Tensor) -> float:
        a, b = images.to_bytes(sr), images.to_bytes(hr)
        if lpips is None or kind == "psnr":
            return -psnr(luma(a), luma(b), scale)
        return lpips(images.to_unit(a), images.to_unit(b)) + 1 - ssim(luma(a), luma(b), scale)

    def score(candidate: Candidate) -> float:
        config = with_tuned(model, [_tuned(candidate, "", kind, "")]).config
        upscaler = Upscaler(replace(model, config=config), Settings(steps=len(candidate.lambdas), fidelity=0.0))
        outputs, _ = Frugal(upscaler)(pairs.inputs)
        return sum(distance(x.color, hr) for x, hr in zip(outputs, pairs.originals, strict=True)) / len(outputs)

    return score


def tuned_grid(model: Model, best: Candidate, kind: Objective, data: str) -> TunedGrid:
    """What goes into the model's file; data: the pictures in words."""
    return _tuned(best, checkpoint.weights_digest(model.network.state_dict()), kind, data)


def _tuned(best: Candidate, weights: str, kind: Objective, data: str) -> TunedGrid:
    return TunedGrid(best.sampler, best.lambdas, best.noise_scale, weights, kind, data)


def with_tuned(model: Model, grids: Sequence[TunedGrid]) -> Model:
    """The model with these grids in place of what it had for the same numbers of steps."""
    fresh = {len(grid.lambdas) for grid in grids}
    kept = [grid for grid in model.config.sampling.tuned if len(grid.lambdas) not in fresh]
    tuned = sorted([*kept, *grids], key=lambda grid: len(grid.lambdas))
    return replace(model, config=model.config.with_tuned(tuned))
