"""Pictures on disk and as tensors: what the rest of the program needs of them."""

import base64
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreamsr.errors import ImageError, UsageError
from dreamsr.files import heif
from dreamsr.files.atomic import atomic
from dreamsr.files.decode import KINDS, Header, describe, probe, read
from dreamsr.files.encode import FORMATS, QUALITY, obstacle, write
from dreamsr.files.metadata import Metadata
from dreamsr.files.picture import Picture, bled, enlarged, resize, to_bytes, to_pil, to_unit
from dreamsr.files.provenance import Provenance

__all__ = [
    "FORMATS",
    "KINDS",
    "QUALITY",
    "SUFFIXES",
    "Header",
    "Metadata",
    "Picture",
    "Provenance",
    "bled",
    "data_uri",
    "describe",
    "enlarged",
    "find",
    "halves",
    "is_ours",
    "obstacle",
    "others",
    "probe",
    "read",
    "readable",
    "resize",
    "to_bytes",
    "to_pil",
    "to_unit",
    "write",
    "write_sheet",
]

T = TypeVar("T")
SUFFIXES = (*FORMATS, *heif.SUFFIXES)
"""Of pictures that are read; those of FORMATS are written too."""


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


def data_uri(color: Tensor) -> str:
    """(3, H, W) in [-1, 1] as a JPEG inside a URI, for pages."""
    data = io.BytesIO()
    to_pil(Picture(color)).save(data, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def halves(before: Tensor, after: Tensor, most: int) -> list[Tensor]:
    """The two halves of a comparison: the middle of a picture, enlarged by bicubic, and as it became.

    before, after: (3, h, w) and (3, H, W) in [-1, 1]; returns two of (3, min(H, most), min(W, most)).
    """
    height, width = after.shape[-2:]
    tall, wide = min(most, height), min(most, width)
    top, left = (height - tall) // 2, (width - wide) // 2
    down, right = before.shape[-2] / height, before.shape[-1] / width
    box = (left * right, top * down, (left + wide) * right, (top + tall) * down)
    part = to_pil(Picture(before)).resize((wide, tall), Image.Resampling.BICUBIC, box)
    bicubic = to_unit(torch.from_numpy(np.asarray(part).copy()).permute(2, 0, 1))
    return [bicubic, after[:, top : top + tall, left : left + wide]]


def find(root: Path) -> list[Path]:
    """Picture files below `root` (or `root` itself), sorted; nothing hidden, and nothing in linked folders."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        what = "is neither a file nor a folder" if root.exists() else "does not exist"
        raise UsageError(f"{root} {what}", "give a picture or a folder of pictures")
    return sorted(path for path in _visible(root) if path.suffix.lower() in SUFFIXES and path.is_file())


def others(root: Path) -> Counter[str]:
    """How many of what else lie below `root`: files by suffix, links that are not followed, what cannot be listed."""
    if root.is_file():
        return Counter()
    closed: list[OSError] = []
    return Counter(filter(None, map(_other, _visible(root, closed.append, folders=True)))) + Counter(
        {"folder that cannot be read": len(closed)}
    )


def _other(path: Path) -> str:
    """What kind of thing a path is, if it is no picture; "" for pictures and folders that are walked through."""
    if path.is_symlink() and not path.is_file():
        return "linked folder" if path.is_dir() else "broken link"
    suffix = path.suffix.lower()
    return "" if path.is_dir() or suffix in SUFFIXES else suffix or "without a suffix"


def is_ours(path: Path) -> bool:
    """Whether a picture tells that dreamsr made it; without provenance, as in BMP, it does not."""
    try:
        return describe(path)[1].provenance is not None
    except ImageError:
        return False


def _visible(root: Path, closed: Callable[[OSError], object] | None = None, *, folders: bool = False) -> Iterator[Path]:
    """What is not hidden below `root`: files, and folders if asked for; `closed` is told of what cannot be listed."""
    for folder, inner, files in os.walk(root, onerror=closed):
        inner[:] = _not_hidden(inner)  # what is taken out is not walked through
        yield from (Path(folder, name) for name in (*(inner if folders else ()), *_not_hidden(files)))


def _not_hidden(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def readable(paths: Iterable[Path], load: Callable[[Path], T]) -> tuple[list[T], list[str]]:
    """What `load` makes of every picture, and what is wrong with those that it raises ImageError for."""
    parts, unread = [], []
    for path in paths:
        try:
            parts.append(load(path))
        except ImageError as error:
            unread.append(error.message)
    return parts, unread
