"""What makes a low-resolution picture out of a high-resolution one."""

from torch import Tensor

from dreamsr.core.resize import bicubic


def quantize(x: Tensor) -> Tensor:
    """Round pictures in [-1, 1] to the 256 levels of an 8-bit file."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def degrade(hr: Tensor, scale: int) -> Tensor:
    """Bicubic reduction as Pillow's: rows, then columns, each rounded to 8 bits.

    (B, 3, H, W) in [-1, 1] to (B, 3, H / scale, W / scale).
    """
    height, width = hr.shape[-2:]
    narrow = quantize(bicubic(hr, (height, width // scale)))
    return quantize(bicubic(narrow, (height // scale, width // scale)))
