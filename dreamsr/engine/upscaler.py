"""Pictures in, larger pictures out: the sampling loop over bags of tiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from dreamsr.core import noise, orientation, sampling
from dreamsr.core.consistency import Projection
from dreamsr.core.denoiser import Denoiser, Network
from dreamsr.core.enlargement import Axis, Part, whole, window
from dreamsr.core.resize import size_of
from dreamsr.core.size import Size
from dreamsr.core.tiling import Layout, Span, spans, tiled
from dreamsr.engine.device import TILE, Tiling, tiling
from dreamsr.engine.outputs import output_size
from dreamsr.engine.schedule import Schedule, Settings, schedule
from dreamsr.errors import UsageError
from dreamsr.files.checkpoint import Model

HALO = 48
"""Pixels of the output that a tile sees around what is kept of it, on every side."""
WIDE_HALO = 96
"""The halo of models for everyday pictures, which look further to tell texture from noise."""
WIDE_TILE = 1024
"""Side from which on a tile has room for a wide halo."""
OVERLAP = 8
"""Tiles of a network of fixed size overlap by 1 / OVERLAP of their side, as in the papers' tests on DIV2K."""
WHOLE = 4096
"""Longest side of a picture that is solved in one piece, in output pixels."""
BLOCK = 2752
"""Longest side of the blocks of larger pictures, whose output needs memory too."""
MARGIN = 128
"""Output pixels by which a block reaches over what is kept of it."""


@dataclass(frozen=True)
class Enlarged:
    """A picture as the network made it."""

    color: Tensor
    """(3, H, W) in [-1, 1]"""
    deviation: Tensor | None = None
    """(H, W): standard deviation of its samples in units of the whole range, 0 to 0.5; None for one sample."""

    def cpu(self) -> "Enlarged":
        return Enlarged(self.color.cpu(), None if self.deviation is None else self.deviation.cpu())


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
        if self.settings.consistency and self.model.config.degradation != "bicubic":
            raise UsageError(
                f"--consistency needs a model of bicubic reduction; this one is for {self.model.config.degradation}",
                "leave --consistency out; bicubic-x4 is a model for clean pictures",
            )
        if fixed and self.settings.tile not in (None, fixed):
            raise UsageError(f"--tile is {self.settings.tile}; this network runs at {fixed} alone", "leave --tile out")
        if tile % granularity or tile <= 2 * self.halo:
            raise UsageError(
                f"--tile is {tile}; expected a multiple of {granularity} above {2 * self.halo}",
                f"try --tile {_multiple(TILE, granularity)}",
            )

    @property
    def tiling(self) -> Tiling:
        """What the settings ask for, else what suits the device; a network of fixed size has tiles of that size."""
        own, usual = self.settings, tiling(self.model.device)
        if fixed := self.model.network.fixed_size:
            usual = replace(usual, tile=fixed, static=True)
        tile = _multiple(usual.tile, self.model.network.granularity) if own.tile is None else own.tile
        return Tiling(tile, usual.batch if own.batch is None else own.batch, usual.static)

    @property
    def compiled(self) -> bool:
        """Whether a compiled network is called in place of the model's own."""
        return self.network is not None

    @property
    def denoiser(self) -> Denoiser:
        """The model's, with the compiled network where there is one."""
        own = self.model.denoiser
        return replace(own, network=self.network) if self.network else own

    @cached_property
    def schedule(self) -> Schedule:
        return schedule(self.model.config, self.settings)

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def halo(self) -> int:
        """As wide as the model wants and the tile allows, or a little more where the network's granularity asks for it.

        Of a network of fixed size, half the overlap.
        """
        if fixed := self.model.network.fixed_size:
            return fixed // OVERLAP // 2
        granularity = self.model.network.granularity
        wide = self.model.config.degradation != "bicubic" and self.tiling.tile >= WIDE_TILE
        return math.ceil(2 * (WIDE_HALO if wide else HALO) / granularity) * granularity // 2

    def smaller(self) -> "Upscaler | None":
        """The same with half the batch, or else half the tile: for a device that ran out of memory; None at the end."""
        now, grain = self.tiling, self.model.network.granularity
        tile = _multiple(now.tile // 2, grain)
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
        """How many tiles an output of (height, width) takes."""
        return len(self.layout([size]).tiles)

    def made_size(self, size: Size, factor: float | None = None) -> Size:
        """(height, width) of what the network makes of an input of (height, width) that is to grow by `factor`.

        At the smallest scale that it knows if `factor` is below; None: at the model's scale.
        """
        config = self.model.config
        return output_size(size, max(factor or config.scale, config.least_scale))

    def __call__(self, pictures: Sequence[Tensor], sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Upscale pictures as `enlarge`: (3, h, w) in [-1, 1] to (3, *size)."""
        return [enlarged.color for enlarged in self.enlarge(pictures, sizes)]

    @torch.inference_mode()
    def enlarge(self, pictures: Sequence[Tensor], sizes: Sequence[Size] | None = None) -> list[Enlarged]:
        """Upscale pictures (3, h, w) in [-1, 1] together to sizes that the network knows (default: its model's scale).

        A picture's result depends neither on the others of the call nor on their order. One that is
        larger than a block is solved block by block and comes on the CPU.
        """
        sizes = sizes or [self.made_size(size_of(x)) for x in pictures]
        large = any(max(size) > WHOLE for size in sizes)
        if large and len(pictures) > 1:
            return [self.enlarge([x], [size])[0] for x, size in zip(pictures, sizes, strict=True)]
        if large:
            return [self._in_blocks(pictures[0], sizes[0])]
        return self._solve([whole(x, size, self.model.device) for x, size in zip(pictures, sizes, strict=True)])

    def previews(self, picture: Tensor, size: Size) -> Iterator[Tensor]:
        """The picture after every step; the last is what `self([picture], [size])` returns.

        Raises UsageError for a picture that is solved in blocks, and for the mean of several samples.
        """
        if max(size) > WHOLE:
            raise UsageError(
                f"an output of {' x '.join(map(str, size))} pixels is made in parts",
                f"there are previews up to {WHOLE} pixels a side",
            )
        if self.settings.samples > 1:
            raise UsageError(f"there are no previews of {self.settings.samples} samples", "leave samples out")
        return self._previews(picture, size)

    @torch.inference_mode()
    def _previews(self, picture: Tensor, size: Size) -> Iterator[Tensor]:
        parts = [whole(picture, size, self.model.device)]
        layout, packed = self._packed(parts)
        for u_0 in self._estimates(layout, packed, parts):
            (preview,) = layout.unpack(self.denoiser.process.to_x(u_0, packed))
            yield preview

    def _in_blocks(self, picture: Tensor, size: Size) -> Enlarged:
        """A large picture from blocks that reach over what is kept of them by margins."""
        height, width = size
        color = torch.empty(3, height, width)
        deviation = torch.empty(height, width) if self.settings.samples > 1 else None
        for rows in self._blocks(height):
            for columns in self._blocks(width):
                y = Axis(picture.shape[1], height, rows.start, rows.stop)
                x = Axis(picture.shape[2], width, columns.start, columns.stop)
                (block,) = self._solve([window(picture, y, x, self.model.device)])
                place, kept = (rows.place(), columns.place()), (rows.kept(), columns.kept())
                color[:, *place] = block.color[:, *kept]
                if deviation is not None and block.deviation is not None:
                    deviation[place] = block.deviation[kept]
        return Enlarged(color, deviation)

    def _blocks(self, length: int) -> list[Span]:
        """Blocks along an axis; they begin where tiles of the whole could and, at the model's scale, pixels do."""
        grain = math.lcm(self.model.network.granularity, self.model.config.scale)
        blocks = spans(math.ceil(length / grain) * grain, BLOCK, math.ceil(MARGIN / grain) * grain, grain)
        return [replace(span, stop=min(span.stop, length), last=min(span.last, length)) for span in blocks]

    def _solve(self, parts: Sequence[Part]) -> list[Enlarged]:
        """What parts of enlargements become."""
        layout, packed = self._packed(parts)

        def sample(number: int) -> Tensor:
            for u_0 in self._estimates(layout, packed, parts, number):
                last = u_0  # earlier ones are let go
            return self.denoiser.process.to_x(last, packed)

        if self.settings.samples == 1:
            return [Enlarged(color) for color in layout.unpack(sample(0))]
        mean, variance = _moments(sample(number) for number in range(self.settings.samples))
        spread = [variance.mean(0).sqrt() / 2 for variance in layout.unpack(variance)]
        return [Enlarged(*both) for both in zip(layout.unpack(mean), spread, strict=True)]

    def _packed(self, parts: Sequence[Part]) -> tuple[Layout, Tensor]:
        """How parts lie in a flat bag, and the bag of their anchors."""
        layout = self.layout([part.size for part in parts])
        return layout, layout.pack([part.anchor for part in parts])

    def _estimates(self, layout: Layout, packed: Tensor, parts: Sequence[Part], sample: int = 0) -> Iterator[Tensor]:
        """The estimate of u_0 of every step, a flat bag, each with its share of the first."""
        plan, first = self.schedule, None
        denoise = self._denoise(layout, packed, parts, sample)
        start = self._noise(layout, parts, sample, 0).mul_(plan.noise_scale * float(plan.levels[0, 1]))
        for step in sampling.solve(
            denoise, start, plan.levels, plan.sampler, lambda i: self._noise(layout, parts, sample, i + 1)
        ):
            if step.i == 0 and plan.fidelity > 0:
                first = step.u_0
            yield step.u_0 if first is None else torch.lerp(step.u_0, first, plan.fidelity)

    def _denoise(self, layout: Layout, packed: Tensor, parts: Sequence[Part], sample: int) -> sampling.Denoise:
        """What estimates u_0 on a flat bag; every sample sees the pictures in another orientation, up to eight."""
        denoiser = orientation.oriented(self.denoiser, sample % orientation.ORIENTATIONS)
        denoise = tiled(denoiser, layout, packed, [part.scale for part in parts], self.tiling.batch)
        return self._consistent(denoise, layout, parts) if self.settings.consistency else denoise

    def _consistent(self, denoise: sampling.Denoise, layout: Layout, parts: Sequence[Part]) -> sampling.Denoise:
        """`denoise` whose pictures, reduced, come nearer to the inputs."""
        process, weight = self.denoiser.process, self.settings.consistency
        projections = [Projection.of(part.rows, part.columns, self.model.device) for part in parts]

        def moved(u: Tensor, level: Tensor) -> Tensor:
            u_0 = denoise(u, level)
            for estimate, part, projection in zip(layout.unpack(u_0), parts, projections, strict=True):
                x = process.to_x(estimate, part.anchor)
                estimate.add_(projection.correction(x, part.held), alpha=weight * process.config.k)
            return u_0

        return moved

    def _noise(self, layout: Layout, parts: Sequence[Part], sample: int, step: int) -> Tensor:
        key = (self.settings.seed, sample, step)
        fields = [
            noise.normal(key, size, part.origin, device=self.model.device).flatten()
            for size, part in zip(layout.canvases, parts, strict=True)
        ]
        return torch.cat(fields)


def _multiple(length: int, of: int) -> int:
    """The largest multiple up to `length`."""
    return length // of * of


def _moments(samples: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance, one sample after the other (Welford)."""
    mean = next(samples)
    squares = torch.zeros_like(mean)
    count = 1
    for sample in samples:
        count += 1
        difference = sample - mean
        mean = mean + difference / count
        squares.addcmul_(difference, sample - mean)
    return mean, squares / (count - 1)
