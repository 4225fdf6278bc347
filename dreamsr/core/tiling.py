"""A bag of pictures as fixed-size tiles of one batch, and back.

Every picture is laid on a canvas: `halo` pixels of replicated margin before it, and behind it as
many as whole tiles need. Tiles advance by `tile - 2 halo`; each keeps its inner part, and at the
canvas' edge its margin too, so that together they cover the canvas exactly once and a tile at the
border of a picture is like any other. The canvases of a bag lie end to end in one flat tensor, on
which solvers, being element-wise, work directly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core.denoiser import Condition, Denoiser

Size = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """A window of a canvas: which picture of the bag, and its top left corner on the canvas."""

    picture: int
    top: int
    left: int


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a bag, sizes (height, width), lie; `tile` and `halo` are in pixels."""

    sizes: tuple[Size, ...]
    tile: int
    halo: int

    def __post_init__(self) -> None:
        if self.halo < 0 or self.tile <= 2 * self.halo:
            raise ValueError(f"a tile of {self.tile} has no room for a halo of {self.halo} on both sides")

    @property
    def core(self) -> int:
        return self.tile - 2 * self.halo

    @cached_property
    def canvases(self) -> tuple[Size, ...]:
        """Sizes of the canvases: whole tiles."""
        return tuple(
            (-(-h // self.core) * self.core + 2 * self.halo, -(-w // self.core) * self.core + 2 * self.halo)
            for h, w in self.sizes
        )

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        return tuple(
            Tile(picture, top, left)
            for picture, (height, width) in enumerate(self.canvases)
            for top in range(0, height - 2 * self.halo, self.core)
            for left in range(0, width - 2 * self.halo, self.core)
        )

    def views(self, flat: Tensor) -> list[Tensor]:
        """The canvases (3, H, W) inside a flat bag, sharing its memory."""
        parts = torch.split(flat, [3 * h * w for h, w in self.canvases])
        return [part.view(3, h, w) for part, (h, w) in zip(parts, self.canvases, strict=True)]

    def pack(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures (3, h, w), edges replicated over their canvases, as one flat tensor."""
        extended = []
        for x, (h, w), (height, width) in zip(pictures, self.sizes, self.canvases, strict=True):
            assert x.shape[-2:] == (h, w)
            rows = torch.arange(-self.halo, height - self.halo, device=x.device).clamp(0, h - 1)
            columns = torch.arange(-self.halo, width - self.halo, device=x.device).clamp(0, w - 1)
            extended.append(x[:, rows][:, :, columns].flatten())
        return torch.cat(extended)

    def unpack(self, flat: Tensor) -> list[Tensor]:
        """The pictures (3, h, w) without their margins."""
        m = self.halo
        views = zip(self.views(flat), self.sizes, strict=True)
        return [canvas[:, m : m + h, m : m + w] for canvas, (h, w) in views]

    def gather(self, flat: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """Windows (n, 3, tile, tile)."""
        views, n = self.views(flat), self.tile
        return torch.stack([views[t.picture][:, t.top : t.top + n, t.left : t.left + n] for t in tiles])

    def scatter(self, windows: Tensor, tiles: Sequence[Tile], flat: Tensor) -> None:
        """Write the kept parts of windows (n, 3, tile, tile) to their places."""
        views = self.views(flat)
        for window, tile in zip(windows, tiles, strict=True):
            height, width = self.canvases[tile.picture]
            rows, columns = self._kept(tile.top, height), self._kept(tile.left, width)
            target = views[tile.picture][:, tile.top : tile.top + self.tile, tile.left : tile.left + self.tile]
            target[:, rows, columns] = window[:, rows, columns]

    def _kept(self, start: int, length: int) -> slice:
        first, last = start == 0, start + self.tile == length
        return slice(0 if first else self.halo, self.tile if last else self.tile - self.halo)


def tiled(denoiser: Denoiser, layout: Layout, anchors: Tensor, batch: int) -> Callable[[Tensor, Tensor], Tensor]:
    """`denoise(u, level)` on flat bags: every call of the network has the shape (batch, 3, tile, tile).

    anchors: the packed bicubic pictures. The last batch is filled up with empty tiles.
    """
    groups = [layout.tiles[i : i + batch] for i in range(0, len(layout.tiles), batch)]

    def filled(windows: Tensor) -> Tensor:
        missing = batch - len(windows)
        return F.pad(windows, (0, 0) * 3 + (0, missing)) if missing else windows

    def condition(group: Sequence[Tile]) -> Condition:
        return denoiser.condition(filled(layout.gather(anchors, group)))

    conditions = [condition(group) for group in groups]

    def denoise(u: Tensor, level: Tensor) -> Tensor:
        u_0 = torch.empty_like(u)
        for group, known in zip(groups, conditions, strict=True):
            windows = denoiser(filled(layout.gather(u, group)), level, known)
            layout.scatter(windows[: len(group)], group, u_0)
        return u_0

    return denoise
