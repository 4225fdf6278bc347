"""Denoisers in closed form, in float64, and textbook formulas to compare with."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]


def gaussian(mean: Tensor, variance: Tensor) -> Denoise:
    """E[u_0 | u_t] for u_0 ~ N(mean, diag(variance))."""

    def denoise(u: Tensor, level: Tensor) -> Tensor:
        a, s = level.unbind()
        gain: Tensor = a * variance / (a**2 * variance + s**2)
        return mean + gain * (u - a * mean)

    return denoise


def gaussian_flow(mean: Tensor, variance: Tensor, u: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The exact solution of the probability-flow ODE from level `start` to level `end`."""
    (a, s), (b, r) = start.unbind(), end.unbind()
    ratio: Tensor = torch.sqrt((b**2 * variance + r**2) / (a**2 * variance + s**2))
    return b * mean + ratio * (u - a * mean)


def two_modes(u: Tensor, level: Tensor) -> Tensor:
    """E[u_0 | u_t] of two normal modes at +-.6 with variance .05: not linear in u."""
    a, s = level.unbind()
    variance = 0.05 * a**2 + s**2
    centre = 0.6 * torch.tanh(0.6 * a * u / variance)
    return centre + 0.05 * a / variance * (u - a * centre)


def points(*centres: Tensor) -> Denoise:
    """E[u_0 | u_t] for u_0 uniform on finitely many points."""
    stack = torch.stack(centres)

    def denoise(u: Tensor, level: Tensor) -> Tensor:
        a, s = level.unbind()
        distance = (u[:, None] - a * stack).square().flatten(2).sum(2)
        weights = torch.softmax(-distance / (2 * s**2), dim=1)
        return torch.einsum("bk,k...->b...", weights, stack)

    return denoise


def ddpm_posterior(u: Tensor, u_0: Tensor, abar: float, abar_next: float) -> tuple[Tensor, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0), Ho et al. 2020, Eq. 7, for any two rows of a table."""
    alpha = abar / abar_next
    beta = 1 - alpha
    mean = abar_next**0.5 * beta / (1 - abar) * u_0 + alpha**0.5 * (1 - abar_next) / (1 - abar) * u
    return mean, (1 - abar_next) / (1 - abar) * beta
