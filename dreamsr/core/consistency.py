"""Moving a picture to the nearest one whose bicubic reduction is a given input.

For a linear reduction A the nearest picture to x with A x = y is x - A^+ (A x - y) (DDNM, arXiv 2212.00490, Eq. 13).
A reduces rows and columns one after the other, A = R (x) C, and so does its pseudo-inverse: two small matrices each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamsr.core.enlargement import Axis


@dataclass(frozen=True)
class Projection:
    """The reduction of an enlargement, or of a window of it, and its pseudo-inverse, along rows and columns."""

    reduce: tuple[Tensor, Tensor]
    """(h, H) and (w, W)"""
    expand: tuple[Tensor, Tensor]
    """(H, h) and (W, w)"""

    @classmethod
    def of(cls, rows: Axis, columns: Axis, device: torch.device | str = "cpu") -> "Projection":
        """To the pixels of the input that these windows hold; float32 on `device`."""
        matrices = [rows.reduction(), columns.reduction()]
        inverses = [a.T @ torch.linalg.inv(a @ a.T) for a in matrices]
        a, b, back_a, back_b = (matrix.to(device, torch.float32) for matrix in (*matrices, *inverses))
        return cls((a, b), (back_a, back_b))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """A x - y: (3, H, W) and (3, h, w) to (3, h, w)."""
        return self.reduce[0] @ x @ self.reduce[1].T - y

    def correction(self, x: Tensor, y: Tensor) -> Tensor:
        """What to add to x so that its reduction becomes y: (3, H, W)."""
        return -(self.expand[0] @ self.residual(x, y) @ self.expand[1].T)
