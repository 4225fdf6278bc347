"""Pictures in, larger pictures out: the sampling loop over bags of tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dreamsr.config import TILE
from dreamsr.core import noise, sampling
from dreamsr.core.denoiser import Denoiser, Network
from dreamsr.core.resize import bicubic
from dreamsr.core.tiling import Layout, Span, spans, tiled
from dreamsr.engine.device import Tiling, tiling
from dreamsr.errors import UsageError
from dreamsr.files.checkpoint import Model

Size = tuple[int, int]
"""(height, width)"""

HALO = 48
OVERLAP = 8
"""The share, one in so many, that tiles of a network of fixed size overlap by: as in the papers' tests on DIV2K."""
WHOLE = 4096
"""Longest side of a picture that is solved in one piece, in output pixels."""
BLOCK = 2816
"""Longest side of the blocks of larger pictures, whose output needs memory too."""
MARGIN = 128
"""Output pixels by which a block reaches over what is kept of it."""
CONTEXT = 4
"""Input pixels around a window that its bicubic enlargement depends on."""


@dataclass(frozen=True)
class Settings:
    """How to sample; what is None comes from the model's configuration."""

    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    tile: int | None = None
    """Largest side of a tile in output pixels (default: as suits the device, as below)."""
    batch: int | None = None
    """Tiles of one network call."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps is {self.steps}; expected a whole number of at least 1")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"--batch-size is {self.batch}; expected a whole number of at least 1")
        if self.sampler is not None and self.sampler not in sampling.SAMPLERS:
            known = ", ".join(sampling.SAMPLERS)
            raise UsageError(f"sampler {self.sampler!r} is unknown", f"use one of {known}")


@dataclass(frozen=True)
class Upscaler:
    """A model, on its device and in its precision, with settings; called on pictures."""

    model: Model
    settings: Settings = field(default_factory=Settings)
    network: Network | None = None
    """The model's network in compiled form, to be called in its place."""

    def __post_init__(self) -> None:
        granularity, fixed = self.model.network.granularity, self.model.network.fixed_size
        tile = self.tiling.tile
        if fixed and self.settings.tile not in (None, fixed):
            raise UsageError(f"--tile is {self.settings.tile}; this network runs at {fixed} alone", "leave --tile out")
        if tile % granularity or tile <= 2 * self.halo:
            raise UsageError(
                f"--tile is {tile}; expected a multiple of {granularity} above {2 * self.halo}", f"try --tile {TILE}"
            )

    @property
    def tiling(self) -> Tiling:
        own, usual = self.settings, tiling(self.model.device)
        if fixed := self.model.network.fixed_size:
            usual = replace(usual, tile=fixed, static=True)
        tile = usual.tile if own.tile is None else own.tile
        return Tiling(tile, usual.batch if own.batch is None else own.batch, usual.static)

    @property
    def compiled(self) -> bool:
        return self.network is not None

    @property
    def denoiser(self) -> Denoiser:
        own = self.model.denoiser
        return replace(own, network=self.network) if self.network else own

    @property
    def levels(self) -> Tensor:
        """The sampling grid, float64 (steps + 1, 2)."""
        own, process = self.model.config.sampling, self.denoiser.process
        # a single step is taken where training puts its extra share
        start = own.lambda_start if self.steps > 1 else process.span[0]
        return process.levels(self.steps, own.grid, (start, own.lambda_end))

    @property
    def steps(self) -> int:
        return self.settings.steps or self.model.config.sampling.steps

    @property
    def halo(self) -> int:
        """HALO, or more where the network's granularity asks for it; of a network of fixed size, half the overlap."""
        if fixed := self.model.network.fixed_size:
            return fixed // OVERLAP // 2
        granularity = self.model.network.granularity
        return math.ceil(2 * HALO / granularity) * granularity // 2

    def smaller(self) -> "Upscaler | None":
        """The same with half the batch, or else half the tile: for a device that ran out of memory; None at the end."""
        now, grain = self.tiling, self.model.network.granularity
        tile = now.tile // 2 // grain * grain
        if now.batch > 1:
            return replace(self, settings=replace(self.settings, batch=now.batch // 2))
        if tile <= 2 * self.halo or self.model.network.fixed_size:
            return None
        return replace(self, settings=replace(self.settings, tile=tile))

    def layout(self, sizes: Sequence[Size]) -> Layout:
        """How outputs of `sizes` (height, width) lie in tiles."""
        t, network = self.tiling, self.model.network
        return Layout(tuple(sizes), t.tile, self.halo, network.granularity, t.static, bool(network.fixed_size))

    def tiles(self, size: Size) -> int:
        """How many tiles an input of (height, width) takes."""
        scale = self.model.config.scale
        return len(self.layout([(scale * size[0], scale * size[1])]).tiles)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Upscale pictures (3, h, w) in [-1, 1] together to (3, scale h, scale w).

        A picture's result depends neither on the others of the call nor on their order. One that is
        larger than a block is solved block by block and comes on the CPU.
        """
        large = [max(self._enlarged(x)) > WHOLE for x in pictures]
        if any(large) and len(pictures) > 1:
            return [self([x])[0] for x in pictures]
        if any(large):
            return [self._in_blocks(pictures[0])]
        return self._solve([bicubic(self._load(x)[None], self._enlarged(x))[0] for x in pictures])

    def _in_blocks(self, picture: Tensor) -> Tensor:
        """A large picture from blocks that reach over what is kept of them by margins."""
        height, width = self._enlarged(picture)
        out = torch.empty(3, height, width)
        for rows in self._blocks(height):
            for columns in self._blocks(width):
                (block,) = self._solve([self._anchor(picture, rows, columns)], (rows.start, columns.start))
                out[:, rows.place(), columns.place()] = block[:, rows.kept(), columns.kept()]
        return out

    def _blocks(self, length: int) -> list[Span]:
        """Blocks along an axis; they begin where tiles of the whole could."""
        grain = self.model.network.granularity
        blocks = spans(math.ceil(length / grain) * grain, BLOCK, MARGIN, grain)
        return [replace(span, stop=min(span.stop, length), last=min(span.last, length)) for span in blocks]

    def _anchor(self, picture: Tensor, rows: Span, columns: Span) -> Tensor:
        """A window of the bicubic enlargement of the whole picture."""
        scale, near = self.model.config.scale, []
        for span, length in ((rows, picture.shape[1]), (columns, picture.shape[2])):
            near.append(slice(max(0, span.start // scale - CONTEXT), min(length, -(-span.stop // scale) + CONTEXT)))
        seen = self._load(picture[:, near[0], near[1]])
        enlarged = bicubic(seen[None], self._enlarged(seen))[0]
        top, left = scale * near[0].start, scale * near[1].start
        return enlarged[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def _load(self, picture: Tensor) -> Tensor:
        return picture.to(self.model.device, torch.float32)

    def _solve(self, anchors: Sequence[Tensor], origin: Size = (0, 0)) -> list[Tensor]:
        """Pictures (3, H, W) of anchors (3, H, W) whose first pixel lies at `origin`."""
        layout = self.layout([(x.shape[1], x.shape[2]) for x in anchors])
        packed = layout.pack(anchors)
        sampler = sampling.SAMPLERS[self.settings.sampler or self.model.config.sampling.sampler]
        levels, denoiser = self.levels, self.denoiser
        steps = sampling.solve(
            tiled(denoiser, layout, packed, self.tiling.batch),
            self._noise(layout, origin, 0).mul_(float(levels[0, 1])),
            levels,
            order=sampler.order,
            variance=sampling.ddim_variance(sampler.eta) if sampler.eta else None,
            noise=lambda i: self._noise(layout, origin, i + 1),
        )
        for step in steps:
            last = step.u_0  # earlier ones are let go
        return layout.unpack(denoiser.process.to_x(last, packed))

    def _enlarged(self, picture: Tensor) -> Size:
        scale = self.model.config.scale
        return scale * picture.shape[-2], scale * picture.shape[-1]

    def _noise(self, layout: Layout, origin: Size, step: int) -> Tensor:
        key = (self.settings.seed, 0, step)
        fields = [noise.normal(key, size, origin, device=self.model.device).flatten() for size in layout.canvases]
        return torch.cat(fields)


def count_steps(steps: int) -> str:
    """`1 step`, `4 steps`."""
    return "1 step" if steps == 1 else f"{steps} steps"
