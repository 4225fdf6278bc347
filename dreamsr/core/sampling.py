"""One exponential integrator; the solvers of the literature are rows of its parameters.

From level (a, s) to (a_n, s_n), lambda = log(a / s), h the step in lambda. The last estimates m of u_0
(or of the noise e) are extended as a polynomial in lambda, and its product with the kernel is integrated:

    x0 form    u_n = (r / s) u + r e^lambda sum_j w_j m_j + v z,      r^2 = s_n^2 - v^2
    eps form   u_n = (a_n / a) u + a_n e^-lambda sum_j w_j e_j

(DPM-Solver++, arXiv 2211.01095; DEIS, arXiv 2204.13902). v is the standard deviation of the noise put in;
v = 0 follows the probability-flow ODE. Noise stretches the kernel of the x0 form to c e^(c x), with
c h = log(a_n / r) - lambda: c = 1 for the ODE, 2 for the ancestral step. In the eps form c = -1.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dreamsr.config import SamplerName

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(u, level float64 (2,)) -> u_0"""
Level = tuple[float, float]
"""(alpha, sigma)"""
Variance = Callable[[Level, Level], float]
"""(level, next level) -> v^2 in [0, sigma_n^2)"""

_SERIES = 0.5
"""|c h| below which moments are summed as a power series: their recursion cancels."""


@dataclass(frozen=True)
class Step:
    """The state after step `i` (from 0): the next u, and the estimate of u_0 it was made from."""

    u: Tensor
    u_0: Tensor
    i: int


@dataclass(frozen=True)
class Sampler:
    """Parameters of the integrator."""

    order: int = 1
    """Estimates that the polynomial goes through; fewer at the beginning, one at the end."""
    form: Literal["x0", "eps"] = "x0"
    midpoint: bool = False
    """Integrate a line through two estimates by its value half way, as DPM-Solver++ and UniPC do; else exactly."""
    corrector: bool = False
    """UniC (arXiv 2302.04867): repeat a step with the estimate at its end, when that is known."""
    variance: Variance | None = None
    """v^2 of the noise put in; None: none."""

    @property
    def least_steps(self) -> int:
        """Steps below which a sampler is one of lower order: its first and last step are of order 1."""
        return 1 if self.order == 1 else self.order + 1


def ddpm_variance(now: Level, then: Level) -> float:
    """DDPM's posterior, which is DDIM with eta = 1: v^2 = s_n^2 (1 - e^(-2h))."""
    (a, s), (a_n, s_n) = now, then
    return s_n**2 * (1 - (a * s_n / (a_n * s)) ** 2)


def resshift_variance(now: Level, then: Level) -> float:
    """ResShift's posterior (arXiv 2307.12348, Eq. 7): v^2 = s_n^2 (1 - s_n^2 / s^2)."""
    return then[1] ** 2 * (1 - then[1] ** 2 / now[1] ** 2)


SAMPLERS: dict[SamplerName, Sampler] = {
    "ddim": Sampler(),
    "ddpm": Sampler(variance=ddpm_variance),
    "dpmpp-2m": Sampler(2, midpoint=True),
    "dpmpp-2m-sde": Sampler(2, midpoint=True, variance=ddpm_variance),
    "dpmpp-3m": Sampler(3),
    "deis": Sampler(3, form="eps"),
    "unipc": Sampler(2, midpoint=True, corrector=True),
    "resshift": Sampler(variance=resshift_variance),
}


def solve(
    denoise: Denoise,
    u: Tensor,
    levels: Tensor,
    sampler: Sampler,
    noise: Callable[[int], Tensor] | None = None,
) -> Iterator[Step]:
    """Walk `levels` (float64 (n + 1, 2), from noise to picture) and yield every step.

    The first step has order 1 for want of history. A step that ends at sigma = 0 returns the
    estimate itself. `noise(i)` gives the standard normal tensor of step i where the sampler asks for it.
    """
    rows: list[Level] = [(float(a), float(s)) for a, s in levels]
    past: list[tuple[float, Tensor]] = []
    before = u
    for i, (now, then) in enumerate(itertools.pairwise(rows)):
        u_0 = denoise(u, levels[i])
        fresh = (_lambda(now), u_0 if sampler.form == "x0" else (u - now[0] * u_0) / now[1])
        if sampler.corrector and past:
            u = _step(before, rows[i - 1], now, [*past, fresh], sampler)
        past = [fresh, *past][: sampler.order]
        before = u
        v2 = sampler.variance(now, then) if sampler.variance else 0.0
        u = u_0 if then[1] == 0 else _step(u, now, then, past, sampler, v2)
        if v2 > 0 and then[1] > 0:
            assert noise is not None, "a stochastic step needs noise"
            u = u.add_(noise(i).to(u.dtype), alpha=math.sqrt(v2))
        yield Step(u, u_0, i)


def _step(
    u: Tensor, now: Level, then: Level, known: Sequence[tuple[float, Tensor]], sampler: Sampler, v2: float = 0.0
) -> Tensor:
    """A step from the polynomial through the known (lambda, estimate), less the noise of variance v2."""
    lam, h = _lambda(now), _lambda(then) - _lambda(now)
    r = math.sqrt(then[1] ** 2 - v2)
    if sampler.form == "x0":
        stretch, kept, factor = (math.log(then[0] / r) - lam) / h, r / now[1], r * math.exp(lam)
    else:
        stretch, kept, factor = -1.0, then[0] / now[0], then[0] * math.exp(-lam)
    weights = _weights(h, stretch, [node - lam for node, _ in known], sampler.midpoint)
    u = kept * u
    for weight, (_, estimate) in zip(weights, known, strict=True):
        u.add_(estimate, alpha=factor * weight)
    return u


def _weights(h: float, c: float, nodes: Sequence[float], midpoint: bool) -> list[float]:
    """Weights of the estimates at `nodes` (offsets in lambda) over a step h.

    The moments J_j, integral over [0, h] of c e^(c x) x^j dx, spread by the inverse Vandermonde matrix.
    """
    moments = _moments(h, c, len(nodes))
    if midpoint and len(nodes) == 2:
        moments[1] = moments[0] * h / 2
    vandermonde = torch.tensor([[node**j for node in nodes] for j in range(len(nodes))], dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(vandermonde, torch.tensor(moments, dtype=torch.float64)).tolist()
    return weights


def _moments(h: float, c: float, count: int) -> list[float]:
    x = c * h
    if abs(x) < _SERIES:
        return [c * h ** (j + 1) * _series(x, j) for j in range(count)]
    moments = [math.expm1(x)]
    for j in range(1, count):
        moments.append(math.exp(x) * h**j - j / c * moments[-1])
    return moments


def _series(x: float, j: int) -> float:
    """Integral over [0, 1] of e^(x y) y^j dy."""
    return sum(x**k / (math.factorial(k) * (k + j + 1)) for k in range(18))


def _lambda(level: Level) -> float:
    return math.log(level[0] / level[1])
