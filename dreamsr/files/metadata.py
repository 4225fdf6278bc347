"""What a file says about its pixels, and how it follows them to another size."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from PIL import Image

from dreamsr.files.provenance import Provenance, without

ORIENTATION = 0x0112
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_WIDTH, _HEIGHT, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x0100, 0x0101, 0x011A, 0x011B, 0x0128
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
XMP, ICC = 0x02BC, 0x8773
_STORAGE = frozenset(
    (
        *(254, 255, 273, 284, 297, 301, 330, XMP, 33723, 34377, ICC, 37724, 50255),
        *(33550, 33922, 34264, *range(34735, 34738)),
        *(*range(258, 267), *range(277, 282), *range(288, 294), *range(317, 326), *range(332, 348), *range(512, 533)),
    )
)
"""Tags of how a TIFF or JPEG file stores its pixels, of blocks that are kept apart from EXIF or not at all (Photoshop's
are of the old picture), and of where on Earth the old pixels lie."""
_OF_THE_FILE = ("http://ns.google.com/photos/1.0/camera/", "http://ns.adobe.com/hdr-gain-map/1.0/")
"""XMP of what phones put behind the pixels: a film, a gain map."""
T = TypeVar("T")
_TIFF_STORAGE = frozenset((_WIDTH, _HEIGHT, ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT))
_LARGEST_DPI = 65_535
_XMP_SIZES = ((b"tiff:ImageLength", b"exif:PixelYDimension"), (b"tiff:ImageWidth", b"exif:PixelXDimension"))
"""Names of the height, and of the width."""


@dataclass(frozen=True)
class Metadata:
    """Blocks as they stand in files; orientation is 1, and sizes and DPI of EXIF are those of the file read."""

    icc: bytes = b""
    exif: bytes = b""
    """Begins with b"Exif\\0\\0"."""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical, of the picture as it is now."""
    provenance: Provenance | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the blocks that are there."""
        blocks = {"ICC": self.icc, "EXIF": self.exif, "XMP": self.xmp, "DPI": self.dpi}
        return tuple(name for name, block in blocks.items() if block)

    def stripped(self) -> "Metadata":
        """Without all that tells of people, places, cameras and programs; colours need the profile."""
        return Metadata(icc=self.icc)

    def scaled(self, horizontal: float, vertical: float) -> "Metadata":
        """As many times the dots per inch: the printed size stays; and the pixels of a whole panorama."""
        xmp = _times(_times(self.xmp, b"Width|Left", horizontal), b"Height|Top", vertical)
        dpi = self.dpi and dots(self.dpi[0] * horizontal, self.dpi[1] * vertical)
        return replace(self, xmp=xmp, dpi=dpi)


def dots(horizontal: float, vertical: float) -> tuple[float, float] | None:
    """Dots per inch, or None for values that mean nothing or fit into no file."""
    pair = float(horizontal), float(vertical)
    return pair if all(0 < x <= _LARGEST_DPI for x in pair) else None


def of(image: Image.Image) -> Image.Exif | None:
    """The EXIF of a file that Pillow has opened, or None if it is malformed."""

    def checked() -> Image.Exif:
        Image.Exif().load(image.info.get("exif", b""))  # getexif is silent about errors the second time
        return image.getexif()

    return _attempt(checked)


def parsed(data: bytes) -> Image.Exif | None:
    """EXIF that begins with b"Exif\\0\\0", or None if it is malformed."""
    return _attempt(lambda: load(data))


def orientation(exif: Image.Exif | None) -> int:
    """EXIF's orientation, 1 to 8; 1, upright, where it is missing or malformed."""
    value = _attempt(lambda: exif.get(ORIENTATION)) if exif else 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def resolution(exif: Image.Exif | None) -> tuple[float, float] | None:
    """Dots per inch as EXIF or TIFF have them."""
    return _attempt(lambda: _resolution(exif)) if exif else None


def _resolution(exif: Image.Exif) -> tuple[float, float] | None:
    unit = {2: 1.0, 3: 2.54}[exif.get(_UNIT, 2)]
    return dots(float(exif[_X_RESOLUTION]) * unit, float(exif[_Y_RESOLUTION]) * unit)


def block(exif: Image.Exif | None, tag: int) -> bytes:
    """A block that a TIFF directory holds; b"" if there is none."""
    value = _attempt(lambda: exif.get(tag)) if exif else b""
    return value if isinstance(value, bytes) else b""


def clean(exif: Image.Exif | None, of_tiff: bool = False) -> bytes | None:
    """EXIF without thumbnail and storage, orientation reset; b"" if nothing is left, None if it is malformed.

    In a TIFF file, size and resolution belong to the storage too.
    """
    return None if exif is None else _attempt(lambda: _clean(exif, _STORAGE | _TIFF_STORAGE if of_tiff else _STORAGE))


def _clean(exif: Image.Exif, storage: frozenset[int]) -> bytes:
    for tag in storage.intersection(exif):
        del exif[tag]
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return _keep_text(exif).tobytes() if len(exif) else b""


class _Text(str):
    """Text that is written with the bytes that it was read from: Pillow asks for ASCII, with question marks."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1", "replace")


def _keep_text(exif: Image.Exif) -> Image.Exif:
    """With the text that is not ASCII."""
    for directory in (exif, *(exif.get_ifd(tag) for tag in (EXIF_DIRECTORY, GPS_DIRECTORY) if tag in exif)):
        for tag, value in list(directory.items()):
            if isinstance(value, str) and not value.isascii():
                directory[tag] = _Text(value)
    return exif


def load(exif: bytes) -> Image.Exif:
    """EXIF that `clean` has written, or an empty one."""
    loaded = Image.Exif()
    loaded.load(exif)
    return _keep_text(loaded)


def fitted(metadata: Metadata, size: tuple[int, int], kind: str) -> bytes:
    """EXIF for a file of `kind` (of Pillow's) with the pixel size (height, width) and the DPI of the picture in it."""
    exif = load(metadata.exif)
    inner = exif.get_ifd(EXIF_DIRECTORY) if EXIF_DIRECTORY in exif else {}
    for directory, tags in ((exif, (_HEIGHT, _WIDTH)), (inner, (_PIXEL_HEIGHT, _PIXEL_WIDTH))):
        directory.update({tag: n for tag, n in zip(tags, size, strict=True) if tag in directory})
    if kind == "AVIF" and exif.get(ORIENTATION) == 1:
        del exif[ORIENTATION]  # else Pillow takes it out, and spoils text that is not ASCII
    if metadata.dpi and (kind in ("WEBP", "AVIF") or _X_RESOLUTION in exif):
        exif.update({_X_RESOLUTION: metadata.dpi[0], _Y_RESOLUTION: metadata.dpi[1], _UNIT: 2})
    return exif.tobytes() if len(exif) else b""


def upright(xmp: bytes) -> bytes:
    """XMP whose orientation, if it has one, is 1: it no longer asks for a rotation."""
    return _set(xmp, b"tiff:Orientation", 1)


def resized(xmp: bytes, size: tuple[int, int]) -> bytes:
    """XMP with the pixel size (height, width), where it has one."""
    for names, length in zip(_XMP_SIZES, size, strict=True):
        for name in names:
            xmp = _set(xmp, name, length)
    return xmp


def alone(xmp: bytes) -> bytes:
    """XMP of the picture itself, without what else was in its file."""
    for namespace in _OF_THE_FILE:
        xmp = without(xmp, namespace)
    return xmp


def _times(xmp: bytes, sides: bytes, factor: float) -> bytes:
    """XMP with the pixels of panoramas along `sides` that many times as large."""

    def larger(match: re.Match[bytes]) -> bytes:
        return match[1] + b"%d" % round(int(match[2]) * factor)

    return re.sub(rb"(GPano:\w*(?:%b)Pixels\s*(?:=\s*[\"']|>)\s*)(\d{1,9})(?!\d)" % sides, larger, xmp)


def _set(xmp: bytes, name: bytes, value: int) -> bytes:
    return re.sub(rb"(" + name + rb"\s*(?:=\s*[\"']|>)\s*)\d+", rb"\g<1>%d" % value, xmp)


def _attempt(function: Callable[[], T]) -> T | None:
    """None where Pillow, which raises all kinds of errors on odd EXIF, raises one."""
    try:
        return function()
    except Exception:
        return None
