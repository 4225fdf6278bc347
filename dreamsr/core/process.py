"""The noising process in float64.

    u = k (x - anchor),   u_t = alpha u_0 + sigma eps,   lambda = log(alpha / sigma)

`t` runs from 0 (picture) to 1 (noise), lambda grows towards the picture. A level is a row (alpha, sigma).
Processes differ in two ways only: in lambda as a function of t, which spreads the levels of training and of
some grids, and in hypot(alpha, sigma), by which u_t is divided before a network sees it.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dreamsr.config import ETA_ROOT_END, Grid, ProcessConfig, Spread
from dreamsr.errors import UsageError

KARRAS_RHO = 7


@dataclass(frozen=True)
class Process:
    """Levels of a process and its change of variables between pictures and u."""

    config: ProcessConfig

    @cached_property
    def table(self) -> Tensor:
        """lambda of the rows t = 1/T .. 1 of a process that has a table, float64 (T,), decreasing."""
        return _resshift_table(self.config) if self.config.schedule == "resshift" else _beta_table(self.config)

    @property
    def span(self) -> tuple[float, float]:
        """(lambda_noise, lambda_image): what the network is trained on."""
        if self._tabulated:
            return float(self.table[-1]), float(self.table[0])
        return self.config.lambda_noise, self.config.lambda_image

    @property
    def cleanest(self) -> Tensor:
        """The level of the least noise that the network is trained on, float64 (2,)."""
        return self.level(torch.tensor(self.span[1], dtype=torch.float64))

    @property
    def variance_preserving(self) -> bool:
        """Whether alpha^2 + sigma^2 = 1."""
        return self.config.schedule in ("cosine", "linear")

    def level(self, lam: Tensor) -> Tensor:
        """(alpha, sigma) at lambda: (...,) to float64 (..., 2)."""
        lam = lam.to(torch.float64)
        if self.config.schedule == "flow":
            return torch.stack([torch.sigmoid(lam), torch.sigmoid(-lam)], dim=-1)
        if self.config.schedule == "resshift":
            ratio = self.config.kappa * torch.exp(lam)
            root = 2 / (ratio + torch.sqrt(ratio**2 + 4))  # sqrt(eta) solves 1 - eta = ratio sqrt(eta)
            return torch.stack([ratio * root, self.config.kappa * root], dim=-1)
        return level(lam)

    def lambda_at(self, t: Tensor) -> Tensor:
        """lambda at times in (0, 1], float64; between the rows of a table it is linear in t."""
        t = t.to(torch.float64)
        if self.config.schedule == "cosine":
            return -torch.log(torch.tan(math.pi / 2 * t))
        if self.config.schedule == "flow":
            return -torch.logit(t)
        return _interpolate(t, self._times, self.table)

    def time_at(self, lam: Tensor) -> Tensor:
        """The inverse of `lambda_at`."""
        lam = lam.to(torch.float64)
        if self.config.schedule == "cosine":
            return 2 / math.pi * torch.atan(torch.exp(-lam))
        if self.config.schedule == "flow":
            return torch.sigmoid(-lam)
        return _interpolate(lam, self.table.flip(0), self._times.flip(0))

    @property
    def _tabulated(self) -> bool:
        return self.config.schedule in ("linear", "resshift")

    @property
    def _times(self) -> Tensor:
        return torch.arange(1, self.config.table + 1, dtype=torch.float64) / self.config.table

    def levels(self, steps: int, grid: Grid = "lambda", span: tuple[float, float] | None = None) -> Tensor:
        """The levels of a sampling run: float64 (steps + 1, 2), from noise to the row (1, 0).

        `lambda` is uniform in lambda over `span` (default: the trained range), `karras` uniform in
        (sigma / alpha)^(1/7) (arXiv 2206.00364, Eq. 5). `time` has t = t_noise (1 - i / steps), the usual
        spacing, which leaves out the low noise levels at few steps, and `quadratic` the square of it:
        t = t_noise (1 - i / steps)^2; both end where their steps do, not at the end of the span.
        """
        if steps < 1:
            raise UsageError(f"{steps} steps asked for; at least 1 is needed")
        start, end = self.span if span is None else span
        if grid == "lambda":
            return self.levels_at(torch.linspace(start, end, steps, dtype=torch.float64))
        if grid == "karras":
            roots = torch.tensor([math.exp(-start / KARRAS_RHO), math.exp(-end / KARRAS_RHO)], dtype=torch.float64)
            share = torch.linspace(0, 1, steps, dtype=torch.float64)
            return self.levels_at(-KARRAS_RHO * torch.log(torch.lerp(roots[0], roots[1], share)))
        power = 1 if grid == "time" else 2
        t_noise = self.time_at(torch.tensor(start, dtype=torch.float64))
        self._check_time_grid(steps, float(t_noise), power)
        index = torch.arange(steps, dtype=torch.float64)
        return self.levels_at(self.lambda_at(t_noise * (1 - index / steps) ** power))

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
        return torch.cat([self.level(lambdas), torch.tensor([[1.0, 0.0]], dtype=torch.float64)])

    def draw(self, uniform: Tensor, first: Tensor, along: Spread = "time") -> Tensor:
        """Training levels float64 (B, 2): uniform in t or in lambda, and the noisiest level where `first`.

        uniform: (B,) in [0, 1);  first: (B,) bool.
        """
        noise, image = torch.tensor(self.span, dtype=torch.float64)
        if along == "lambda":
            return self.level(torch.where(first, noise, torch.lerp(image, noise, uniform.to(torch.float64))))
        ends = self.time_at(torch.stack([noise, image]))
        t = ends[1] + uniform.to(torch.float64) * (ends[0] - ends[1])
        return self.level(self.lambda_at(torch.where(first, ends[0], t)))

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

    def _check_time_grid(self, steps: int, t_noise: float, power: int) -> None:
        t_image = float(self.time_at(torch.tensor(self.span[1], dtype=torch.float64)))
        largest = math.floor((t_noise / t_image) ** (1 / power) + 1e-9)
        if steps > largest:
            name = "time" if power == 1 else "the square root of time"
            raise UsageError(
                f"{steps} steps asked for; a grid uniform in {name} leaves the levels the model knows above {largest}",
                f"use at most {largest} steps, or the grid uniform in lambda",
            )


def _beta_table(config: ProcessConfig) -> Tensor:
    betas = torch.linspace(config.beta_start, config.beta_end, config.table, dtype=torch.float64)
    log_alpha_bar = torch.log1p(-betas).cumsum(0)
    return (log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))) / 2


def _resshift_table(config: ProcessConfig) -> Tensor:
    """arXiv 2307.12348, Eq. 10: the logarithm of sqrt(eta) is linear in (k / (T - 1))^power."""
    first = min(config.noise_start / config.kappa, config.noise_start)
    share = torch.linspace(0, 1, config.table, dtype=torch.float64) ** config.eta_power
    root = first * (ETA_ROOT_END / first) ** share
    return torch.log((1 - root**2) / (config.kappa * root))


def level(lam: Tensor) -> Tensor:
    """`Process.level` where alpha^2 + sigma^2 = 1."""
    lam = lam.to(torch.float64)
    return torch.stack([torch.sigmoid(2 * lam), torch.sigmoid(-2 * lam)], dim=-1).sqrt()


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear through increasing `xs`; the end pieces are extended."""
    if len(xs) == 1:
        return ys.expand_as(x)
    i = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    share = (x - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[i - 1] + share * (ys[i] - ys[i - 1])
