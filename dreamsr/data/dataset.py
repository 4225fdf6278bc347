"""A folder of photos as one flat array of bytes, and crops of it as a function of (seed, step)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamsr.core.transfer import sent
from dreamsr.errors import ImageError, UsageError
from dreamsr.files import images
from dreamsr.files.atomic import atomic


@dataclass(frozen=True)
class Photos:
    """Decoded photos, end to end: `flat` uint8 (N,), and per photo its offset, height and width."""

    flat: Tensor
    offsets: Tensor
    sizes: Tensor
    """int64 (photos, 2): height, width"""

    def to(self, device: torch.device) -> "Photos":
        return Photos(self.flat.to(device), self.offsets.to(device), self.sizes.to(device))

    def __len__(self) -> int:
        return len(self.offsets)


def load(paths: Sequence[Path], crop: int, cache: Path) -> tuple[Photos, list[str]]:
    """Decode photos once into the file `cache`, memory-mapped; returns them and what was left out.

    Photos smaller than `crop` on a side and unreadable files are left out, and named.
    """
    kept, skipped = [], []
    with atomic(cache) as temporary, temporary.open("wb") as file:
        for path in paths:
            try:
                color = images.read(path).color
            except ImageError as error:
                skipped.append(error.message)
                continue
            height, width = color.shape[1:]
            if min(height, width) < crop:
                skipped.append(f"{path} is {width}x{height}, smaller than the crop of {crop}")
                continue
            file.write(images.to_bytes(color).permute(1, 2, 0).contiguous().numpy().tobytes())
            kept.append((height, width))
        if not kept:
            raise UsageError(
                f"no photo of at least {crop}x{crop} pixels among {len(paths)} files",
                "give a folder of larger photos with --data, or a smaller crop=",
            )
    sizes = torch.tensor(kept)
    lengths = sizes.prod(1) * 3
    flat = torch.from_numpy(np.memmap(cache, dtype=np.uint8, mode="c"))
    return Photos(flat, lengths.cumsum(0) - lengths, sizes), skipped


def crops(photos: Photos, seed: int, step: int, batch: int, crop: int) -> Tensor:
    """Training crops float32 (batch, 3, crop, crop) in [-1, 1], on the photos' device.

    Photo, position, flips and transposition are drawn from a generator seeded by (seed, step).
    """
    draw = sent(torch.rand(batch, 6, generator=generator(seed, step), dtype=torch.float64), photos.flat.device)
    index = (draw[:, 0] * len(photos)).long()
    size = photos.sizes[index]
    top, left = ((size - crop + 1) * draw[:, 1:3]).long().unbind(1)
    stride = 3 * size[:, 1]
    start = photos.offsets[index] + top * stride + 3 * left
    rows = torch.arange(crop, device=start.device)[:, None] * stride[:, None, None]
    columns = torch.arange(3 * crop, device=start.device)
    pixels = photos.flat[start[:, None, None] + rows + columns]
    x = pixels.view(batch, crop, crop, 3).permute(0, 3, 1, 2)
    for flag, axes in ((draw[:, 3], (2,)), (draw[:, 4], (3,))):
        x = torch.where((flag < 0.5)[:, None, None, None], x.flip(axes), x)
    x = torch.where((draw[:, 5] < 0.5)[:, None, None, None], x.transpose(2, 3), x)
    return images.to_unit(x)


def generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on (seed, step) alone."""
    mixed = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed) & (2**63 - 1))


def hold_out(paths: Sequence[Path], share: float = 0.05, most: int = 8) -> tuple[list[Path], list[Path]]:
    """(training, validation) photos: an even pick of the sorted names, never all of them."""
    count = min(most, int(len(paths) * share))
    if count == 0:
        return list(paths), []
    picked = {paths[i * len(paths) // count] for i in range(count)}
    return [p for p in paths if p not in picked], [p for p in paths if p in picked]
