"""Moving a picture to the nearest one whose bicubic reduction is a given input.

For a linear reduction A the nearest picture to x with A x = y is x - A^+ (A x - y) (DDNM, arXiv 2212.00490, Eq. 13).
A reduces rows and columns one after the other, A = R (x) C, and so does its pseudo-inverse: two small matrices each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamsr.core.resize import bicubic


@dataclass(frozen=True)
class Projection:
    """The reduction of pictures of one size, and its pseudo-inverse, along rows and columns."""

    reduce: tuple[Tensor, Tensor]
    """(h, H) and (w, W)"""
    expand: tuple[Tensor, Tensor]
    """(H, h) and (W, w)"""

    @classmethod
    def of(cls, size: tuple[int, int], scale: int, device: torch.device | str = "cpu") -> "Projection":
        """For pictures of size (H, W), multiples of `scale`; float32 on `device`."""
        matrices = [reduction(length, scale) for length in size]
        inverses = [a.T @ torch.linalg.inv(a @ a.T) for a in matrices]
        rows, columns = (a.to(device, torch.float32) for a in matrices)
        back_rows, back_columns = (a.to(device, torch.float32) for a in inverses)
        return cls((rows, columns), (back_rows, back_columns))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """A x - y: (3, H, W) and (3, h, w) to (3, h, w)."""
        return self.reduce[0] @ x @ self.reduce[1].T - y

    def correction(self, x: Tensor, y: Tensor) -> Tensor:
        """What to add to x so that its reduction becomes y: (3, H, W)."""
        return -(self.expand[0] @ self.residual(x, y) @ self.expand[1].T)


def reduction(length: int, scale: int) -> Tensor:
    """The antialiased bicubic reduction of one axis as a matrix, float64 (length / scale, length)."""
    identity = torch.eye(length, dtype=torch.float64)
    return bicubic(identity[None, None], (length // scale, length))[0, 0]
