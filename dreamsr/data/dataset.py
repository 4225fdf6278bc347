"""A folder of photos as one flat array of bytes, and crops of it as a function of (seed, step)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamsr.core.transfer import sent
from dreamsr.errors import ImageError, UsageError
from dreamsr.files import images
from dreamsr.files.atomic import atomic
from dreamsr.words import counted

Decoded = tuple[Tensor, list[str]]
"""Sizes as in `Photos`, and what was left out."""


@dataclass(frozen=True)
class Partners:
    """The low-resolution pictures that are given for photos, 1/`scale` as large."""

    files: Mapping[Path, Path]
    """By photo."""
    scale: int


@dataclass(frozen=True)
class Photos:
    """Decoded photos, end to end, and where each of them, and its partner if there are any, lies."""

    flat: Tensor
    """uint8 (N,), on any device"""
    offsets: Tensor
    """int64 (photos, 1 or 2), on the host"""
    sizes: Tensor
    """int64 (photos, 1 or 2, 2): height, width; on the host"""

    @property
    def paired(self) -> bool:
        """Whether every photo has its partner behind it."""
        return self.offsets.shape[1] == 2

    @property
    def room(self) -> int:
        """Side of the largest square that lies in one of the photos."""
        return int(self.sizes[:, 0].amin(1).max())

    def to(self, device: torch.device) -> "Photos":
        return replace(self, flat=self.flat.to(device))

    def __len__(self) -> int:
        return len(self.offsets)


def load(
    paths: Sequence[Path],
    crop: int,
    cache: Path,
    partners: Partners | None = None,
    once: Callable[[Callable[[], Decoded]], Decoded] = lambda decode: decode(),
) -> tuple[Photos, list[str]]:
    """Decode photos once into the file `cache`, memory-mapped; returns them and what was left out.

    Photos smaller than `crop` on a side, unreadable files, and photos whose partner is missing or of another
    size are left out, and named. once: where several processes share the cache, lets one of them write it.
    """
    sizes, skipped = once(lambda: _decode(paths, crop, cache, partners))
    lengths = sizes.prod(2) * 3
    ends = lengths.flatten().cumsum(0).view_as(lengths)
    flat = torch.from_numpy(np.memmap(cache, dtype=np.uint8, mode="c"))
    return Photos(flat, ends - lengths, sizes), skipped


def _decode(paths: Sequence[Path], crop: int, cache: Path, partners: Partners | None) -> Decoded:
    kept, skipped = [], []
    with atomic(cache) as temporary, temporary.open("wb") as file:
        for path in paths:
            try:
                pictures = read(path, partners)
                height, width = pictures[0].shape[1:]
                if min(height, width) < crop:
                    raise ImageError(f"{path} is {width}x{height}, smaller than the crop of {crop}")
            except ImageError as error:
                skipped.append(error.message)
                continue
            for x in pictures:
                file.write(images.to_bytes(x).permute(1, 2, 0).contiguous().numpy().tobytes())
            kept.append([tuple(x.shape[1:]) for x in pictures])
        if not kept:
            none = f"none of {counted(len(paths), 'photo')} can be trained on, in crops of {crop}x{crop}"
            raise UsageError(
                f"{none}; the first: {skipped[0]}",
                "give other photos, or a smaller crop=; with --low, partners of the right size",
            )
    return torch.tensor(kept), skipped


def read(path: Path, partners: Partners | None) -> list[Tensor]:
    """A photo (3, H, W) in [-1, 1], and its partner (3, H / scale, W / scale) if there are any; or an ImageError."""
    photo = images.read(path).color
    if partners is None:
        return [photo]
    if path not in partners.files:
        raise ImageError(f"{path} has no partner")
    partner = images.read(partners.files[path]).color
    (height, width), (h, w), scale = photo.shape[1:], partner.shape[1:], partners.scale
    if (height, width) != (scale * h, scale * w):
        raise ImageError(f"{path} is {width}x{height}, not {scale} times {partners.files[path]}, which is {w}x{h}")
    return [photo, partner]


def crops(photos: Photos, seed: int, step: int, batch: int, crop: int, align: int = 1, partner: bool = False) -> Tensor:
    """Training crops float32 (batch, 3, crop, crop) in [-1, 1], on the photos' device.

    Photo (of those with room for the crop), position (multiples of `align`), flips and transposition are drawn from a
    generator seeded by (seed, step): of photos aligned by their scale, and of their partners, crops of the same part
    are drawn.
    """
    draw, kind = torch.rand(batch, 6, generator=generator(seed, step), dtype=torch.float64), int(partner)
    roomy = (photos.sizes[:, kind].amin(1) >= crop).nonzero().flatten()
    index = roomy[(draw[:, 0] * len(roomy)).long()]
    size = photos.sizes[index, kind]
    top, left = (((size - crop) // align + 1) * draw[:, 1:3]).long().mul(align).unbind(1)
    stride = 3 * size[:, 1]
    x = _windows(photos.flat, photos.offsets[index, kind] + top * stride + 3 * left, stride, crop)
    down, right, transposed = sent(draw[:, 3:] < 0.5, x.device)[..., None, None, None].unbind(1)
    x = torch.where(down, x.flip(2), x)
    x = torch.where(right, x.flip(3), x)
    return images.to_unit(torch.where(transposed, x.transpose(2, 3), x))


def _windows(flat: Tensor, start: Tensor, stride: Tensor, side: int) -> Tensor:
    """Squares uint8 (B, 3, side, side) that begin at `start` (B,), with `stride` (B,) bytes from row to row."""
    start, stride = (sent(x[:, None, None], flat.device) for x in (start, stride))
    rows, columns = torch.arange(side, device=flat.device)[:, None], torch.arange(3 * side, device=flat.device)
    pixels = flat[start + rows * stride + columns]
    return pixels.view(len(start), side, side, 3).permute(0, 3, 1, 2)


def generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on (seed, step) alone."""
    mixed = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed) & (2**63 - 1))


def hold_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(training, validation) photos: one in twenty is held out, at most 8, picked evenly from the sorted names."""
    count = min(8, len(paths) // 20)
    picked = {paths[i * len(paths) // count] for i in range(count)}
    return [p for p in paths if p not in picked], [p for p in paths if p in picked]
