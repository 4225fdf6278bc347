"""What Pillow does not cover: 16 bits of more than gray, and TIFF of every kind. This is libvips."""

import logging
from typing import Any

import numpy as np
import pyvips

from dreamsr.files.picture import Pixels

# what a broken file gives reason to say is in the error; and a file that was read must not stay open
logging.getLogger("pyvips").setLevel(logging.CRITICAL)
pyvips.cache_set_max(0)
_TYPES: dict[str, type[np.unsignedinteger[Any]]] = {"uchar": np.uint8, "ushort": np.uint16}


def decode(data: bytes) -> Pixels:
    """The pixels of a PNG or TIFF file of 8 or 16 bits; raises ValueError for a broken one.

    Palettes are resolved, and colour that was multiplied by alpha is divided by it.
    """
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
        kind = image.format
        if kind not in _TYPES:
            raise ValueError(f"its samples are of type {kind}")
        shape = (image.height, image.width, image.bands)
        pixels: Pixels = np.ndarray(shape, _TYPES[kind], image.write_to_memory())
    except pyvips.Error as error:
        raise ValueError(_reason(error)) from error
    return pixels


def encode_png(pixels: Pixels) -> bytes:
    """A PNG file of uint16 `pixels` and nothing else; raises OSError."""
    height, width, channels = pixels.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, channels, "ushort")
    image = image.copy(interpretation="grey16" if channels < 3 else "rgb16")
    try:
        data: bytes = image.pngsave_buffer(compression=4, filter="sub", keep="none")
    except pyvips.Error as error:
        raise OSError(_reason(error)) from error
    return data


def _reason(error: pyvips.Error) -> str:
    """The first line of libvips' own, which is the cause of the others."""
    lines = [line for line in str(error.detail).splitlines() if line.strip()]
    return lines[0] if lines else str(error.message)
