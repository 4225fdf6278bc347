"""From a network's prediction to u_0: the one place that knows what a network predicts,
what it is told of the level, where pictures are clipped and in which precision it runs."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dreamsr.config import Prediction
from dreamsr.core.process import Process


class Network(Protocol):
    """What a denoiser asks of a network."""

    def encode(self, anchor: Tensor) -> Tensor:
        """Features of the anchor."""

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        """The prediction, shaped as u; angle has a row for every picture, or one for all."""


@dataclass(frozen=True)
class Condition:
    """What a network needs to know of the input, computed once a picture."""

    features: Tensor
    low: Tensor
    """u_0 of a black picture"""
    high: Tensor
    """u_0 of a white picture"""

    def detach(self) -> "Condition":
        return replace(self, features=self.features.detach())


@dataclass(frozen=True)
class Denoiser:
    """`denoiser(u_t, level, condition)` is the network's estimate of u_0, clipped in picture space."""

    network: Network
    process: Process
    prediction: Prediction
    dtype: torch.dtype = torch.float32
    """Precision of the network's inputs; its weights have it too, or run under autocast."""

    def condition(self, anchor: Tensor) -> Condition:
        """anchor: (B, 3, H, W) in [-1, 1], the bicubic picture at output size."""
        low, high = (self.process.to_u(torch.full_like(anchor, x), anchor) for x in (-1, 1))
        return Condition(self.network.encode(anchor.to(self.dtype)), low, high)

    def __call__(self, u: Tensor, level: Tensor, condition: Condition) -> Tensor:
        """u_0 whose picture lies in [-1, 1]; u: (B, 3, H, W), level: float64 (2,) or (B, 2)."""
        u_0 = self.to_u_0(self.predict(u, level, condition), u, level)
        return u_0.clamp(condition.low, condition.high)

    def predict(self, u: Tensor, level: Tensor, condition: Condition) -> Tensor:
        """What the network predicts (eps, x0 or v), in u's dtype."""
        alpha, sigma = level.reshape(-1, 2).unbind(-1)
        angle = (torch.atan2(sigma, alpha) * (2 / torch.pi)).to(u.device, torch.float32)
        return self.network(u.to(self.dtype), angle, condition.features).to(u.dtype)

    def to_u_0(self, predicted: Tensor, u: Tensor, level: Tensor) -> Tensor:
        """The u_0 that a prediction at (u, level) stands for."""
        alpha, sigma = coefficients(level, u)
        if self.prediction == "eps":
            return (u - sigma * predicted) / alpha
        if self.prediction == "v":
            return alpha * u - sigma * predicted
        return predicted

    def target(self, u_0: Tensor, u: Tensor, level: Tensor) -> Tensor:
        """What the network should predict where u = alpha u_0 + sigma eps."""
        if self.prediction == "x0":
            return u_0
        alpha, sigma = coefficients(level, u)
        eps = (u - alpha * u_0) / sigma
        return eps if self.prediction == "eps" else alpha * eps - sigma * u_0


def coefficients(level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) of level float64 (2,) or (B, 2), shaped to multiply `like` (B, ...)."""
    rows = level.expand(len(like), 2).to(like.device, like.dtype)
    alpha, sigma = rows.reshape(-1, 2, *[1] * (like.ndim - 1)).unbind(1)
    return alpha, sigma
