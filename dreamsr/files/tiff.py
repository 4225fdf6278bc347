"""TIFF directories: what the samples are, before they are read; and files of 8 and 16 bits with EXIF in them."""

import zlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dreamsr.errors import ImageError
from dreamsr.files import metadata
from dreamsr.files.metadata import Metadata
from dreamsr.files.picture import Pixels

_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _PREDICTOR, _EXTRA, _FORMAT = 282, 283, 296, 317, 338, 339
_RESOLUTION = (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT)
_STRIP_SIZE = 2**20
_LONG, _UNDEFINED = 4, 7
_MODES = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr"}


@dataclass(frozen=True)
class Samples:
    """What the directory of a single picture says."""

    size: tuple[int, int]
    """(height, width) as stored"""
    mode: str
    """1, L, LA, P, RGB, RGBA, CMYK or YCbCr"""
    depth: int
    alpha: bool
    compression: int


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a TIFF file."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(file: IO[bytes], path: Path) -> tuple[Samples, Image.Exif]:
    """The samples and the tags; raises ImageError for what is not one picture of 8 or 16-bit integers."""
    directory = _directory(file, path)
    exif = Image.Exif()
    exif.endian, exif.bigtiff = directory._endian, directory._bigtiff
    exif.load_from_fp(file, directory.offset)
    return _samples(directory, path), exif


def _directory(file: IO[bytes], path: Path) -> ImageFileDirectory_v2:
    """The directory of the only picture; reduced copies of it do not count."""
    file.seek(0)
    head = file.read(8)
    if head[:4] == b"MM\0+":  # which Pillow does not know
        raise ImageError(f"{path} is a big-endian BigTIFF, which is not read", "convert it")
    directory = ImageFileDirectory_v2(head + file.read(8) if 43 in head[2:4] else head)
    found: list[int] = []
    seen: set[int] = set()
    offset = directory.next
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        directory.load(file)
        if not found or not directory.get(_SUBFILE, 0) & 1:
            found.append(offset)
        offset = directory.next
    if len(found) > 1:
        raise ImageError(f"{path} has {len(found)} pages; only single pictures are upscaled", "split it first")
    file.seek(found[0])
    directory.load(file)
    return directory


def _samples(directory: ImageFileDirectory_v2, path: Path) -> Samples:
    mode = _MODES.get(directory.get(_PHOTOMETRIC, 1), "other colours")
    bits, extra = _tuple(directory.get(_BITS, 1)), _tuple(directory.get(_EXTRA, ()))
    kind = {2: "signed", 3: "float"}.get(max(_tuple(directory.get(_FORMAT, 1))), "integer")
    allowed = {8, 16} if mode in ("L", "RGB", "CMYK") else {8}
    allowed |= {1, 2, 4} if mode in ("L", "P") else set()
    if kind != "integer" or len(set(bits)) > 1 or bits[0] not in allowed or mode not in _MODES.values():
        found = f"{'/'.join(map(str, sorted(set(bits))))}-bit {kind} samples of {mode}"
        raise ImageError(f"{path} holds {found}; expected integers of 8 or 16 bits, gray, RGB or CMYK", "convert it")
    if _LENGTH not in directory or _WIDTH not in directory:
        raise ImageError(f"{path} cannot be read: its directory is incomplete")
    alpha = mode in ("L", "RGB") and bool(extra) and extra[0] in (1, 2)
    return Samples(
        (int(directory[_LENGTH]), int(directory[_WIDTH])),
        "1" if mode == "L" and bits[0] == 1 and not alpha else mode + "A" * alpha,
        16 if bits[0] == 16 and mode != "CMYK" else 8,
        alpha,
        directory.get(_COMPRESSION, 1),
    )


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def write(path: Path, pixels: Pixels, block: Metadata) -> None:
    """Deflate-compressed strips with differences along rows, as every reader knows them."""
    height, width, channels = pixels.shape
    rows = max(1, _STRIP_SIZE // (width * channels * pixels.itemsize))
    strips = [zlib.compress(_differences(pixels[top : top + rows]), 6) for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    directory = ImageFileDirectory_v2(prefix=b"II")
    _describe(directory, block)
    directory[_WIDTH], directory[_LENGTH], directory[_SAMPLES] = width, height, channels
    directory[_BITS] = (8 * pixels.itemsize,) * channels
    directory[_PHOTOMETRIC], directory[_PLANAR] = 2 if channels > 2 else 1, 1
    if channels in (2, 4):
        directory[_EXTRA] = 2
    directory[_COMPRESSION], directory[_PREDICTOR] = 8, 2
    directory.tagtype[_STRIP_BYTES] = directory.tagtype[_STRIP_OFFSETS] = _LONG
    directory[_ROWS_PER_STRIP] = rows
    directory[_STRIP_BYTES] = tuple(lengths)
    directory[_STRIP_OFFSETS] = tuple(accumulate(lengths[:-1], initial=0))  # counted from the first strip
    with path.open("wb") as file:
        directory.save(file)
        file.writelines(strips)


def _describe(directory: ImageFileDirectory_v2, block: Metadata) -> None:
    exif = metadata.load(block.exif)
    senseless = _RESOLUTION if exif.get(_RESOLUTION_UNIT, 2) not in (1, 2, 3) else ()
    for tag in set(exif).difference(senseless):
        inner = tag in (metadata.EXIF_DIRECTORY, metadata.GPS_DIRECTORY)
        directory[tag] = _inner(exif, tag) if inner else exif[tag]
    if block.dpi:
        directory[_X_RESOLUTION], directory[_Y_RESOLUTION], directory[_RESOLUTION_UNIT] = *block.dpi, 2
    for tag, data in ((metadata.ICC, block.icc), (metadata.XMP, block.xmp)):
        if data:
            directory.tagtype[tag] = _UNDEFINED
            directory[tag] = data


def _inner(exif: Image.Exif, tag: int) -> dict[int, Any]:
    inner = dict(exif.get_ifd(tag))
    if metadata.INTEROPERABILITY in inner:
        inner[metadata.INTEROPERABILITY] = dict(exif.get_ifd(metadata.INTEROPERABILITY))
    return inner


def _differences(pixels: Pixels) -> bytes:
    """Every sample less the one to its left, modulo its range, in the byte order of the file."""
    rest = pixels.copy()
    rest[:, 1:] -= pixels[:, :-1]
    return rest.astype(rest.dtype.newbyteorder("<"), copy=False).tobytes()
