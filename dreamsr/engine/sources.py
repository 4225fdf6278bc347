"""The pictures that a model learns from, is validated, tuned and measured on, and their partners."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dreamsr.config import ModelConfig
from dreamsr.core.resize import size_of
from dreamsr.core.size import Size
from dreamsr.data import dataset
from dreamsr.data.dataset import Partners
from dreamsr.data.degrade import Pairs, examples
from dreamsr.errors import ImageError, UsageError
from dreamsr.files import images
from dreamsr.files.paths import real

_MAX_VAL = 16
_MAX_SIDE = 512


def by_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by relative name, suffix aside; or a single picture."""
    found: dict[str, Path] = {}
    for path in images.find(folder):
        key = path.relative_to(folder if folder.is_dir() else folder.parent).with_suffix("").as_posix()
        if key in found:
            raise UsageError(f"{found[key]} and {path} have the same name; their partner would be ambiguous")
        found[key] = path
    return found


def paired(originals: Mapping[str, Path], low: Path, scale: float | None) -> Partners:
    """The pictures below `low` that have the names of originals; raises UsageError for a scale that is not whole."""
    if scale is None or scale != int(scale):
        raise UsageError(f"--low has pictures of a whole scale, --scale is {scale}", "give --scale 2, 3 or 4")
    files = by_name(low)
    return Partners({path: files[name] for name, path in originals.items() if name in files}, int(scale))


def crop_to_multiple(hr: Tensor, scale: int) -> Tensor:
    """Cut (3, H, W) at the bottom and right to sizes that are multiples of `scale`."""
    height, width = (n // scale * scale for n in hr.shape[-2:])
    if min(height, width) == 0:
        raise ImageError(f"a picture of {hr.shape[2]}x{hr.shape[1]} is smaller than the scale of {scale}")
    return hr[:, :height, :width]


def split(data: Path, val: Path | None) -> tuple[list[Path], list[Path]]:
    """(training, held out): a few of `data` where there is no `val`, else at most 16 pictures of it.

    Nothing below `val` is trained on, wherever it lies; raises UsageError if that is all.
    """
    paths = images.find(data)
    if val is None:
        return dataset.hold_out(paths)
    held_out = images.find(val)
    apart = set(map(real, held_out))
    training = [path for path in paths if real(path) not in apart]
    if not training:
        raise UsageError(f"all photos of {data} are held out by --val {val}", "leave out --val: a few are held out")
    return training, held_out[:: max(1, len(held_out) // _MAX_VAL)][:_MAX_VAL]


def partners(folders: Sequence[Path | None], low: Path | None, scale: int) -> Partners | None:
    """The partners of all pictures in folders: what has the same name below `low`."""
    if low is None:
        return None
    found = [paired(by_name(folder), low, scale) for folder in filter(None, folders)]
    return Partners({photo: file for part in found for photo, file in part.files.items()}, scale)


def held_out(paths: Sequence[Path], model: ModelConfig, partners: Partners | None) -> Pairs:
    """Pictures to validate on: at most 512 x 512 of each, from its top left corner."""
    return pairs(paths, model, partners, lambda size: (0, 0), _MAX_SIDE)


def middles(paths: Sequence[Path], model: ModelConfig, partners: Partners | None, side: int) -> Pairs:
    """At most `side` x `side` of each picture, from its middle."""
    step = model.scale if partners else 1  # of a pixel that both have

    def corner(size: Size) -> tuple[int, int]:
        height, width = (max(0, (length - side) // 2) // step * step for length in size)
        return height, width

    return pairs(paths, model, partners, corner, side)


def pairs(
    paths: Sequence[Path],
    model: ModelConfig,
    partners: Partners | None,
    corner: Callable[[Size], tuple[int, int]],
    side: int,
) -> Pairs:
    """At most `side` x `side` of each picture, cut to a multiple of the scale, and what a model is given of it.

    corner: from (height, width) to where this begins, with partners at a multiple of the scale.
    """

    def cut(path: Path) -> list[Tensor]:
        original, *given = dataset.read(path, partners)
        top, left = corner(size_of(original))
        part = crop_to_multiple(original[:, top : top + side, left : left + side], model.scale)
        y, x, height, width = (length // model.scale for length in (top, left, *part.shape[1:]))
        # a view would keep the whole photo
        return [part.clone(), *(low[:, y : y + height, x : x + width].clone() for low in given)]

    pictures, unread = images.readable(paths, cut)
    originals = [first for first, *_ in pictures]
    inputs = [given for _, given in pictures] if partners else examples(originals, model)
    return Pairs(inputs, originals, unread)


def digest(*folders: Path | None) -> str:
    """Of the names and sizes of all pictures in folders."""
    entries = [
        f"{path.relative_to(folder)} {path.stat().st_size}"
        for folder in filter(None, folders)
        for path in images.find(folder)
    ]
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()
