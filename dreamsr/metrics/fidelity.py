"""PSNR and SSIM on values of 0 to 255, computed in float64."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def luma(rgb: Tensor) -> Tensor:
    """Y of MATLAB's rgb2ycbcr (BT.601, 16 to 235), unrounded: uint8 (3, H, W) to float64 (1, H, W)."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=rgb.device) / 255
    return 16 + torch.einsum("c,chw->hw", weights, rgb.to(torch.float64))[None]


def psnr(a: Tensor, b: Tensor, crop: int = 0) -> float:
    """Peak signal-to-noise ratio in dB of (C, H, W) on 0..255, `crop` border pixels left out; inf if equal."""
    mse = (_cropped(a, crop) - _cropped(b, crop)).square().mean().item()
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ssim(a: Tensor, b: Tensor, crop: int = 0) -> float:
    """Mean structural similarity (Wang et al. 2004) of (C, H, W) on 0..255, mean over channels.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = .01, K2 = .03, only where the window fits;
    nan for pictures smaller than the window.
    """
    x, y = _cropped(a, crop)[:, None], _cropped(b, crop)[:, None]
    if min(x.shape[-2:]) < 11:
        return math.nan
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean().item()


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
    return F.conv2d(F.conv2d(x, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))
