"""From files to pictures."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from dreamsr.errors import ImageError
from dreamsr.files import heif, metadata, provenance, tiff, vips
from dreamsr.files.metadata import Metadata
from dreamsr.files.picture import MODES, Picture, Pixels, from_pil, from_pixels

KINDS = "PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP"
MAX_PIXELS = 500_000_000
_BUT_TIFF = ("PNG", "JPEG", "WEBP", "AVIF", "BMP")
_KINDS = {"MPO": "JPEG", "HEIF": "HEIC"}
"""Where Pillow's name is another."""
_MAX_PIXELS_PER_BYTE = 20_000
"""More than Deflate, LZW, run lengths and JPEG come to; a file that claims more has lost its end."""
_BOUNDED_TIFF = (1, 5, 6, 7, 8, 32773, 32946)
_JPEG_IN_TIFF = (6, 7)
_PNG_MODES = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}
_CHANNELS = {"1": 1, "L": 1, "LA": 2, "P": 3, "RGB": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4}
_GAMMA = 1 / 2.2
_SRGB = bytes([1, 13, 0, 1])
"""Code points of ITU-T H.273: primaries, transfer function, matrix, full range."""
_FLIPS = {2: (False, (1,)), 3: (False, (0, 1)), 4: (False, (0,)), 5: (True, ())}
_FLIPS |= {6: (True, (1,)), 7: (True, (0, 1)), 8: (True, (0,))}
"""EXIF orientation: whether rows become columns, and the axes that are then reversed."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded."""

    format: str
    """PNG, JPEG, WEBP, AVIF, HEIC, TIFF or BMP"""
    size: tuple[int, int]
    """(height, width), upright"""
    mode: str
    """1, L, LA, P, RGB, RGBA, CMYK ..."""
    depth: int
    """8 or 16 bits of a channel that are kept"""
    alpha: bool


@dataclass(frozen=True)
class _Source:
    """An open file: `image` is None where Pillow cannot read it."""

    header: Header
    image: Image.Image | None
    exif: Image.Exif | None
    lossless: bool
    remarks: tuple[str, ...] = ()


def probe(path: Path) -> Header:
    """The header alone, in a few milliseconds; raises ImageError as `read` does."""
    with _guarded(path), path.open("rb") as file:
        return _open(file, path).header


def describe(path: Path) -> tuple[Header, Metadata, tuple[str, ...]]:
    """The header of a picture of any size, its metadata, and remarks; pixels are looked at only if `read` takes them.

    Raises ImageError as `read` does, for too many pixels aside.
    """
    with _guarded(path), path.open("rb") as file:
        source = _open(file, path, limited=False)
        if math.prod(source.header.size) > MAX_PIXELS:
            block, lost = _metadata(source, source.exif)
            return source.header, block, (*source.remarks, *lost)
    picture = read(path)
    return source.header, picture.metadata, picture.remarks


def read(path: Path) -> Picture:
    """Decode a PNG, JPEG, WebP, AVIF, HEIC, TIFF or BMP file; raises ImageError in one line for anything else."""
    with _guarded(path), path.open("rb") as file:
        source = _open(file, path)
        pixels, converted = _pixels(source, file)
        exif = source.exif if source.image is None else metadata.of(source.image)
        color, alpha = from_pixels(_turned(pixels, metadata.orientation(exif)))
        block, lost = _metadata(source, exif)
        return Picture(
            color,
            alpha,
            gray=pixels.shape[2] < 3,
            metadata=block,
            lossless=source.lossless,
            depth=source.header.depth,
            remarks=(*source.remarks, *converted, *lost),
        )


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """One line for whatever a broken file makes of a decoder."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise ImageError(f"{path} is {'empty' if empty else f'not a {KINDS} picture'}") from None
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except MemoryError:
        raise ImageError(f"{path} does not fit into memory", "cut it into parts") from None
    except Exception as error:  # decoders raise all kinds of errors
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path} cannot be read: {reason}") from error


def _open(file: IO[bytes], path: Path, limited: bool = True) -> _Source:
    head = file.read(heif.HEAD)
    file.seek(0)
    if tiff.recognises(head):
        return _open_tiff(file, path, limited)
    heic = heif.is_heic(head)
    if heic:
        heif.enable_heic(path)
    image = Image.open(file, formats=("HEIF",) if heic else _BUT_TIFF)
    kind = _KINDS.get(str(image.format), str(image.format))
    if kind not in ("JPEG", "HEIC") and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{path} is animated; only still pictures are upscaled")
    _check_size(path, image.size, limited, bounded=kind not in ("WEBP", "AVIF", "HEIC"))
    sixteen = kind == "PNG" and head[24] == 16
    if kind == "PNG" and head[25] == 0 and head[24] < 8 and "transparency" in image.info:
        image.info["transparency"] *= 255 // (2 ** head[24] - 1)  # Pillow scales the pixels alone
    alpha = image.has_transparency_data
    mode = image.mode
    if sixteen:
        mode = _PNG_MODES[head[25]]
        mode += "A" if alpha and not mode.endswith("A") else ""
    exif = _png_exif(image, path) if kind == "PNG" else metadata.of(image)
    return _Source(
        Header(kind, _upright_size(image.size, exif), mode, 16 if sixteen else 8, alpha),
        image,
        exif,
        lossless=kind in ("PNG", "BMP") or (kind == "WEBP" and _is_lossless_webp(file)),
        remarks=_passed_over(kind, image, file),
    )


def _passed_over(kind: str, image: Image.Image, file: IO[bytes]) -> tuple[str, ...]:
    """What Pillow does not tell of a file."""
    if kind == "PNG" and (points := _png_chunk(file, b"cICP", b"IDAT")[:4]) not in (b"", _SRGB):
        return (f"cICP {'-'.join(map(str, points))} is not kept",)
    frames = getattr(image, "n_frames", 1)
    rest = (f"only the {'main one' if kind == 'HEIC' else 'first'} of {frames} pictures in it",) if frames > 1 else ()
    lost = heif.remarks(file, image.info.get("icc_profile", b"")) if kind in ("AVIF", "HEIC") else ()
    return (*lost, *rest)


def _open_tiff(file: IO[bytes], path: Path, limited: bool) -> _Source:
    samples, exif = tiff.read(file, path)
    size = samples.size[::-1]
    _check_size(path, size, limited, bounded=samples.compression in _BOUNDED_TIFF)
    return _Source(
        Header("TIFF", _upright_size(size, exif), samples.mode, samples.depth, samples.alpha),
        None,
        exif,
        lossless=samples.compression not in _JPEG_IN_TIFF,
    )


def _check_size(path: Path, size: tuple[int, int], limited: bool, bounded: bool) -> None:
    """`size` is (width, height); files can claim what they do not hold."""
    width, height = size
    if min(size) < 1:
        raise ImageError(f"{path} cannot be read: it has no pixels")
    if limited and width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} megapixels"
        raise ImageError(f"{path} is {width}x{height}, more than {limit}", "cut it into parts and upscale those")
    if bounded and width * height > _MAX_PIXELS_PER_BYTE * path.stat().st_size:
        raise ImageError(f"{path} cannot be read: {path.stat().st_size} bytes are too few for {width}x{height} pixels")


def _upright_size(size: tuple[int, int], exif: Image.Exif | None) -> tuple[int, int]:
    """(height, width) of what is stored as (width, height)."""
    return size if metadata.orientation(exif) >= 5 else (size[1], size[0])


def _png_exif(image: Image.Image, path: Path) -> Image.Exif | None:
    """EXIF in any place: Pillow would decode the pixels to look for some behind them."""
    if image.info.keys() & {"exif", "Raw profile type exif"}:
        return metadata.of(image)
    with path.open("rb", buffering=0) as unread:  # what is passed over is not read
        return metadata.parsed(b"Exif\0\0" + _png_chunk(unread, b"eXIf", b"IEND"))


def _png_chunk(file: IO[bytes], name: bytes, end: bytes) -> bytes:
    """The first chunk of a name in a PNG file before one named `end`; b"" if there is none."""
    place = file.tell()
    file.seek(8)
    found = b""
    while not found and len(head := file.read(8)) == 8 and head[4:] != end:
        size = int.from_bytes(head[:4], "big")
        found = file.read(size) if head[4:] == name else b""
        file.seek(size + 4 - len(found), io.SEEK_CUR)
    file.seek(place)
    return found


def _is_lossless_webp(file: IO[bytes]) -> bool:
    """Whether the chunk of pixels is VP8L."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8L", b"VP8 "):
            return head[:4] == b"VP8L"
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, io.SEEK_CUR)
    return False


def _pixels(source: _Source, file: IO[bytes]) -> tuple[Pixels, tuple[str, ...]]:
    """As stored, not yet upright; and remarks."""
    image, header = source.image, source.header
    lost: tuple[str, ...] = ()
    if image is not None:
        image.load()  # also for 16 bits: metadata may stand behind the pixels
    if image is None or header.depth == 16:
        pixels, lost = _vips_pixels(source, file)
        if header.mode != "CMYK":
            return pixels, lost
        inks = (pixels // (257 if pixels.itemsize == 2 else 1)).astype(np.uint8)
        image = Image.frombytes("CMYK", pixels.shape[1::-1], inks.tobytes())
    if image.mode == "CMYK":
        image, remark = _from_cmyk(image, _profile(source))
        return np.asarray(image), (*lost, remark)
    if image.mode not in MODES:
        raise ValueError(f"pixels of kind {image.mode} are not supported")
    return from_pil(image), ()


def _vips_pixels(source: _Source, file: IO[bytes]) -> tuple[Pixels, tuple[str, ...]]:
    file.seek(0)
    pixels, header = vips.decode(file.read()), source.header
    channels = _CHANNELS[header.mode]
    if sorted(pixels.shape[:2]) != sorted(header.size) or pixels.shape[2] < channels:
        raise ValueError(f"its pixels are {pixels.shape[1]}x{pixels.shape[0]} of {pixels.shape[2]} channels")
    lost = (f"channels beyond {header.mode} are left out",) if pixels.shape[2] > channels else ()
    return pixels[..., :channels], lost


def _from_cmyk(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """sRGB through the profile of the inks, if there is a good one."""
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
        if inks:
            flags, intent = ImageCms.Flags.BLACKPOINTCOMPENSATION, ImageCms.Intent.RELATIVE_COLORIMETRIC
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, inks, srgb, intent, "RGB", flags=flags)
            assert converted is not None
            return converted, "CMYK converted to sRGB"
    except (OSError, ImageCms.PyCMSError):
        pass
    return image.convert("RGB"), "CMYK without a usable profile converted to RGB"


def _profile(source: _Source) -> bytes:
    info = source.image.info if source.image else {}
    profile: bytes = info.get("icc_profile") or metadata.block(source.exif, metadata.ICC)
    return profile


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    swapped, reversed_axes = _FLIPS.get(orientation, (False, ()))
    return np.flip(np.swapaxes(pixels, 0, 1) if swapped else pixels, reversed_axes)


def _metadata(source: _Source, exif: Image.Exif | None) -> tuple[Metadata, tuple[str, ...]]:
    """What is carried over, and remarks on what is not."""
    info = source.image.info if source.image else {}
    profile, xmp = _profile(source), info.get("xmp") or metadata.block(exif, metadata.XMP)
    dpi = metadata.resolution(exif)
    if source.header.format != "JPEG" or info.get("jfif_unit"):  # Pillow makes 72 of no resolution
        dpi = metadata.dots(*info["dpi"]) if "dpi" in info else dpi
    if dpi and metadata.orientation(exif) >= 5:
        dpi = dpi[::-1]
    well_formed = not xmp or provenance.is_packet(xmp)
    kept_xmp = xmp if well_formed else b""
    kept_exif = metadata.clean(exif, of_tiff=source.header.format == "TIFF")
    gamma = info.get("gamma", _GAMMA)
    remarks = {
        "EXIF is malformed and left out": kept_exif is None,
        "XMP is malformed and left out": not well_formed,
        f"the gamma of {gamma:.3g} is not kept": abs(gamma - _GAMMA) > 0.01 and not profile and "srgb" not in info,
    }
    block = Metadata(
        icc=profile if source.header.mode != "CMYK" else b"",
        exif=kept_exif or b"",
        xmp=metadata.upright(metadata.alone(provenance.removed(kept_xmp))),
        dpi=dpi,
        provenance=provenance.extract(kept_xmp),
    )
    return block, tuple(text for text, holds in remarks.items() if holds)
