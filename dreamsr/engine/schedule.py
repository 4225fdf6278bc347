"""Which levels a run of the sampler visits, with which solver, from which noise: options, tuning and model together."""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor

from dreamsr.config import Grid, ModelConfig, SamplerName, SamplingConfig, TunedGrid
from dreamsr.core.process import Process
from dreamsr.core.sampling import SAMPLERS, Sampler
from dreamsr.errors import UsageError

AUTO = "auto"
GRIDS: tuple[Grid, ...] = get_args(Grid)


@dataclass(frozen=True)
class Settings:
    """How to sample; what is None or `auto` comes from the model's configuration, or from the device."""

    steps: int | None = None
    sampler: str = AUTO
    grid: str = AUTO
    """Name of a spacing, or the lambdas themselves: `-4,-1,0.5,2`."""
    seed: int = 0
    tile: int | None = None
    """Largest side of a tile in output pixels."""
    batch: int | None = None
    """Tiles of one network call."""
    fidelity: float | None = None
    """From 0, the sample with all its texture, to 1, the mean picture: one step."""
    samples: int = 1
    """Samples of different noise whose mean is the picture."""
    consistency: float = 0.0
    """From 0 to 1: how far every estimate is moved to where its reduction is the input."""

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch-size", self.batch), ("samples", self.samples)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} is {value}; expected a whole number of at least 1")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"--seed is {self.seed}; expected a whole number from 0 to 2^64 - 1")
        for name, share in (("fidelity", self.fidelity), ("consistency", self.consistency)):
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"--{name} is {share:g}; expected a number from 0 to 1")
        if self.sampler not in (AUTO, *SAMPLERS):
            raise UsageError(f"sampler {self.sampler!r} is unknown", f"use one of {', '.join((AUTO, *SAMPLERS))}")
        if self.grid not in (AUTO, *GRIDS):
            lambdas = parse_grid(self.grid)
            if self.steps not in (None, len(lambdas)):
                raise UsageError(f"--grid names {len(lambdas)} levels, --steps is {self.steps}", "leave --steps out")


@dataclass(frozen=True)
class Schedule:
    """What a run of the sampler does."""

    name: SamplerName
    levels: Tensor
    """float64 (steps + 1, 2), from noise to the row (1, 0)."""
    noise_scale: float
    grid: str
    """The spacing, in words."""
    fidelity: float = 1.0
    """Share of the first estimate in the picture."""

    @property
    def words(self) -> str:
        """The sampler and the spacing of its levels, for people."""
        return f"{self.name}, {self.grid}"

    @property
    def sampler(self) -> Sampler:
        return SAMPLERS[self.name]

    @property
    def steps(self) -> int:
        return len(self.levels) - 1


def schedule(config: ModelConfig, settings: Settings) -> Schedule:
    """The schedule of a run; raises UsageError for settings that do not fit the model or one another.

    `auto` takes what was tuned for these weights and this number of steps, else the model's own sampler and grid.
    """
    own, process = config.sampling, Process(config.process)
    fidelity = own.fidelity if settings.fidelity is None else settings.fidelity
    if fidelity == 1:
        return _single(process)
    lambdas = parse_grid(settings.grid) if settings.grid not in (AUTO, *GRIDS) else ()
    steps = len(lambdas) or settings.steps or own.steps
    tuned = _tuned(own, steps) if (settings.sampler, settings.grid) == (AUTO, AUTO) else None
    if tuned:
        levels, words = _explicit(process, tuned.lambdas), f"tuned, {tuned.objective}"
        return Schedule(tuned.sampler, levels, tuned.noise_scale, words, fidelity)
    name = _sampler(config, settings.sampler, steps)
    if lambdas:
        return Schedule(name, _explicit(process, lambdas), own.noise_scale, settings.grid, fidelity)
    if steps == 1:
        return _single(process)
    grid = own.grid if settings.grid == AUTO else cast(Grid, settings.grid)
    span = usual_span(own, process)
    levels = process.levels(steps, grid, span)
    return Schedule(name, levels, own.noise_scale, f"{grid} {span[0]:.4g} {span[1]:.4g}", fidelity)


def usual_span(own: SamplingConfig, process: Process) -> tuple[float, float]:
    """The first and last lambda of a model's own grids, as far as its process has them: a table may end before."""
    return max(own.lambda_start, process.span[0]), min(own.lambda_end, process.span[1])


def parse_grid(text: str) -> tuple[float, ...]:
    """Lambdas from text like `-4,-1,0.5,2`; raises UsageError for any other."""
    with suppress(ValueError):
        lambdas = tuple(float(part) for part in text.split(","))
        if all(map(math.isfinite, lambdas)):
            return lambdas
    raise UsageError(
        f"grid {text!r} is unknown", f"use one of {', '.join((AUTO, *GRIDS))}, or lambdas: --grid=-4,-1,0.5,2"
    )


def _single(process: Process) -> Schedule:
    """One step, taken where training puts its extra share of samples."""
    return Schedule("ddim", _explicit(process, process.span[:1]), 1.0, "single")


def _explicit(process: Process, lambdas: tuple[float, ...]) -> Tensor:
    return process.levels_at(torch.tensor(lambdas, dtype=torch.float64))


def _tuned(own: SamplingConfig, steps: int) -> TunedGrid | None:
    return next((grid for grid in own.tuned if len(grid.lambdas) == steps), None)


def _sampler(config: ModelConfig, asked: str, steps: int) -> SamplerName:
    """The sampler that was asked for, or the model's own as far as it can do with these steps."""
    name = config.sampling.sampler if asked == AUTO else cast(SamplerName, asked)
    if name == "resshift" and config.process.schedule != "resshift":
        raise UsageError(
            f"sampler resshift is made for ResShift's process; this model has {config.process.schedule}",
            "use --sampler ddpm for noise at every step, or unipc",
        )
    least = SAMPLERS[name].least_steps
    if steps >= least:
        return name
    if asked == AUTO:
        return "ddim"
    raise UsageError(
        f"sampler {name} needs at least {least} steps, {steps} asked for", f"use --steps {least}, or --sampler ddim"
    )
