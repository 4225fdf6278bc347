"""One exponential integrator; the solvers of the literature are rows of its parameters.

From level (a, s) to (a_n, s_n), with the estimate m(lambda) of u_0 as a polynomial through the
last estimates, integrated exactly (DPM-Solver++, arXiv 2211.01095):

    u_n = (r / s) u + r e^lambda sum_j w_j m_j + v z,      r^2 = s_n^2 - v^2

v is the standard deviation of the noise put in; v = 0 follows the probability-flow ODE. Noise
stretches the kernel of the integral to e^(c lambda) with c h = log(a_n / r) - lambda, h the step in
lambda: c = 1 for the ODE, 2 for the ancestral step.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(u, level float64 (2,)) -> u_0"""
Variance = Callable[[tuple[float, float], tuple[float, float]], float]
"""((alpha, sigma), (alpha_n, sigma_n)) -> v^2 in [0, sigma_n^2]"""


@dataclass(frozen=True)
class Step:
    """The state after step `i` (from 0): the next u, and the estimate of u_0 it was made from."""

    u: Tensor
    u_0: Tensor
    i: int


@dataclass(frozen=True)
class Sampler:
    """Parameters of the integrator: its order, and eta of the noise (0: ODE, 1: ancestral)."""

    order: int
    eta: float


SAMPLERS = {"ddim": Sampler(1, 0.0), "ddpm": Sampler(1, 1.0), "dpmpp-2m": Sampler(2, 0.0)}


def ddim_variance(eta: float) -> Variance:
    """DDIM's eta: v^2 = eta^2 s_n^2 (1 - e^(-2h)); eta = 1 is DDPM's posterior variance."""

    def variance(now: tuple[float, float], then: tuple[float, float]) -> float:
        (a, s), (a_n, s_n) = now, then
        ratio = a * s_n / (a_n * s)
        return eta**2 * s_n**2 * (1 - ratio**2)

    return variance


def solve(
    denoise: Denoise,
    u: Tensor,
    levels: Tensor,
    *,
    order: int = 1,
    variance: Variance | None = None,
    noise: Callable[[int], Tensor] | None = None,
) -> Iterator[Step]:
    """Walk `levels` (float64 (n + 1, 2), from noise to picture) and yield every step.

    The first step has order 1 for want of history. A step that ends at sigma = 0 returns the
    estimate itself. `noise(i)` gives the standard normal tensor of step i where `variance` is set.
    """
    past: list[tuple[float, Tensor]] = []
    rows: list[tuple[float, float]] = [(float(a), float(s)) for a, s in levels]
    for i, (now, then) in enumerate(itertools.pairwise(rows)):
        u_0 = denoise(u, levels[i])
        past = [(math.log(now[0] / now[1]), u_0), *past][:order]
        v2 = variance(now, then) if variance else 0.0
        u = u_0 if then[1] == 0 else _step(u, now, then, past, v2)
        if v2 > 0 and then[1] > 0:
            assert noise is not None, "a stochastic step needs noise"
            u = u.add_(noise(i).to(u.dtype), alpha=math.sqrt(v2))
        yield Step(u, u_0, i)


def _step(
    u: Tensor,
    now: tuple[float, float],
    then: tuple[float, float],
    past: list[tuple[float, Tensor]],
    v2: float,
) -> Tensor:
    """The deterministic part of a step, to the level (a_n, r)."""
    lam = past[0][0]
    r = math.sqrt(then[1] ** 2 - v2)
    h = math.log(then[0] / then[1]) - lam
    stretch = (math.log(then[0] / r) - lam) / h
    weights = _weights(h, stretch, [node - lam for node, _ in past])
    u = (r / now[1]) * u
    for weight, (_, estimate) in zip(weights, past, strict=True):
        u.add_(estimate, alpha=r * math.exp(lam) * weight)
    return u


def _weights(h: float, c: float, nodes: list[float]) -> list[float]:
    """Weights of the estimates at `nodes` (offsets in lambda, the first 0) over a step h.

    J_j = integral over [0, h] of c e^(c x) x^j dx, spread by the inverse Vandermonde matrix.
    """
    moments = [math.expm1(c * h)]
    for j in range(1, len(nodes)):
        moments.append(math.exp(c * h) * h**j - j / c * moments[-1])
    vandermonde = torch.tensor([[node**j for node in nodes] for j in range(len(nodes))], dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(vandermonde, torch.tensor(moments, dtype=torch.float64)).tolist()
    return weights
