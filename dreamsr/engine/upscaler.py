"""Pictures in, larger pictures out: the sampling loop over bags of tiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from dreamsr.config import TILE
from dreamsr.core import noise, sampling
from dreamsr.core.consistency import Projection
from dreamsr.core.denoiser import Denoiser, Network
from dreamsr.core.resize import bicubic
from dreamsr.core.tiling import Layout, Span, spans, tiled
from dreamsr.engine.device import Tiling, tiling
from dreamsr.engine.schedule import Schedule, Settings, schedule
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
class Enlarged:
    """A picture of the model's size."""

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
                "leave --consistency out",
            )
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

    @cached_property
    def schedule(self) -> Schedule:
        return schedule(self.model.config, self.settings)

    @property
    def steps(self) -> int:
        return self.schedule.steps

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

    def __call__(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Upscale pictures (3, h, w) in [-1, 1] together to (3, scale h, scale w)."""
        return [enlarged.color for enlarged in self.enlarge(pictures)]

    @torch.inference_mode()
    def enlarge(self, pictures: Sequence[Tensor]) -> list[Enlarged]:
        """Upscale pictures (3, h, w) in [-1, 1] together.

        A picture's result depends neither on the others of the call nor on their order. One that is
        larger than a block is solved block by block and comes on the CPU.
        """
        large = [max(self._enlarged(x)) > WHOLE for x in pictures]
        if any(large) and len(pictures) > 1:
            return [self.enlarge([x])[0] for x in pictures]
        if any(large):
            return [self._in_blocks(pictures[0])]
        loaded = [self._load(x) for x in pictures]
        return self._solve([self._enlargement(x) for x in loaded], loaded)

    @torch.inference_mode()
    def previews(self, picture: Tensor) -> Iterator[Tensor]:
        """The picture after every step; the last is what `self([picture])` returns.

        Raises UsageError for a picture that is solved in blocks, and for the mean of several samples.
        """
        if max(self._enlarged(picture)) > WHOLE:
            raise UsageError(
                f"an output of {' x '.join(map(str, self._enlarged(picture)))} pixels is made in parts",
                f"there are previews up to {WHOLE} pixels a side",
            )
        if self.settings.samples > 1:
            raise UsageError(f"there are no previews of {self.settings.samples} samples", "leave samples out")
        seen = self._load(picture)
        layout, packed, denoise = self._prepare([self._enlargement(seen)], [seen])
        for u_0 in self._estimates(denoise, layout):
            (preview,) = layout.unpack(self.denoiser.process.to_x(u_0, packed))
            yield preview

    def _in_blocks(self, picture: Tensor) -> Enlarged:
        """A large picture from blocks that reach over what is kept of them by margins."""
        height, width = self._enlarged(picture)
        color = torch.empty(3, height, width)
        deviation = torch.empty(height, width) if self.settings.samples > 1 else None
        for rows in self._blocks(height):
            for columns in self._blocks(width):
                anchor, seen = self._anchor(picture, rows, columns), self._window(picture, rows, columns)
                (block,) = self._solve([anchor], [self._load(seen)], (rows.start, columns.start))
                place, kept = (rows.place(), columns.place()), (rows.kept(), columns.kept())
                color[:, *place] = block.color[:, *kept]
                if deviation is not None and block.deviation is not None:
                    deviation[place] = block.deviation[kept]
        return Enlarged(color, deviation)

    def _blocks(self, length: int) -> list[Span]:
        """Blocks along an axis; they begin where tiles of the whole could, and pixels of the input do."""
        grain = math.lcm(self.model.network.granularity, self.model.config.scale)
        blocks = spans(math.ceil(length / grain) * grain, BLOCK, math.ceil(MARGIN / grain) * grain, grain)
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

    def _window(self, picture: Tensor, rows: Span, columns: Span) -> Tensor:
        """What a block is made of."""
        scale = self.model.config.scale
        return picture[:, rows.start // scale : rows.stop // scale, columns.start // scale : columns.stop // scale]

    def _load(self, picture: Tensor) -> Tensor:
        return picture.to(self.model.device, torch.float32)

    def _enlargement(self, seen: Tensor) -> Tensor:
        return bicubic(seen[None], self._enlarged(seen))[0]

    def _solve(self, anchors: Sequence[Tensor], inputs: Sequence[Tensor], origin: Size = (0, 0)) -> list[Enlarged]:
        """Pictures of anchors (3, H, W), whose first pixel lies at `origin`, and inputs (3, h, w)."""
        layout, packed, denoise = self._prepare(anchors, inputs)

        def sample(number: int) -> Tensor:
            for u_0 in self._estimates(denoise, layout, origin, number):
                last = u_0  # earlier ones are let go
            return self.denoiser.process.to_x(last, packed)

        if self.settings.samples == 1:
            return [Enlarged(color) for color in layout.unpack(sample(0))]
        mean, variance = _moments(sample(number) for number in range(self.settings.samples))
        spread = [variance.mean(0).sqrt() / 2 for variance in layout.unpack(variance)]
        return [Enlarged(*both) for both in zip(layout.unpack(mean), spread, strict=True)]

    def _prepare(self, anchors: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Layout, Tensor, sampling.Denoise]:
        """How pictures lie in a flat bag, the bag of their anchors, and what estimates u_0 on it."""
        layout = self.layout([(x.shape[1], x.shape[2]) for x in anchors])
        packed = layout.pack(anchors)
        denoise = tiled(self.denoiser, layout, packed, self.tiling.batch)
        if self.settings.consistency:
            denoise = self._consistent(denoise, layout, anchors, inputs)
        return layout, packed, denoise

    def _estimates(
        self, denoise: sampling.Denoise, layout: Layout, origin: Size = (0, 0), sample: int = 0
    ) -> Iterator[Tensor]:
        """The estimate of u_0 of every step, a flat bag, each with its share of the first."""
        plan, first = self.schedule, None
        start = self._noise(layout, origin, sample, 0).mul_(plan.noise_scale * float(plan.levels[0, 1]))
        for step in sampling.solve(
            denoise, start, plan.levels, plan.sampler, lambda i: self._noise(layout, origin, sample, i + 1)
        ):
            if step.i == 0 and plan.fidelity > 0:
                first = step.u_0
            yield step.u_0 if first is None else torch.lerp(step.u_0, first, plan.fidelity)

    def _consistent(
        self, denoise: sampling.Denoise, layout: Layout, anchors: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> sampling.Denoise:
        """`denoise` whose pictures, reduced, come nearer to the inputs."""
        process, weight = self.denoiser.process, self.settings.consistency
        projections = [Projection.of(size, self.model.config.scale, self.model.device) for size in layout.sizes]

        def moved(u: Tensor, level: Tensor) -> Tensor:
            u_0 = denoise(u, level)
            for part, anchor, known, projection in zip(layout.unpack(u_0), anchors, inputs, projections, strict=True):
                part.add_(projection.correction(process.to_x(part, anchor), known), alpha=weight * process.config.k)
            return u_0

        return moved

    def _enlarged(self, picture: Tensor) -> Size:
        scale = self.model.config.scale
        return scale * picture.shape[-2], scale * picture.shape[-1]

    def _noise(self, layout: Layout, origin: Size, sample: int, step: int) -> Tensor:
        key = (self.settings.seed, sample, step)
        fields = [noise.normal(key, size, origin, device=self.model.device).flatten() for size in layout.canvases]
        return torch.cat(fields)


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


def count_steps(steps: int) -> str:
    """`1 step`, `4 steps`."""
    return "1 step" if steps == 1 else f"{steps} steps"
