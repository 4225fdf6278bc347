"""Pictures with holes: colour where nothing is seen, and transparency at another size."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core.resize import bicubic

_EXACT = 1e-5
"""Below half a level of 16 bits."""


def bleed(color: Tensor, alpha: Tensor) -> Tensor:
    """`color` (3, H, W) with the colours of visible pixels spread to where `alpha` (1, H, W) is -1.

    Hidden pixels often hold black, which a network, seeing no alpha, would draw as a halo.
    """
    weight = (alpha + 1)[None]
    return _fill(color[None], weight)[0] if bool((weight > 0).any()) else color


def _fill(color: Tensor, weight: Tensor) -> Tensor:
    """Push-pull: what has no weight, which cannot be all, takes the weighted mean of ever larger blocks around it."""
    seen = weight > 0
    if bool(seen.all()):
        return color
    total = _halve(weight)
    coarse = _fill(_halve(color * weight) / total.clamp(min=torch.finfo(total.dtype).tiny), total)
    return torch.where(seen, color, F.interpolate(coarse, color.shape[-2:], mode="bilinear", align_corners=False))


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def enlarge(alpha: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic `alpha` (1, H, W) in [-1, 1] at a larger size (height, width).

    Between neighbours that are all opaque, or all transparent, it is exactly 1, or -1.
    """
    linear = F.interpolate(alpha[None], size, mode="bilinear", align_corners=False)[0]
    x = bicubic(alpha[None], size)[0].clamp(-1, 1)
    x.masked_fill_(linear >= 1 - _EXACT, 1)
    return x.masked_fill_(linear <= _EXACT - 1, -1)
