"""16-bit pixels, which Pillow reads and writes for gray alone: libvips."""

import logging
from pathlib import Path

import numpy as np
import pyvips

from dreamsr.files.metadata import Metadata
from dreamsr.files.picture import Pixels

# what a broken file gives reason to say is in the error; and a file that was read must not stay open
logging.getLogger("pyvips").setLevel(logging.CRITICAL)
pyvips.cache_set_max(0)
_MM_PER_INCH = 25.4


def decode(data: bytes, premultiplied: bool = False) -> Pixels:
    """The pixels of a 16-bit PNG or TIFF file; raises ValueError for a broken one."""
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
        if premultiplied:
            image = image.unpremultiply(max_alpha=65535).rint().cast("ushort")
        if image.format != "ushort":
            raise ValueError(f"its samples are {image.format}")
        pixels: Pixels = np.ndarray((image.height, image.width, image.bands), np.uint16, image.write_to_memory())
    except pyvips.Error as error:
        raise ValueError(_reason(error)) from error
    return pixels


def write_png(path: Path, pixels: Pixels, metadata: Metadata) -> None:
    """A PNG file of uint16 `pixels`; raises OSError."""
    height, width, channels = pixels.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, channels, "ushort")
    image = image.copy(interpretation="grey16" if channels < 3 else "rgb16")
    if metadata.dpi:
        image = image.copy(xres=metadata.dpi[0] / _MM_PER_INCH, yres=metadata.dpi[1] / _MM_PER_INCH)
    blocks = {"icc-profile-data": metadata.icc, "exif-data": metadata.exif, "xmp-data": metadata.xmp}
    for name, block in blocks.items():
        if block:
            image.set_type(pyvips.GValue.blob_type, name, block)
    try:
        image.pngsave(str(path), compression=4, filter="sub")
    except pyvips.Error as error:
        raise OSError(_reason(error)) from error


def _reason(error: pyvips.Error) -> str:
    """The last line of libvips' own, which is the most precise."""
    lines = [line for line in str(error.detail).splitlines() if line.strip()]
    return lines[-1] if lines else error.message
