"""From pictures to files."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo, putchunk

from dreamsr.errors import ImageError
from dreamsr.files import metadata, provenance, tiff, vips
from dreamsr.files.atomic import atomic
from dreamsr.files.metadata import Metadata
from dreamsr.files.picture import Picture, to_pil, to_pixels

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
QUALITY = 95
"""Of JPEG, AVIF and lossy WebP: 1 to 100."""
_LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 2},
    "BMP": {},
    "WEBP": {"lossless": True, "exact": True},
}
_LOSSY: dict[str, dict[str, Any]] = {
    "JPEG": {"subsampling": 0},
    "WEBP": {"method": 4},
    # one thread and tile, so that the bytes do not depend on the machine; slower is hardly smaller
    "AVIF": {"speed": 9, "max_threads": 1, "autotiling": False},
}
_NAMES = {"WEBP": "WebP"}
_SIDES = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 32_768, "BMP": 2**31 - 1, "PNG": 2**31 - 1, "TIFF": 2**31 - 1}
_PNG_HEADER = 33
"""Bytes of signature and IHDR."""
_METRES_PER_INCH = 0.0254
_TIFF_BYTES = 2**32 - 2**26
_AVIF_PIXELS = 2**28
"""That decoders take, as libavif has it."""
_JPEG_EXIF, _JPEG_XMP = 65_533, 65_504 - 2_048
"""Bytes of metadata that fit into a JPEG segment, where XMP shares its own with the provenance."""


def obstacle(suffix: str, size: tuple[int, int], alpha: bool = False, depth: int = 8) -> str:
    """Why a file of this suffix cannot hold a picture of `size` (height, width), in a few words; "" if it can."""
    kind = FORMATS[suffix.lower()]
    name, longest = _NAMES.get(kind, kind), _SIDES[kind]
    if alpha and kind in ("JPEG", "BMP"):
        return f"{name} has no transparency"
    if depth == 16 and kind not in ("PNG", "TIFF"):
        return f"{name} holds 8 bits"
    if max(size) > longest:
        return f"{name} holds at most {longest} pixels a side"
    if kind == "TIFF" and size[0] * size[1] * depth // 2 > _TIFF_BYTES:
        return f"{name} holds at most 4 GiB"
    if kind == "AVIF" and size[0] * size[1] > _AVIF_PIXELS:
        return f"{name} holds at most {_AVIF_PIXELS // 10**6} megapixels"
    return ""


def write(
    path: Path, picture: Picture, quality: int | None = None, begun: Callable[[Path], None] | None = None
) -> tuple[str, ...]:
    """Encode by the suffix of `path`; returns remarks on what the format made of it, a few words each.

    Lossless if the picture came from a lossless file and no `quality` (1 to 100) is given, where the
    format has the choice; 16 bits become 8 where it holds no more. Raises ImageError for what it cannot
    hold at all: transparency, or too many pixels.
    begun: is told where the whole file is before it takes its name.
    """
    suffix, kind = path.suffix.lower(), FORMATS[path.suffix.lower()]
    if reason := obstacle(suffix, picture.size, picture.alpha is not None):
        raise ImageError(f"{path}: {reason}, which this picture needs", "write PNG")
    reduced = picture.depth == 16 and bool(obstacle(suffix, picture.size, depth=16))
    with atomic(path) as temporary:
        try:
            block, remarks = _fitted(picture, kind)
            _encode(temporary, kind, picture, 8 if reduced else picture.depth, block, quality)
        except (ValueError, TypeError, OverflowError, struct.error) as error:  # of odd metadata
            raise ImageError(f"{path} cannot be written: {error}") from error
        if begun:
            begun(temporary)
    return (*remarks, "16 bits reduced to 8") if reduced else remarks


def _encode(path: Path, kind: str, picture: Picture, depth: int, block: Metadata, quality: int | None) -> None:
    if kind == "TIFF":
        tiff.write(path, to_pixels(picture, depth), block)
    elif depth == 16:
        _write_deep_png(path, vips.encode_png(to_pixels(picture, depth)), block)
    else:
        lossless = picture.lossless and quality is None
        if kind in _LOSSY and not (lossless and kind in _LOSSLESS):
            options = {**_LOSSY[kind], "quality": QUALITY if quality is None else quality}
            options |= {"subsampling": "4:0:0" if picture.gray else "4:4:4"} if kind == "AVIF" else {}
        else:
            options = _LOSSLESS[kind]
        to_pil(picture).save(path, kind, **options, **_blocks(kind, block))


def _write_deep_png(path: Path, data: bytes, block: Metadata) -> None:
    """`data` with metadata in it; libvips would add values of its own to EXIF, and a resolution."""
    with path.open("wb") as file:
        file.write(data[:_PNG_HEADER])
        if block.icc:
            putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(block.icc))
        if block.dpi:
            putchunk(file, b"pHYs", struct.pack(">IIB", *(round(x / _METRES_PER_INCH) for x in block.dpi), 1))
        if block.exif:
            putchunk(file, b"eXIf", block.exif.removeprefix(b"Exif\0\0"))
        if block.xmp:
            putchunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0", block.xmp)
        file.write(data[data.index(b"IDAT") - 4 :])


def _blocks(kind: str, block: Metadata) -> dict[str, Any]:
    """Metadata as Pillow takes it."""
    options: dict[str, Any] = {"icc_profile": block.icc, "exif": block.exif, "xmp": block.xmp, "dpi": block.dpi}
    if kind == "PNG" and block.xmp:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", block.xmp.decode("utf-8", "replace"))
    if kind == "BMP":
        options["dpi"] = block.dpi or (0, 0)  # else Pillow writes 96
    return {key: value for key, value in options.items() if value}


def _fitted(picture: Picture, kind: str) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata of the size that is written, and remarks on what the format cannot hold."""
    block = picture.metadata
    if kind == "BMP":
        lost = [name for name in block.kinds if name != "DPI"]
        return Metadata(dpi=block.dpi), (f"BMP holds no {', '.join(lost)}",) if lost else ()
    as_rgb = kind == "WEBP" or (kind == "AVIF" and picture.alpha is not None)
    gray = as_rgb and block.icc[16:20] == b"GRAY"
    exif = metadata.fitted(block, picture.size, kind)
    xmp = metadata.resized(block.xmp, picture.size)
    too_long = {"EXIF": kind == "JPEG" and len(exif) > _JPEG_EXIF, "XMP": kind == "JPEG" and len(xmp) > _JPEG_XMP}
    exif, xmp = b"" if too_long["EXIF"] else exif, b"" if too_long["XMP"] else xmp
    if block.provenance:
        xmp = provenance.embed(xmp, block.provenance)
    remarks = [f"{_NAMES.get(kind, kind)} holds no profile of grays"] * gray
    remarks += [f"{name} is too long for JPEG and left out" for name, holds in too_long.items() if holds]
    return replace(block, icc=b"" if gray else block.icc, exif=exif, xmp=xmp), tuple(remarks)
