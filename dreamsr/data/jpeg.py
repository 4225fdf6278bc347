"""What JPEG loses, on tensors: baseline JPEG (ITU-T T.81) as libjpeg codes and decodes it, without its files.

The rounding between the passes of libjpeg's integer DCT is kept: it decides on which side of a
quantisation step a coefficient falls, so that without it a block in ten would differ by several levels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core.resize import size_of
from dreamsr.core.transfer import sent

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""T.81, table K.1; rows are vertical frequencies."""
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""T.81, table K.2."""
DCT = (
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)
"""2^13 sqrt(2) cos(pi k (2 n + 1) / 16), the first row by 1 / sqrt(2), as sums of 13-bit constants give it."""
UNIT = 16
"""Side of what is coded together where colours have half the resolution."""


def jpeg(x: Tensor, quality: Tensor, subsampled: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) of whole levels 0 to 255 after coding and decoding, of the same kind.

    quality: (B,) whole numbers from 1 to 100;  subsampled: (B,) bool, 4:2:0 in place of 4:4:4.
    """
    size = size_of(x)
    bottom, right = (-n % UNIT for n in size)
    y, *colors = F.pad(_to_ycc(x), (0, right, 0, bottom), mode="replicate").unbind(1)
    luma_table, chroma_table = (_scaled(table, quality) for table in (LUMA, CHROMA))
    cb, cr = (_coded_color(c, chroma_table, subsampled, size) for c in colors)
    return _to_rgb(_coded(y, luma_table)[:, : size[0], : size[1]], cb, cr)


def _coded_color(c: Tensor, table: Tensor, subsampled: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    full = _coded(c, table)[:, :height, :width]
    half = _coded(_halved(c), table)[:, : math.ceil(height / 2), : math.ceil(width / 2)]
    return torch.where(subsampled[:, None, None], _doubled(half)[:, :height, :width], full)


def _coded(plane: Tensor, table: Tensor) -> Tensor:
    """(B, H, W) of levels, sides multiples of 8, transformed, quantised by (B, 8, 8) and transformed back."""
    count, height, width = plane.shape
    dct = sent(torch.tensor(DCT, dtype=plane.dtype), plane.device)
    blocks = plane.reshape(count, height // 8, 8, width // 8, 8).transpose(2, 3) - 128
    coefficients = _shifted(dct @ _shifted(blocks @ dct.T, 11), 15)  # 8 times the orthonormal ones
    steps = table[:, None, None]
    # halves away from zero
    quantised = coefficients.sign() * torch.floor((coefficients.abs() + 4 * steps) / (8 * steps))
    decoded = _shifted(_shifted(dct.T @ (quantised * steps), 11) @ dct, 18) + 128
    return decoded.clamp(0, 255).transpose(2, 3).reshape(count, height, width)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x / 2^bits, rounded, halves up."""
    return torch.floor(x / 2**bits + 0.5)


def _scaled(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """The quantisation steps (B, 8, 8) of qualities (B,), by libjpeg's rule."""
    base = sent(torch.tensor(table, dtype=torch.float32), quality.device)
    q = quality.float()[:, None, None]
    percent = torch.where(q < 50, torch.floor(5000 / q), 200 - 2 * q)
    return torch.floor((base * percent + 50) / 100).clamp(1, 255)


def _to_ycc(x: Tensor) -> Tensor:
    """BT.601 in units of 2^-16, which float32 adds without error; colours are rounded halves down."""
    r, g, b = x.unbind(1)
    y = torch.floor((19595 * r + 38470 * g + 7471 * b + 32768) / 65536)
    cb = torch.floor((-11059 * r - 21709 * g + 32768 * b + 32767) / 65536) + 128
    cr = torch.floor((32768 * r - 27439 * g - 5329 * b + 32767) / 65536) + 128
    return torch.stack([y, cb, cr], 1)


def _to_rgb(y: Tensor, cb: Tensor, cr: Tensor) -> Tensor:
    cb, cr = cb - 128, cr - 128
    red, blue = torch.floor(1.402 * cr + 0.5), torch.floor(1.772 * cb + 0.5)
    green = torch.floor(-0.344136286 * cb - 0.714136286 * cr + 0.5)
    return (y[:, None] + torch.stack([red, green, blue], 1)).clamp(0, 255)


def _halved(c: Tensor) -> Tensor:
    """Means of 2 x 2; what is left over is rounded up and down by turns."""
    sums = 4 * F.avg_pool2d(c[:, None], 2)[:, 0]
    return torch.floor((sums + _alternating(sums, 1, 2)) / 4)


def _doubled(c: Tensor) -> Tensor:
    """Twice the size, by 9/16, 3/16, 3/16 and 1/16 of the nearest four."""
    doubled = F.interpolate(c[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
    return torch.floor(doubled + _alternating(doubled, 8, 7) / 16)


def _alternating(like: Tensor, even: float, odd: float) -> Tensor:
    """(W,) of two values by turns, for the columns of `like`."""
    column = torch.arange(like.shape[-1], device=like.device)
    return torch.where(column % 2 == 0, even, odd)
