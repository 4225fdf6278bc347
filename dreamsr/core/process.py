"""The noising process in float64.

    u = k (x - anchor),   u_t = alpha u_0 + sigma eps,   lambda = log(alpha / sigma)

`t` runs from 0 (picture) to 1 (noise), lambda grows towards the picture. A level is a row
(alpha, sigma); both schedules are variance preserving: alpha^2 + sigma^2 = 1.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dreamsr.config import Grid, ProcessConfig
from dreamsr.errors import UsageError


@dataclass(frozen=True)
class Process:
    """Levels of a process and its change of variables between pictures and u."""

    config: ProcessConfig

    @cached_property
    def table(self) -> Tensor:
        """lambda of the rows t = 1/T .. 1 of a beta table, float64 (T,), decreasing."""
        c = self.config
        betas = torch.linspace(c.beta_start, c.beta_end, c.table, dtype=torch.float64)
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        return (log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))) / 2

    @property
    def span(self) -> tuple[float, float]:
        """(lambda_noise, lambda_image): what the network is trained on."""
        if self.config.schedule == "linear":
            return float(self.table[-1]), float(self.table[0])
        return self.config.lambda_noise, self.config.lambda_image

    def lambda_at(self, t: Tensor) -> Tensor:
        """lambda at times in (0, 1], float64; between the rows of a table it is linear in t."""
        t = t.to(torch.float64)
        if self.config.schedule == "cosine":
            return -torch.log(torch.tan(math.pi / 2 * t))
        return _interpolate(t, self._times, self.table)

    def time_at(self, lam: Tensor) -> Tensor:
        """The inverse of `lambda_at`."""
        lam = lam.to(torch.float64)
        if self.config.schedule == "cosine":
            return 2 / math.pi * torch.atan(torch.exp(-lam))
        return _interpolate(lam, self.table.flip(0), self._times.flip(0))

    @property
    def _times(self) -> Tensor:
        return torch.arange(1, self.config.table + 1, dtype=torch.float64) / self.config.table

    def levels(self, steps: int, grid: Grid = "lambda", span: tuple[float, float] | None = None) -> Tensor:
        """The levels of a sampling run: float64 (steps + 1, 2), from noise to the row (1, 0).

        `lambda` is uniform in lambda over `span` (default: the trained range). `time` steps
        t = t_noise (1 - i / steps), the usual spacing, kept for comparison: at few steps it
        leaves out the low noise levels where detail is made.
        """
        if steps < 1:
            raise UsageError(f"{steps} steps asked for; at least 1 is needed")
        start, end = self.span if span is None else span
        if grid == "lambda":
            return self.levels_at(torch.linspace(start, end, steps, dtype=torch.float64))
        t_noise = self.time_at(torch.tensor(start, dtype=torch.float64))
        self._check_time_grid(steps, float(t_noise))
        index = torch.arange(steps, dtype=torch.float64)
        return self.levels_at(self.lambda_at(t_noise * (1 - index / steps)))

    def levels_at(self, lambdas: Tensor) -> Tensor:
        """Levels of an explicit grid of increasing lambdas, the row (1, 0) appended."""
        lambdas = lambdas.to(torch.float64)
        if bool((lambdas.diff() <= 0).any()):
            raise UsageError(f"the grid {lambdas.tolist()} repeats a level or goes back to more noise")
        low, high = self.span
        if float(lambdas[0]) < low - 1e-9 or float(lambdas[-1]) > high + 1e-9:
            raise UsageError(
                f"the grid runs from lambda {float(lambdas[0]):.3f} to {float(lambdas[-1]):.3f}; "
                f"this model knows {low:.3f} to {high:.3f}"
            )
        return torch.cat([level(lambdas), torch.tensor([[1.0, 0.0]], dtype=torch.float64)])

    def draw(self, uniform: Tensor, first: Tensor) -> Tensor:
        """Training levels float64 (B, 2): uniform in t, and the noisiest level where `first`.

        uniform: (B,) in [0, 1);  first: (B,) bool.
        """
        ends = self.time_at(torch.tensor(self.span, dtype=torch.float64))
        t = ends[1] + uniform.to(torch.float64) * (ends[0] - ends[1])
        return level(self.lambda_at(torch.where(first, ends[0], t)))

    def to_u(self, x: Tensor, anchor: Tensor) -> Tensor:
        """Pictures in [-1, 1] to process variables of the same shape."""
        return self.config.k * (x - anchor) if self.config.anchored else self.config.k * x

    def to_x(self, u: Tensor, anchor: Tensor) -> Tensor:
        """The inverse of `to_u`."""
        return anchor + u / self.config.k if self.config.anchored else u / self.config.k

    def clip(self, u_0: Tensor, anchor: Tensor) -> Tensor:
        """The nearest u_0 whose picture lies in [-1, 1]."""
        k = self.config.k
        if not self.config.anchored:
            return u_0.clamp(-k, k)
        return torch.add(u_0, anchor, alpha=k).clamp_(-k, k).sub_(anchor, alpha=k)

    def _check_time_grid(self, steps: int, t_noise: float) -> None:
        t_image = float(self.time_at(torch.tensor(self.span[1], dtype=torch.float64)))
        largest = math.floor(t_noise / t_image + 1e-9)
        if steps > largest:
            raise UsageError(
                f"{steps} steps asked for; a grid uniform in time repeats a level above {largest}",
                f"use at most {largest} steps, or the grid uniform in lambda",
            )


def level(lam: Tensor) -> Tensor:
    """(alpha, sigma) of a variance-preserving process at lambda: (...,) to float64 (..., 2)."""
    lam = lam.to(torch.float64)
    return torch.stack([torch.sigmoid(2 * lam), torch.sigmoid(-2 * lam)], dim=-1).sqrt()


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear through increasing `xs`; the end pieces are extended."""
    if len(xs) == 1:
        return ys.expand_as(x)
    i = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    share = (x - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[i - 1] + share * (ys[i] - ys[i - 1])
