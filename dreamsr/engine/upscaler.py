"""Pictures in, larger pictures out: the sampling loop over bags of tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dreamsr.config import TILE
from dreamsr.core import noise, sampling
from dreamsr.core.resize import bicubic
from dreamsr.core.tiling import Layout, tiled
from dreamsr.errors import UsageError
from dreamsr.files.checkpoint import Model

HALO = 48


@dataclass(frozen=True)
class Settings:
    """How to sample; what is None comes from the model's configuration."""

    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    tile: int = TILE
    batch: int = 1
    """Tiles of one network call."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps is {self.steps}; expected a whole number of at least 1")
        if self.batch < 1:
            raise UsageError(f"--batch-size is {self.batch}; expected a whole number of at least 1")
        if self.sampler is not None and self.sampler not in sampling.SAMPLERS:
            known = ", ".join(sampling.SAMPLERS)
            raise UsageError(f"sampler {self.sampler!r} is unknown", f"use one of {known}")


@dataclass(frozen=True)
class Upscaler:
    """A model, on its device and in its precision, with settings; called on pictures."""

    model: Model
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        granularity = self.model.network.granularity
        tile = self.settings.tile
        if tile % granularity or tile <= 2 * HALO:
            raise UsageError(
                f"--tile is {tile}; expected a multiple of {granularity} above {2 * HALO}", f"try --tile {TILE}"
            )

    @property
    def levels(self) -> Tensor:
        """The sampling grid, float64 (steps + 1, 2)."""
        own, process = self.model.config.sampling, self.model.denoiser.process
        # a single step is taken where training puts its extra share
        start = own.lambda_start if self.steps > 1 else process.span[0]
        return process.levels(self.steps, own.grid, (start, own.lambda_end))

    def tiles(self, size: tuple[int, int]) -> int:
        """How many tiles an input of (height, width) takes."""
        scale = self.model.config.scale
        return len(Layout(((scale * size[0], scale * size[1]),), self.settings.tile, HALO).tiles)

    @property
    def steps(self) -> int:
        return self.settings.steps or self.model.config.sampling.steps

    def __call__(self, pictures: Sequence[Tensor], sizes: Sequence[tuple[int, int]] | None = None) -> list[Tensor]:
        """Upscale pictures (3, h, w) in [-1, 1] together, to `sizes` (default: scale times theirs).

        A picture's result depends neither on the others of the call nor on their order.
        """
        last: list[Tensor] = []
        for step in self.run(pictures, sizes):
            last = step  # only one step's pictures are kept
        return last

    @torch.inference_mode()
    def run(self, pictures: Sequence[Tensor], sizes: Sequence[tuple[int, int]] | None = None) -> Iterator[list[Tensor]]:
        """As a call, but yields the pictures (3, H, W) in [-1, 1] as estimated at every step."""
        scale = self.model.config.scale
        sizes = sizes or [(scale * x.shape[1], scale * x.shape[2]) for x in pictures]
        layout = Layout(tuple(sizes), self.settings.tile, HALO)
        anchors = layout.pack(
            [
                bicubic(x[None].to(self.model.device, torch.float32), size)[0]
                for x, size in zip(pictures, sizes, strict=True)
            ]
        )
        sampler = sampling.SAMPLERS[self.settings.sampler or self.model.config.sampling.sampler]
        steps = sampling.solve(
            tiled(self.model.denoiser, layout, anchors, self.settings.batch),
            float(self.levels[0, 1]) * self._noise(layout, 0),
            self.levels,
            order=sampler.order,
            variance=sampling.ddim_variance(sampler.eta) if sampler.eta else None,
            noise=lambda i: self._noise(layout, i + 1),
        )
        for step in steps:
            yield layout.unpack(self.model.denoiser.process.to_x(step.u_0, anchors))

    def _noise(self, layout: Layout, step: int) -> Tensor:
        origin = (-layout.halo, -layout.halo)
        key = (self.settings.seed, 0, step)
        fields = [noise.normal(key, size, origin, device=self.model.device) for size in layout.canvases]
        return torch.cat([field.flatten() for field in fields])


def count_steps(steps: int) -> str:
    """`1 step`, `4 steps`."""
    return "1 step" if steps == 1 else f"{steps} steps"
