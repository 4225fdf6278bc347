"""Muon: steps that turn all directions of a layer's input alike, whatever the size of their gradients.

The momentum of a weight matrix is replaced by the nearest matrix with orthogonal rows (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon), at a size that is the same for all layers (Liu et al., arXiv 2502.16982).
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial in Newton-Schulz that brings singular values near 1 in five rounds (Jordan et al.)."""
RMS = 0.6
"""Root mean square of what a step moves the weights by, at a learning rate of 1; found by trials (docs/training.md)."""
_EPS = 1e-7
"""Keeps a gradient of zeros zero."""


class Muon(torch.optim.Optimizer):
    """For weights of convolutions (out, in, height, width), each a matrix of `out` rows."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        for group in self.param_groups:
            alike: dict[torch.Size, dict[nn.Parameter, Tensor]] = defaultdict(dict)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape][parameter] = self._direction(parameter, parameter.grad).flatten(1)
            for matrices in alike.values():
                directions = orthogonal(torch.stack(list(matrices.values())))
                size = RMS * max(directions.shape[1:]) ** 0.5
                for parameter, direction in zip(matrices, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(direction.view_as(parameter), alpha=group["lr"] * size)

    def _direction(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        """The gradient and its running mean, mixed as by Nesterov."""
        state: dict[str, Tensor] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """(B, rows, columns) with the same singular vectors and singular values from 0.7 to 1.2, by Newton-Schulz."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = COEFFICIENTS
    x: Tensor = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + _EPS)
    for _ in range(ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = x.to(gram.dtype)  # that of autocast, once
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
