"""Pictures on disk and as tensors; nothing is written by halves."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dreamsr.errors import ImageError, UsageError
from dreamsr.files.atomic import atomic

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
}
_ORIENTATION = 0x0112


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

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.color.shape[-2], self.color.shape[-1]


def read(path: Path) -> Picture:
    """Decode a PNG, JPEG or WebP file; raises ImageError in one line for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as image:
                return _decode(image, path)
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise ImageError(f"{path} is {'empty' if empty else 'not a PNG, JPEG or WebP picture'}") from None
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from error


def _decode(image: Image.Image, path: Path) -> Picture:
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{path} is animated; only still pictures are upscaled")
    image.load()
    lossless = image.format == "PNG"
    turned = _ORIENTATION in image.getexif()
    image = ImageOps.exif_transpose(image)
    metadata = _metadata(image, turned)
    gray = image.mode in ("1", "L", "LA", "I;16", "I", "F")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        alpha = _to_tensor(image.getchannel("A"))
    if image.mode.startswith("I"):
        image = image.point(lambda v: v * (255 / 65535) + 0.5).convert("L")
    return Picture(_to_tensor(image.convert("RGB")), alpha, gray, metadata, lossless)


def _metadata(image: Image.Image, turned: bool) -> dict[str, bytes]:
    metadata: dict[str, bytes] = {}
    if profile := image.info.get("icc_profile"):
        metadata["icc_profile"] = profile
    exif = image.getexif()
    if turned:
        exif[_ORIENTATION] = 1
    if len(exif):
        metadata["exif"] = exif.tobytes()
    return metadata


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


def write(path: Path, picture: Picture) -> None:
    """Encode by the suffix of `path`; raises ImageError for what the format cannot hold."""
    kind = _FORMATS[path.suffix.lower()]
    if kind == "JPEG" and picture.alpha is not None:
        raise ImageError(f"{path}: JPEG has no transparency, which this picture has", "write PNG or WebP")
    options = {"lossless": True} if kind == "WEBP" and picture.lossless else _SAVE_OPTIONS[kind]
    with atomic(path) as temporary:
        try:
            to_pil(picture).save(temporary, kind, **options, **picture.metadata)
        except ValueError as error:
            raise ImageError(f"{path} cannot be written: {error}") from error


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
