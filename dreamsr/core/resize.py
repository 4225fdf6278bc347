"""Pillow's bicubic (a = -0.5, antialiased when reducing) in floating point."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core.size import Size


def size_of(x: Tensor) -> Size:
    """(height, width) of (..., H, W)."""
    return x.shape[-2], x.shape[-1]


def bicubic(x: Tensor, size: Size) -> Tensor:
    """(B, C, H, W) to (B, C, *size), unrounded and unclipped; the anchor of every residual model."""
    if size_of(x) == size:
        return x
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)


def resampling(length: int, size: int, sources: slice, targets: slice) -> Tensor:
    """A window of the matrix by which `bicubic` takes an axis from `length` to `size` pixels.

    float64 (targets, sources); the weights of a target add up to 1, as they do at the ends of an axis.
    """
    step = length / size
    centers = (torch.arange(targets.start, targets.stop, dtype=torch.float64) + 0.5) * step - 0.5
    distances = (centers[:, None] - torch.arange(sources.start, sources.stop)).abs()
    weights = _keys(distances / max(1.0, step))
    return weights / weights.sum(1, keepdim=True)


def _keys(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5 at distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far * (x < 2))
