"""A decoded picture, and its way between numbers of a file and tensors."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dreamsr.core import alpha as transparency
from dreamsr.core.resize import bicubic, size_of
from dreamsr.files.metadata import Metadata

_STRIP = 2**20
"""Pixels that are converted at a time: a large picture is not held twice in floating point."""
Pixels = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16 (H, W, C) with 1 to 4 channels: gray, gray and alpha, RGB, RGBA."""
_GRAY = ("1", "L", "LA", "La")
MODES = {*_GRAY, "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"}
"""Pillow's modes that `from_pil` takes."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: colour (3, H, W) and perhaps alpha (1, H, W), float32 in [-1, 1]."""

    color: Tensor
    alpha: Tensor | None = None
    gray: bool = False
    """Stored with one colour channel, and written so."""
    metadata: Metadata = field(default_factory=Metadata)
    lossless: bool = True
    """Read from a lossless file, and written as one where the format has the choice."""
    depth: int = 8
    """Bits of a channel: 8 or 16."""
    remarks: tuple[str, ...] = ()
    """What could not be kept, a few words each."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return size_of(self.color)


def to_unit(data: Tensor) -> Tensor:
    """uint8 or uint16 to float32 in [-1, 1]."""
    largest = torch.iinfo(data.dtype).max
    unit: Tensor = data.to(torch.float32).div_(largest / 2).sub_(1)
    return unit


def to_bytes(x: Tensor) -> Tensor:
    """[-1, 1] to uint8, rounded and clipped."""
    return _quantize(x, 8)


def _quantize(x: Tensor, depth: int) -> Tensor:
    largest = 2**depth - 1
    levels: Tensor = ((x.to(torch.float32) + 1) * (largest / 2)).round().clamp(0, largest)
    return levels.to(torch.uint8 if depth == 8 else torch.uint16)


def from_pixels(pixels: Pixels) -> tuple[Tensor, Tensor | None]:
    """(colour, alpha) of a `Picture`; gray is seen as three equal channels."""
    return split(to_unit(torch.from_numpy(np.moveaxis(pixels, 2, 0).copy())))


def split(planes: Tensor) -> tuple[Tensor, Tensor | None]:
    """(colour, alpha) of 1 to 4 planes (C, H, W); gray is seen as three equal channels."""
    colors = len(planes) - 1 + len(planes) % 2
    alpha = planes[colors:] if colors < len(planes) else None
    return planes[:colors].expand(3, -1, -1), alpha


def joined(picture: Picture, rows: slice = slice(None)) -> Tensor:
    """Planes (C, H, W); gray and alpha as the picture has them."""
    color = picture.color[:, rows]
    planes = [color.mean(0, keepdim=True) if picture.gray else color]
    planes += [] if picture.alpha is None else [picture.alpha[:, rows]]
    return torch.cat(planes)


def to_pixels(picture: Picture, depth: int) -> Pixels:
    """Whole numbers of `depth` bits; gray and alpha as the picture has them."""
    height, width = picture.size
    channels = (1 if picture.gray else 3) + (picture.alpha is not None)
    pixels: Pixels = np.empty((height, width, channels), np.uint8 if depth == 8 else np.uint16)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        pixels[strip] = _quantize(joined(picture, strip), depth).permute(1, 2, 0).numpy()
    return pixels


def from_pil(image: Image.Image) -> Pixels:
    """8 bits of a Pillow image of one of MODES; palettes are looked up."""
    mode = ("L" if image.mode in _GRAY else "RGB") + "A" * image.has_transparency_data
    return np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)


def to_pil(picture: Picture) -> Image.Image:
    """An 8-bit Pillow image of mode L, LA, RGB or RGBA."""
    pixels = to_pixels(picture, 8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def bled(picture: Picture) -> Picture:
    """With colour also where it is fully transparent: what a network should see."""
    if picture.alpha is None:
        return picture
    return replace(picture, color=transparency.bleed(picture.color, picture.alpha))


def enlarged(picture: Picture, color: Tensor) -> Picture:
    """`picture` with `color` (3, H, W), larger than its own, and all else to match."""
    size = size_of(color)
    alpha = None if picture.alpha is None else transparency.enlarge(picture.alpha, size)
    return replace(picture, color=color, alpha=alpha, metadata=_scaled(picture, size))


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """Reduce with Pillow's bicubic to (height, width); transparent pixels have their colours bled."""
    if picture.size == size:
        return picture
    reduce = _reduce_8 if picture.depth == 8 else _reduce_16
    color = picture.color.mean(0, keepdim=True) if picture.gray else picture.color
    color = reduce(color, size).expand(3, -1, -1)
    alpha = None if picture.alpha is None else reduce(picture.alpha, size)
    return replace(picture, color=color, alpha=alpha, metadata=_scaled(picture, size))


def _reduce_8(planes: Tensor, size: tuple[int, int]) -> Tensor:
    image = to_pil(Picture(planes, gray=len(planes) == 1))
    small = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return to_unit(torch.from_numpy(small.copy()).reshape(*size, -1).permute(2, 0, 1))


def _reduce_16(planes: Tensor, size: tuple[int, int]) -> Tensor:
    return bicubic(planes[None], size)[0].clamp(-1, 1)


def _scaled(picture: Picture, size: tuple[int, int]) -> Metadata:
    return picture.metadata.scaled(size[1] / picture.size[1], size[0] / picture.size[0])
