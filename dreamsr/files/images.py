"""Pictures on disk and as tensors; nothing is written by halves."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dreamsr.errors import ImageError, UsageError
from dreamsr.files.atomic import atomic

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
SUFFIXES = tuple(FORMATS)
KINDS = "PNG, JPEG or WebP"
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "BMP": {},
}
_ORIENTATION = 0x0112
_JPEG_EXIF = 65_533
"""Bytes of EXIF that fit into a JPEG segment."""

# set once: the filters are global, and pictures are decoded in several threads
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Picture:
    """A decoded picture: colour (3, H, W) and perhaps alpha (1, H, W), float32 in [-1, 1]."""

    color: Tensor
    alpha: Tensor | None = None
    gray: bool = False
    """Stored with one colour channel, and written so."""
    metadata: dict[str, bytes] = field(default_factory=dict)
    """`icc_profile` and `exif` as Pillow takes them, orientation already applied."""
    lossless: bool = True
    remarks: tuple[str, ...] = ()
    """What the user should know about the result."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.color.shape[-2], self.color.shape[-1]


def read(path: Path) -> Picture:
    """Decode a PNG, JPEG or WebP file; raises ImageError in one line for anything else."""
    try:
        with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
            return _decode(image, path)
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise ImageError(f"{path} is {'empty' if empty else 'not a PNG, JPEG or WebP picture'}") from None
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded."""

    format: str
    """PNG, JPEG, WEBP, TIFF or BMP"""
    size: tuple[int, int]
    """(height, width), upright"""
    mode: str
    depth: int
    """8 or 16 bits of a channel that are kept"""
    alpha: bool


def probe(path: Path) -> Header:
    """The header of a picture file; raises ImageError like `read`."""
    try:
        with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            size = (width, height) if turned else (height, width)
            return Header(image.format or "", size, image.mode, 8, image.has_transparency_data)
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise ImageError(f"{path} is {'empty' if empty else 'not a PNG, JPEG or WebP picture'}") from None
    except Exception as error:  # Pillow raises all kinds of errors on odd headers
        raise ImageError(f"{path} cannot be read: {error}") from error


def obstacle(suffix: str, size: tuple[int, int], alpha: bool = False, depth: int = 8) -> str:
    """Why a file of this suffix cannot hold a picture of `size` (height, width), in a few words; "" if it can."""
    kind = FORMATS[suffix.lower()]
    if alpha and kind in ("JPEG", "BMP"):
        return f"{kind} has no transparency"
    if depth == 16 and kind not in ("PNG", "TIFF"):
        return f"{kind} holds 8 bits"
    longest = {"JPEG": 65_500, "WEBP": 16_383}.get(kind, max(size))
    return f"{kind} holds at most {longest} pixels a side" if max(size) > longest else ""


def _decode(image: Image.Image, path: Path) -> Picture:
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{path} is animated; only still pictures are upscaled")
    image.load()
    lossless = image.format == "PNG"
    profile = image.info.get("icc_profile")
    image, exif = _upright(image)
    # the profile of CMYK inks does not describe the RGB that is written
    kept = {"icc_profile": profile if image.mode != "CMYK" else None, "exif": exif}
    metadata = {key: value for key, value in kept.items() if value}
    gray = image.mode in ("1", "L", "LA", "I;16")
    alpha = None
    if image.mode == "I;16":
        image = image.point(lambda v: v * (255 / 65535) + 0.5).convert("L")
        image.info.pop("transparency", None)
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        alpha = _to_tensor(image.getchannel("A"))
    return Picture(_to_tensor(image.convert("RGB")), alpha, gray, metadata, lossless)


def _upright(image: Image.Image) -> tuple[Image.Image, bytes]:
    """The picture turned as its EXIF says, and that EXIF with the orientation reset; b"" for none."""
    try:
        turned = _ORIENTATION in image.getexif()
        image = ImageOps.exif_transpose(image)
        exif = image.getexif()
        if turned:
            exif[_ORIENTATION] = 1
        return image, exif.tobytes() if len(exif) else b""
    except Exception:  # Pillow raises all kinds of errors on odd EXIF, and the pixels are good
        return image, b""


def _to_tensor(image: Image.Image) -> Tensor:
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return to_unit(data.view(image.height, image.width, -1).permute(2, 0, 1))


def to_unit(data: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return data.to(torch.float32) / 127.5 - 1


def to_bytes(x: Tensor) -> Tensor:
    """[-1, 1] to uint8, rounded and clipped."""
    return ((x.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pil(picture: Picture) -> Image.Image:
    """An 8-bit Pillow image of mode L, LA, RGB or RGBA."""
    color = picture.color.mean(0, keepdim=True) if picture.gray else picture.color
    planes = color if picture.alpha is None else torch.cat([color, picture.alpha])
    data = to_bytes(planes).permute(1, 2, 0).contiguous()
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[data.shape[-1]]
    return Image.frombytes(mode, (data.shape[1], data.shape[0]), data.numpy().tobytes())


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """Reduce with Pillow's bicubic to (height, width)."""
    if picture.size == size:
        return picture
    small = to_pil(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    planes = _to_tensor(small)
    colors = 1 if picture.gray else 3
    alpha = None if picture.alpha is None else planes[colors:]
    color = planes[:colors].expand(3, -1, -1)
    return Picture(color, alpha, picture.gray, picture.metadata, picture.lossless)


def write(path: Path, picture: Picture, quality: int | None = None) -> tuple[str, ...]:
    """Encode by the suffix of `path`; returns remarks; raises ImageError for what the format cannot hold.

    quality: 1 to 100 for JPEG and WebP, which is lossy then.
    """
    kind = FORMATS[path.suffix.lower()]
    if kind == "JPEG" and picture.alpha is not None:
        raise ImageError(f"{path}: JPEG has no transparency, which this picture has", "write PNG or WebP")
    options = {"lossless": True} if kind == "WEBP" and picture.lossless and not quality else _SAVE_OPTIONS[kind]
    if quality and kind in ("JPEG", "WEBP"):
        options = {**options, "quality": quality}
    too_long = kind == "JPEG" and len(picture.metadata.get("exif", b"")) > _JPEG_EXIF
    metadata = {k: v for k, v in picture.metadata.items() if not (too_long and k == "exif")}
    with atomic(path) as temporary:
        try:
            to_pil(picture).save(temporary, kind, **options, **metadata)
        except ValueError as error:
            raise ImageError(f"{path} cannot be written: {error}") from error
    return ()


def write_sheet(path: Path, columns: Sequence[Sequence[Tensor]]) -> None:
    """A PNG of pictures (3, h, w) in [-1, 1] side by side, a row for every picture."""
    rows = list(zip(*columns, strict=True))
    width, height = max(r[0].shape[2] for r in rows), sum(r[0].shape[1] + 4 for r in rows)
    sheet = Image.new("RGB", ((width + 4) * len(columns), height))
    top = 0
    for row in rows:
        for i, x in enumerate(row):
            sheet.paste(to_pil(Picture(x)), (i * (width + 4), top))
        top += row[0].shape[1] + 4
    with atomic(path) as temporary:
        sheet.save(temporary, "PNG")


def find(root: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """Picture files below `root` (or `root` itself), sorted; hidden files and folders are left out."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UsageError(f"{root} does not exist", "give a picture or a folder of pictures")
    wanted = tuple(suffixes)

    def visible(path: Path) -> bool:
        return not any(part.startswith(".") for part in path.relative_to(root).parts)

    return sorted(p for p in root.rglob("*") if p.suffix.lower() in wanted and visible(p) and p.is_file())
