"""What makes a low-resolution picture out of a high-resolution one."""

from torch import Tensor

from dreamsr.core.resize import bicubic


def quantize(x: Tensor) -> Tensor:
    """Round pictures in [-1, 1] to the 256 levels of an 8-bit file."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def degrade(hr: Tensor, scale: int) -> Tensor:
    """Bicubic reduction as Pillow's: (B, 3, H, W) in [-1, 1] to (B, 3, H / scale, W / scale)."""
    return reduced(hr, (hr.shape[-2] // scale, hr.shape[-1] // scale))


def reduced(hr: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic reduction as Pillow's: rows, then columns, each rounded to 8 bits; (B, 3, H, W) to (B, 3, *size)."""
    narrow = quantize(bicubic(hr, (hr.shape[-2], size[1])))
    return quantize(bicubic(narrow, size))
