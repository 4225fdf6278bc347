"""How a model is sampled."""

from dataclasses import dataclass
from typing import Literal

from dreamsr.config.checks import require

Grid = Literal["lambda", "time", "quadratic", "karras"]
SamplerName = Literal["ddim", "ddpm", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m", "deis", "unipc", "resshift"]


@dataclass(frozen=True)
class TunedGrid:
    """The sampler and the levels that `dreamsr tune` chose for a number of steps."""

    sampler: SamplerName
    lambdas: tuple[float, ...]
    """Increasing; as many as there are steps."""
    noise_scale: float
    """As that of SamplingConfig."""
    weights: str
    """Digest of the weights that it was tuned for; with others it is not used."""
    objective: str
    """What was minimised: `lpips` or `psnr`."""
    data: str
    """The pictures it was tuned on, in words."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled when the user does not say otherwise."""

    sampler: SamplerName = "ddim"
    steps: int = 4
    grid: Grid = "lambda"
    """Spacing of the levels: uniform in lambda, in time, in the square root of time, or Karras et al.'s."""
    lambda_start: float = -4.0
    """The first level of the grid; a single step is taken at the noisiest level of the process instead."""
    lambda_end: float = 2.0
    """The last evaluated level of the grid; the step after it ends at sigma = 0."""
    noise_scale: float = 1.0
    """Factor on the noise that sampling starts from; above 1 it leaves more texture."""
    fidelity: float = 0.0
    """From 0, the sample, to 1, the first estimate of the picture: their mixture."""
    tuned: tuple[TunedGrid, ...] = ()
    """What `dreamsr tune` found, for certain numbers of steps and certain weights."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "sampling.steps", "at least 1", self.steps)
        ends = (self.lambda_start, self.lambda_end)
        require(ends[0] < ends[1], "sampling.lambda_*", "lambda_start < lambda_end", ends)
        require(self.noise_scale >= 0, "sampling.noise_scale", "at least 0", self.noise_scale)
        require(0 <= self.fidelity <= 1, "sampling.fidelity", "between 0 and 1", self.fidelity)
