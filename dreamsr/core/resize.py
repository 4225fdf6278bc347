"""Pillow's bicubic (a = -0.5, antialiased when reducing) in floating point."""

from torch import Tensor
from torch.nn import functional as F


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to (B, C, *size), unrounded and unclipped; the anchor of every residual model."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
