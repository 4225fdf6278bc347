"""PSNR, SSIM, MS-SSIM and consistency on values of 0 to 255, computed in float64."""

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW = 11
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang et al. 2003)."""


def luma(rgb: Tensor) -> Tensor:
    """Y of MATLAB's rgb2ycbcr (BT.601, 16 to 235), unrounded: uint8 (3, H, W) to float64 (1, H, W)."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=rgb.device) / 255
    return 16 + torch.einsum("c,chw->hw", weights, rgb.to(torch.float64))[None]


def psnr(a: Tensor, b: Tensor, crop: int = 0) -> float:
    """Peak signal-to-noise ratio in dB of (C, H, W) on 0..255, `crop` border pixels left out; inf if equal."""
    mse = _mse(_cropped(a, crop), _cropped(b, crop))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def consistency(again: Tensor, lr: Tensor) -> float:
    """Mean squared error in [0, 1], times 1e5, of (C, H, W) on 0..255: SR3's and DREAM's consistency."""
    return _mse(again.to(torch.float64), lr.to(torch.float64)) / 255**2 * 1e5


def ssim(a: Tensor, b: Tensor, crop: int = 0) -> float:
    """Mean structural similarity (Wang et al. 2004) of (C, H, W) on 0..255, mean over channels.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = .01, K2 = .03, only where the window fits;
    nan for pictures smaller than the window.
    """
    return _ssim(list(islice(_scales(a, b, crop), 1)))


def ms_ssim(a: Tensor, b: Tensor, crop: int = 0) -> float:
    """Multi-scale SSIM (Wang, Simoncelli and Bovik 2003) of (C, H, W) on 0..255, mean over channels.

    Five scales with the windows of `ssim`, each half of the one before by the mean of 2 x 2 pixels (an odd
    last row or column is left out); negative means count as 0. nan below 176 pixels on a side.
    """
    return both_ssim(a, b, crop)[1]


def both_ssim(a: Tensor, b: Tensor, crop: int = 0) -> tuple[float, float]:
    """(ssim, ms_ssim) in less time: they share the finest scale."""
    scales = list(islice(_scales(a, b, crop), len(_MS_WEIGHTS)))
    return _ssim(scales), _ms_ssim(scales)


Scale = tuple[Tensor, Tensor]
"""Maps of luminance, and of contrast and structure; (C, 1, H, W)."""


def _scales(a: Tensor, b: Tensor, crop: int) -> Iterator[Scale]:
    """From the finest to the last that the window fits into."""
    x, y = _cropped(a, crop)[:, None], _cropped(b, crop)[:, None]
    while min(x.shape[-2:]) >= _WINDOW:
        yield _similarity(x, y)
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)


def _ssim(scales: list[Scale]) -> float:
    return (scales[0][0] * scales[0][1]).mean().item() if scales else math.nan


def _ms_ssim(scales: list[Scale]) -> float:
    if len(scales) < len(_MS_WEIGHTS):
        return math.nan
    luminance, structure = scales[-1]
    maps = [*(structure for _, structure in scales[:-1]), luminance * structure]
    means = torch.stack([values.mean((1, 2, 3)) for values in maps]).clamp_min(0)
    weights = torch.tensor(_MS_WEIGHTS, dtype=means.dtype, device=means.device)[:, None]
    return (means**weights).prod(0).mean().item()


def _similarity(x: Tensor, y: Tensor) -> Scale:
    mean_x, mean_y = _blur(x), _blur(y)
    variances = _blur(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _mse(x: Tensor, y: Tensor) -> float:
    return (x - y).square().mean().item()


def _cropped(x: Tensor, crop: int) -> Tensor:
    height, width = x.shape[-2:]
    # a picture too small to lose its border is measured whole
    crop = crop if min(height, width) > 2 * crop else 0
    return x[..., crop : height - crop, crop : width - crop].to(torch.float64)


def _blur(x: Tensor) -> Tensor:
    """Separable Gaussian over the valid area; (C, 1, H, W)."""
    offsets = torch.arange(-5, 6, dtype=x.dtype, device=x.device)
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.view(1, 1, _WINDOW, 1)), window.view(1, 1, 1, _WINDOW))
