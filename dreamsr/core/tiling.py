"""A bag of pictures as tiles of few shapes, and back.

Every picture is laid on a canvas: its edges are replicated up to a multiple of the network's
granularity. The fewest tiles that are no larger than `tile`, all of one size and overlapping by at
least two halos, cover the canvas; each keeps its part of it. A picture that fits into one tile costs
nothing but itself. The canvases of a bag lie end to end in one flat tensor, on which solvers, being
element-wise, work directly.

Where a network sees no bounded neighbourhood, tiles cannot agree on what lies in their overlap; they are then
blended: they add up, each with weights that fall towards its ends.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.size import Size
from dreamsr.core.transfer import sent


@dataclass(frozen=True)
class Span:
    """Along one axis of a canvas: what a tile sees, [start, stop), and what it keeps, [first, last)."""

    start: int
    stop: int
    first: int
    last: int

    def seen(self) -> slice:
        """What a tile sees, in pixels of the canvas."""
        return slice(self.start, self.stop)

    def place(self) -> slice:
        """What is kept, in pixels of the canvas."""
        return slice(self.first, self.last)

    def kept(self) -> slice:
        """What is kept, in pixels of the tile."""
        return slice(self.first - self.start, self.last - self.start)


@dataclass(frozen=True)
class Tile:
    """A window of a canvas of the bag."""

    picture: int
    rows: Span
    columns: Span

    @property
    def shape(self) -> Size:
        """(height, width) of what the tile sees."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a bag, sizes (height, width), lie; everything is in pixels.

    `static` gives every tile the full side, for compiled code, at the price of a larger canvas for small pictures.
    `blend` fades tiles into each other.
    """

    sizes: tuple[Size, ...]
    tile: int
    halo: int
    granularity: int = 1
    static: bool = False
    blend: bool = False

    def __post_init__(self) -> None:
        if self.halo < 0 or self.tile <= 2 * self.halo:
            raise ValueError(f"a tile of {self.tile} has no room for a halo of {self.halo} on both sides")
        if self.tile % self.granularity or 2 * self.halo % self.granularity:
            raise ValueError(f"a tile of {self.tile} with a halo of {self.halo} does not fit {self.granularity} pixels")

    @cached_property
    def canvases(self) -> tuple[Size, ...]:
        """Sizes of the canvases."""
        return tuple((self._canvas(h), self._canvas(w)) for h, w in self.sizes)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles of all pictures, in order."""
        return tuple(
            Tile(picture, rows, columns)
            for picture, (height, width) in enumerate(self.canvases)
            for rows in self._spans(height)
            for columns in self._spans(width)
        )

    def batches(self, most: int) -> Iterator[tuple[Tile, ...]]:
        """The tiles in groups of one shape, at most `most` in each."""
        for shape in dict.fromkeys(tile.shape for tile in self.tiles):
            alike = tuple(tile for tile in self.tiles if tile.shape == shape)
            yield from (alike[i : i + most] for i in range(0, len(alike), most))

    def views(self, flat: Tensor) -> list[Tensor]:
        """The canvases (3, H, W) inside a flat bag, sharing its memory."""
        parts = torch.split(flat, [3 * h * w for h, w in self.canvases])
        return [part.view(3, h, w) for part, (h, w) in zip(parts, self.canvases, strict=True)]

    def pack(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures (3, h, w), edges replicated over their canvases, as one flat tensor."""
        extended = []
        for x, (h, w), (height, width) in zip(pictures, self.sizes, self.canvases, strict=True):
            assert x.shape[-2:] == (h, w)
            extended.append(F.pad(x[None], (0, width - w, 0, height - h), mode="replicate").flatten())
        return torch.cat(extended)

    def unpack(self, flat: Tensor) -> list[Tensor]:
        """The pictures (3, h, w) without what replication added."""
        return [canvas[:, :h, :w] for canvas, (h, w) in zip(self.views(flat), self.sizes, strict=True)]

    def gather(self, flat: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """Windows (n, 3, height, width) of tiles of one shape."""
        views = self.views(flat)
        return torch.stack([views[t.picture][:, t.rows.seen(), t.columns.seen()] for t in tiles])

    def scatter(self, windows: Tensor, tiles: Sequence[Tile], flat: Tensor) -> None:
        """Write the kept parts of windows (n, 3, height, width) to their places; add their shares where tiles blend."""
        views = self.views(flat)
        for window, t in zip(windows, tiles, strict=True):
            if self.blend:
                views[t.picture][:, t.rows.seen(), t.columns.seen()] += self._share(t).to(window) * window
            else:
                views[t.picture][:, t.rows.place(), t.columns.place()] = window[:, t.rows.kept(), t.columns.kept()]

    def _share(self, tile: Tile) -> Tensor:
        """The weights (height, width) of a tile; those of all tiles that see a pixel sum to 1."""
        rows, columns = self._shares[tile.picture]
        return rows[tile.rows.start][:, None] * columns[tile.columns.start]

    @cached_property
    def _shares(self) -> list[tuple[dict[int, Tensor], dict[int, Tensor]]]:
        return [(shares(self._spans(height)), shares(self._spans(width))) for height, width in self.canvases]

    def _canvas(self, length: int) -> int:
        return max(_ceil(length, self.granularity), self.tile if self.static else 0)

    def _spans(self, length: int) -> list[Span]:
        return spans(length, self.tile, self.halo, self.tile if self.static else self.granularity)


def spans(length: int, longest: int, halo: int, multiple: int) -> list[Span]:
    """The fewest spans over [0, length) that are no longer than `longest`, of one length and evenly spread.

    They overlap by at least two halos. Their length is a multiple of `multiple`, if that fits into `length`.
    """
    overlap = 2 * halo
    count = max(1, math.ceil((length - overlap) / (longest - overlap)))
    side = min(_ceil(math.ceil((length + overlap * (count - 1)) / count), multiple), length)
    starts = [min(i * (side - overlap), length - side) for i in range(count)]
    cuts = [0, *(start + halo for start in starts[1:]), length]
    return [Span(starts[i], starts[i] + side, cuts[i], cuts[i + 1]) for i in range(count)]


def shares(spans: Sequence[Span]) -> dict[int, Tensor]:
    """Weights (length,) of the spans of an axis by their start: falling in the overlap, 1 in sum at every pixel."""
    ramp = torch.arange(spans[0].stop) + 0.5
    ramp = torch.minimum(ramp, ramp.flip(0))
    total = torch.zeros(spans[-1].stop)
    for span in spans:
        total[span.start : span.stop] += ramp
    return {span.start: ramp / total[span.start : span.stop] for span in spans}


def _ceil(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def tiled(
    denoiser: Denoiser, layout: Layout, anchors: Tensor, scales: Sequence[float], batch: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """`denoise(u, level)` on flat bags: every call of the network has `batch` tiles of one shape.

    anchors: the packed bicubic pictures; scales: output size / input size of every picture.
    Short batches are filled up with empty tiles, so that a picture's bytes do not depend on its company.
    """
    groups = list(layout.batches(batch))

    def filled(windows: Tensor) -> Tensor:
        missing = batch - len(windows)
        return F.pad(windows, (0, 0) * 3 + (0, missing)) if missing else windows

    def condition(group: Sequence[Tile]) -> Condition:
        of_each = [scales[tile.picture] for tile in group] + [1.0] * (batch - len(group))
        return denoiser.condition(filled(layout.gather(anchors, group)), sent(torch.tensor(of_each), anchors.device))

    conditions = [condition(group) for group in groups]

    def denoise(u: Tensor, level: Tensor) -> Tensor:
        u_0 = torch.zeros_like(u)  # shares are added to it where tiles blend
        for group, known in zip(groups, conditions, strict=True):
            windows = denoiser(filled(layout.gather(u, group)), level, known)
            layout.scatter(windows[: len(group)], group, u_0)
        return u_0

    return denoise
