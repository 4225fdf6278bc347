"""The bicubic enlargement of a picture to any size, whole or a window of it alone."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamsr.core.resize import bicubic, resampling, size_of

CONTEXT = 2
"""Pixels of the input on either side of a place that its enlargement depends on."""
STRIP = 256
"""Pixels of a window that are enlarged at a time: the matrix is a narrow band, and a large one nearly all zeros."""


@dataclass(frozen=True)
class Axis:
    """The window [start, stop) of one axis of an enlargement from `length` to `size` pixels."""

    length: int
    size: int
    start: int
    stop: int

    @property
    def seen(self) -> slice:
        """Pixels of the input that the window depends on."""
        first, last = self.start * self.length // self.size, -(-self.stop * self.length // self.size)
        return slice(max(0, first - CONTEXT), min(self.length, last + CONTEXT))

    @property
    def held(self) -> slice:
        """Pixels of the input that lie in the window from end to end."""
        return slice(-(-self.start * self.length // self.size), self.stop * self.length // self.size)

    def strips(self) -> list["Axis"]:
        """The window in parts of at most STRIP pixels."""
        starts = range(self.start, self.stop, STRIP)
        return [replace(self, start=start, stop=min(start + STRIP, self.stop)) for start in starts]

    def enlargement(self) -> Tensor:
        """From the pixels that are seen to the window: float64 (stop - start, seen)."""
        return resampling(self.length, self.size, self.seen, slice(self.start, self.stop))

    def reduction(self) -> Tensor:
        """From the window to the pixels that it holds: float64 (held, stop - start)."""
        return resampling(self.size, self.length, slice(self.start, self.stop), self.held)


@dataclass(frozen=True)
class Part:
    """A window of an enlargement, perhaps all of it, in float32."""

    anchor: Tensor
    """(3, H, W)"""
    held: Tensor
    """Pixels of the input that lie in it (3, h, w)."""
    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the window."""
        return size_of(self.anchor)

    @property
    def scale(self) -> float:
        """Output size / input size of the whole."""
        return math.sqrt(self.rows.size / self.rows.length * self.columns.size / self.columns.length)

    @property
    def origin(self) -> tuple[int, int]:
        """Where its first pixel lies in the whole."""
        return self.rows.start, self.columns.start


def whole(picture: Tensor, size: tuple[int, int], device: torch.device) -> Part:
    """The enlargement of a picture (3, h, w) to `size`."""
    loaded = picture.to(device, torch.float32)
    rows, columns = (Axis(*lengths, 0, lengths[1]) for lengths in zip(picture.shape[1:], size, strict=True))
    return Part(bicubic(loaded[None], size)[0], loaded, rows, columns)


def window(picture: Tensor, rows: Axis, columns: Axis, device: torch.device) -> Part:
    """A window of the enlargement of a picture (3, h, w), of which no more than that takes is moved to `device`."""
    strips = [torch.cat([_enlarged(picture, y, x, device) for x in columns.strips()], 2) for y in rows.strips()]
    held = picture[:, rows.held, columns.held].to(device, torch.float32)
    return Part(torch.cat(strips, 1), held, rows, columns)


def _enlarged(picture: Tensor, rows: Axis, columns: Axis, device: torch.device) -> Tensor:
    seen = picture[:, rows.seen, columns.seen].to(device, torch.float32)
    return rows.enlargement().to(seen) @ seen @ columns.enlargement().to(seen).T
