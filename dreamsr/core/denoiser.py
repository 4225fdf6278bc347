"""From a network's prediction to u_0: the one place that knows what a network predicts,
what it is told of the level, where pictures are clipped and in which precision it runs."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dreamsr.config import Prediction
from dreamsr.core.process import Process
from dreamsr.core.transfer import sent


class Network(Protocol):
    """What a denoiser asks of a network."""

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        """Features of the anchor; scale (B,), or (1,) for all: output size / input size."""

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        """The prediction, shaped as u; angle has a row for every picture, or one for all."""


@dataclass(frozen=True)
class Condition:
    """What a network needs to know of the input, computed once a picture."""

    anchor: Tensor
    """(B, 3, H, W) in [-1, 1]: the bicubic enlargement"""
    features: Tensor
    """What `Network.encode` makes of it."""
    scale: Tensor
    """(B,), or (1,) for all: output size / input size"""

    def detach(self) -> "Condition":
        """The same for a pass whose gradient the encoder does not get."""
        return replace(self, features=self.features.detach())


@dataclass(frozen=True)
class Denoiser:
    """`denoiser(u_t, level, condition)` is the network's estimate of u_0, clipped in picture space."""

    network: Network
    process: Process
    prediction: Prediction
    dtype: torch.dtype = torch.float32
    """Precision of the network's inputs; its weights have it too, or run under autocast."""
    exact: Network | None = None
    """The network in float32, for pictures that overflow in `dtype`."""

    def condition(self, anchor: Tensor, scale: Tensor) -> Condition:
        """anchor: (B, 3, H, W) in [-1, 1], the bicubic picture at output size; scale: (B,), output / input size."""
        return Condition(anchor, self.network.encode(anchor.to(self.dtype), scale), scale)

    def __call__(self, u: Tensor, level: Tensor, condition: Condition) -> Tensor:
        """u_0 whose picture lies in [-1, 1]; u: (B, 3, H, W), level: float64 (2,) or (B, 2)."""
        predicted = self.predict(u, level, condition)
        if self.exact is not None:
            self._redo(predicted, u, level, condition)
        return self.process.clip(self.to_u_0(predicted, u, level), condition.anchor)

    def _redo(self, predicted: Tensor, u: Tensor, level: Tensor, condition: Condition) -> None:
        """Predict again, in float32, the pictures that overflowed; each alone, whatever its company."""
        finite = predicted.flatten(1).isfinite().all(1)
        assert self.exact is not None
        exact = replace(self, network=self.exact, dtype=torch.float32, exact=None)
        for i in (~finite).nonzero().flatten().tolist():
            row = level if level.ndim == 1 else level[i : i + 1]
            alone = exact.condition(condition.anchor[i : i + 1], condition.scale.expand(len(u))[i : i + 1])
            predicted[i] = exact.predict(u[i : i + 1], row, alone)[0]

    def predict(self, u: Tensor, level: Tensor, condition: Condition) -> Tensor:
        """What the network predicts (eps, x0, v or the velocity of a flow), in u's dtype."""
        return self.network(*self.inputs(u, level), condition.features).to(u.dtype)

    def inputs(self, u: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given: u / hypot(alpha, sigma), and the angle of the level, float32 (B,) or (1,)."""
        alpha, sigma = level.reshape(-1, 2).unbind(-1)
        angle = sent((torch.atan2(sigma, alpha) * (2 / torch.pi)).to(torch.float32), u.device)
        if not self.process.variance_preserving:
            alpha, sigma = coefficients(level, u)
            u = u / torch.hypot(alpha, sigma)
        return u.to(self.dtype), angle

    def to_u_0(self, predicted: Tensor, u: Tensor, level: Tensor) -> Tensor:
        """The u_0 that a prediction at (u, level) stands for."""
        alpha, sigma = coefficients(level, u)
        if self.prediction == "eps":
            return (u - sigma * predicted) / alpha
        if self.prediction == "v":
            norm = torch.hypot(alpha, sigma)
            return (alpha * u / norm - sigma * predicted) / norm
        if self.prediction == "flow":
            return (u - sigma * predicted) / (alpha + sigma)
        return predicted

    def target(self, u_0: Tensor, u: Tensor, level: Tensor) -> Tensor:
        """What the network should predict where u = alpha u_0 + sigma eps; v is that of u / hypot(alpha, sigma)."""
        if self.prediction == "x0":
            return u_0
        alpha, sigma = coefficients(level, u)
        eps = (u - alpha * u_0) / sigma
        if self.prediction == "flow":
            return eps - u_0
        return eps if self.prediction == "eps" else (alpha * eps - sigma * u_0) / torch.hypot(alpha, sigma)


def coefficients(level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) of level float64 (2,) or (B, 2), shaped to multiply `like` (B, ...)."""
    rows = sent(level.expand(len(like), 2).to(like.dtype), like.device)
    alpha, sigma = rows.reshape(-1, 2, *[1] * (like.ndim - 1)).unbind(1)
    return alpha, sigma
