"""DREAM: diffusion rectification and estimation-adaptive models (arXiv 2312.00210).

Training sees u_t made from the true u_0, sampling sees u_t made from the network's own estimates.
DREAM predicts once without gradient and moves u_t towards what sampling would see (Eq. 12-15):

    u_t <- u_t + alpha * strength * (u0_hat - u_0),   strength = (sigma^2 / (alpha^2 + sigma^2))^(p/2)

The target stays u_0; eps and v targets follow from it, since the moved u_t is again
alpha u_0 + sigma eps with eps <- eps + strength * (eps - eps_hat).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Condition, Denoiser, coefficients
from dreamsr.core.transfer import sent

Exponent = float | Literal["off"]


def strength(level: Tensor, p: float) -> Tensor:
    """The paper's lambda_t, sigma^p on a variance-preserving process; level: (..., 2) to (...)."""
    alpha, sigma = level.unbind(-1)
    return (sigma**2 / (alpha**2 + sigma**2)) ** (p / 2)


def rectify(u: Tensor, u_0: Tensor, estimate: Tensor, level: Tensor, p: float) -> Tensor:
    """The rectified u_t; u, u_0 and the estimate of u_0 are (B, ...), level is (2,) or (B, 2)."""
    alpha, _ = coefficients(level, u)
    weight = sent(strength(level.expand(len(u), 2), p).to(u.dtype), u.device)
    return u + alpha * weight.reshape(-1, *[1] * (u.ndim - 1)) * (estimate - u_0)


def loss(
    denoiser: Denoiser,
    u_0: Tensor,
    eps: Tensor,
    level: Tensor,
    condition: Condition,
    *,
    p: Exponent,
    norm: Literal["l1", "l2"],
    snr_cap: float = 1.0,
) -> Tensor:
    """Mean loss of the network's prediction; `p = "off"` is plain diffusion, bit for bit.

    A level weighs min(1 + SNR, snr_cap).
    """
    alpha, sigma = coefficients(level, u_0)
    u = alpha * u_0 + sigma * eps
    if p != "off":
        with torch.no_grad(), eval_mode(denoiser.network):
            guess = denoiser.predict(u, level, condition.detach())
            u = rectify(u, u_0, denoiser.to_u_0(guess, u, level), level, p)
    error = denoiser.predict(u, level, condition) - denoiser.target(u_0, u, level)
    penalty = error.square() if norm == "l2" else error.abs()
    weight = (1 + (alpha / sigma) ** 2).clamp(max=snr_cap)
    return (weight * penalty).mean()


@contextmanager
def eval_mode(network: object) -> Iterator[None]:
    """Evaluation mode (dropout off) inside; afterwards every submodule is in its own mode again."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    flags = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
