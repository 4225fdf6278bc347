"""Pictures in, larger pictures out: the sampling loop over bags of tiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dreamsr.config import TILE
from dreamsr.core import noise, sampling
from dreamsr.core.denoiser import Denoiser, Network
from dreamsr.core.resize import bicubic
from dreamsr.core.tiling import Layout, tiled
from dreamsr.engine.device import Tiling, tiling
from dreamsr.errors import UsageError
from dreamsr.files.checkpoint import Model

HALO = 48


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
        granularity = self.model.network.granularity
        tile = self.tiling.tile
        if tile % granularity or tile <= 2 * self.halo:
            raise UsageError(
                f"--tile is {tile}; expected a multiple of {granularity} above {2 * self.halo}", f"try --tile {TILE}"
            )

    @property
    def tiling(self) -> Tiling:
        own, usual = self.settings, tiling(self.model.device)
        return Tiling(own.tile or usual.tile, own.batch or usual.batch, usual.static)

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
        """HALO, or more where the network's granularity asks for it."""
        granularity = self.model.network.granularity
        return math.ceil(2 * HALO / granularity) * granularity // 2

    def layout(self, sizes: Sequence[tuple[int, int]]) -> Layout:
        """How outputs of `sizes` (height, width) lie in tiles."""
        t = self.tiling
        return Layout(tuple(sizes), t.tile, self.halo, self.model.network.granularity, t.static)

    def tiles(self, size: tuple[int, int]) -> int:
        """How many tiles an input of (height, width) takes."""
        return len(self.layout([self._enlarged(size)]).tiles)

    def __call__(self, pictures: Sequence[Tensor], sizes: Sequence[tuple[int, int]] | None = None) -> list[Tensor]:
        """Upscale pictures (3, h, w) in [-1, 1] together, to `sizes` (default: scale times theirs).

        A picture's result depends neither on the others of the call nor on their order.
        """
        last: list[Tensor] = []
        for step in self.run(pictures, sizes, every=False):
            last = step
        return last

    @torch.inference_mode()
    def run(
        self, pictures: Sequence[Tensor], sizes: Sequence[tuple[int, int]] | None = None, every: bool = True
    ) -> Iterator[list[Tensor]]:
        """As a call, but yields the pictures (3, H, W) in [-1, 1] as estimated at every step, or the last alone."""
        layout = self.layout(sizes or [self._enlarged((x.shape[1], x.shape[2])) for x in pictures])
        anchors = layout.pack(
            [
                bicubic(x[None].to(self.model.device, torch.float32), size)[0]
                for x, size in zip(pictures, layout.sizes, strict=True)
            ]
        )
        sampler = sampling.SAMPLERS[self.settings.sampler or self.model.config.sampling.sampler]
        levels, denoiser = self.levels, self.denoiser
        steps = sampling.solve(
            tiled(denoiser, layout, anchors, self.tiling.batch),
            self._noise(layout, 0).mul_(float(levels[0, 1])),
            levels,
            order=sampler.order,
            variance=sampling.ddim_variance(sampler.eta) if sampler.eta else None,
            noise=lambda i: self._noise(layout, i + 1),
        )
        for step in steps:
            if every or step.i == self.steps - 1:
                yield layout.unpack(denoiser.process.to_x(step.u_0, anchors))

    def _enlarged(self, size: tuple[int, int]) -> tuple[int, int]:
        scale = self.model.config.scale
        return scale * size[0], scale * size[1]

    def _noise(self, layout: Layout, step: int) -> Tensor:
        key = (self.settings.seed, 0, step)
        fields = [noise.normal(key, size, device=self.model.device).flatten() for size in layout.canvases]
        return torch.cat(fields)


def count_steps(steps: int) -> str:
    """`1 step`, `4 steps`."""
    return "1 step" if steps == 1 else f"{steps} steps"


def output_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """floor(scale * n + 0.5), at least 1, for (height, width)."""
    height, width = (max(1, math.floor(scale * n + 0.5)) for n in size)
    return height, width
