"""Measuring: every contender enlarges, or has enlarged, the same pictures."""

import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dreamsr.config import ModelConfig
from dreamsr.core.resize import bicubic, size_of
from dreamsr.core.size import Size
from dreamsr.data import dataset
from dreamsr.data.dataset import Partners
from dreamsr.data.degrade import degraded
from dreamsr.engine import work
from dreamsr.engine.device import describe
from dreamsr.engine.finish import finished
from dreamsr.engine.measure import Measure
from dreamsr.engine.memory import Frugal
from dreamsr.engine.outputs import output_size
from dreamsr.engine.sources import by_name, crop_to_multiple, paired
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import DreamSRError, ImageError, UsageError
from dreamsr.files import images
from dreamsr.files.images import Picture

Facts = Mapping[str, object]
_NEAR = 0.2
"""Share of a side that results may lack, or have too much, to be taken for those of the originals."""


@dataclass(frozen=True)
class Row:
    """What one method scores on one picture."""

    picture: str
    method: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """A picture to be made from `lr` (3, h, w) and compared with `hr` (3, H, W), in [-1, 1]."""

    name: str
    path: Path
    size: Size
    """(height, width) of the file, before it was cut."""
    hr: Tensor
    lr: Tensor | None = None
    scale: float | None = None
    """Size of `hr` / size of `lr`."""


class Contender(Protocol):
    """A way to enlarge pictures, or a folder of enlarged ones."""

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> Facts:
        """All that its pictures depend on."""

    def __call__(self, case: Case) -> tuple[Tensor, dict[str, float]]:
        """(picture as large as `case.hr`, what it cost: seconds and memory by their names in `measure.COLUMNS`)"""


@dataclass(frozen=True)
class Bicubic:
    """Pillow's bicubic enlargement of the reduced picture."""

    name: str = "bicubic"

    @property
    def facts(self) -> Facts:
        return {"kernel": "bicubic (a = -.5)"}

    def __call__(self, case: Case) -> tuple[Tensor, dict[str, float]]:
        assert case.lr is not None
        return bicubic(case.lr[None], size_of(case.hr))[0], {}


@dataclass(frozen=True)
class Results:
    """Pictures that are there already, by name."""

    name: str
    folder: Path
    files: Mapping[str, Path]
    cut: bool = False
    """Pictures and originals of different sizes are cut at the bottom and right to the smaller of both."""

    @property
    def facts(self) -> Facts:
        """Where they are, and how the first that can be read was made if that is noted in it."""
        for _, path in sorted(self.files.items()):
            with suppress(ImageError):
                provenance = images.read(path).metadata.provenance
                made = {} if provenance is None else {**provenance.facts, "source": f"as noted in {path.name}"}
                return {"folder": str(self.folder), **made}
        return {"folder": str(self.folder)}

    def __call__(self, case: Case) -> tuple[Tensor, dict[str, float]]:
        path, (height, width) = self.files[case.name], case.hr.shape[-2:]
        sr = images.read(path).color
        size = size_of(sr)
        if not self.cut and size not in (case.size, (height, width)):
            sizes = " and ".join(f"{p} is {w}x{h}" for p, (h, w) in ((path, size), (case.path, case.size)))
            near = all(abs(a - b) <= max(_NEAR * b, 1) for a, b in zip(size, case.size, strict=True))
            hint = (
                "--crop-to-match cuts both at the bottom and right"
                if near
                else "results must have the sizes of their originals"
            )
            raise DreamSRError(f"the pictures differ in size: {sizes}", hint)
        return sr[:, :height, :width], {}


@dataclass(frozen=True)
class Sampled:
    """A model with settings."""

    name: str
    upscaler: Upscaler
    model: str = ""
    """Its name on the command line."""
    sha256: str = ""

    @property
    def facts(self) -> Facts:
        given = {key: value for key, value in asdict(self.upscaler.settings).items() if value is not None}
        made = work.describe(self.upscaler, self.model, self.sha256).facts
        del made["source"], made["scale"]  # those of the benchmark
        return {**given, **made, "device": describe(self.upscaler.model.device, self.upscaler.model.dtype)}

    def __call__(self, case: Case) -> tuple[Tensor, dict[str, float]]:
        assert case.lr is not None
        device, size = self.upscaler.model.device, size_of(case.hr)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        (made,), _ = Frugal(self.upscaler)([case.lr], [self._made(case, size)])
        sr = finished(Picture(case.lr), made.color, size).color
        seconds = time.perf_counter() - start
        return sr, {"s_per_mp": seconds / (sr[0].numel() / 1e6), **_peak(device)}

    def _made(self, case: Case, size: Size) -> Size:
        """What the network makes of a case: `size`, or what `upscale` would reduce to it."""
        assert case.lr is not None
        if case.scale is None or case.scale >= self.upscaler.model.config.least_scale:
            return size
        return self.upscaler.made_size(size_of(case.lr), case.scale)


def _peak(device: torch.device) -> dict[str, float]:
    """Peak memory: of the last call on CUDA, of the process up to now elsewhere; nothing where that is unknown."""
    if device.type == "cuda":
        return {"peak_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    if sys.platform == "win32":
        return {}
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}


@dataclass(frozen=True)
class Benchmark:
    """Originals by name, and who is measured on them."""

    originals: Mapping[str, Path]
    contenders: Sequence[Contender]
    measure: Measure
    scale: float | None = None
    """Originals are reduced by it, `fitted` first; None: contenders have their pictures already."""
    inputs: ModelConfig = field(default_factory=ModelConfig)
    """The model whose degradation reduces them."""
    partners: Partners | None = None
    """What they are reduced to, where that is given."""

    def rows(self, broken: dict[str, str] | None = None) -> Iterator[Row]:
        """The scores, picture by picture; pictures of different sizes are an error that names them.

        broken: takes the names of pictures that cannot be read, and why, of which some rows may have been
        yielded; without it that is an error, too.
        """
        for name in self.originals:
            try:
                yield from self._scores(name)
            except ImageError as error:
                if broken is None:
                    raise
                broken[name] = error.message

    def _scores(self, name: str) -> Iterator[Row]:
        case = self.case(name)
        known = case.lr if self.inputs.degradation == "bicubic" else None
        for contender in self.contenders:
            sr, costs = contender(case)
            yield Row(name, contender.name, {**self.measure(sr, case.hr, known), **costs})

    def case(self, name: str) -> Case:
        """The original `name`, cut and reduced as the contenders need it; raises ImageError for an unreadable file."""
        path = self.originals[name]
        if self.partners:
            hr, lr = dataset.read(path, self.partners)
            return Case(name, path, size_of(hr), hr, lr, self.scale)
        hr = images.read(path).color
        size = size_of(hr)
        given = [c.files[name] for c in self.contenders if isinstance(c, Results) and c.cut]
        heights, widths = zip(size, *(images.probe(file).size for file in given), strict=True)
        hr = hr[:, : min(heights), : min(widths)]
        if self.scale is None:
            return Case(name, path, size, hr)
        hr, small = fitted(hr, self.scale)
        (lr,) = degraded(hr[None], small, self.inputs, (0, zlib.crc32(name.encode(errors="surrogateescape"))))
        return Case(name, path, size, hr, lr, self.scale)


def fitted(hr: Tensor, scale: float) -> tuple[Tensor, Size]:
    """What is measured of (3, H, W), and the size (h, w) that it is reduced to.

    Whole scales: what is left of it when cut to multiples. Others: all of it, with a size rounded to whole pixels.
    """
    if scale == int(scale):
        hr = crop_to_multiple(hr, int(scale))
    return hr, output_size(size_of(hr), 1 / scale)


def results(folder: Path, originals: Path, name: str, cut: bool = False) -> Results:
    """The pictures of a folder; two single files are partners whatever their names."""
    files = by_name(folder)
    if folder.is_file() and originals.is_file():
        files = {originals.stem: folder}
    return Results(name, folder, files, cut)


def benchmark(
    place: Path,
    contenders: Sequence[Contender],
    measure: Measure,
    scale: float | None,
    inputs: ModelConfig,
    low: Path | None = None,
) -> tuple[Benchmark, list[Path]]:
    """Contenders, with bicubic first where there is a scale, on the originals at `place` that all folders have.

    low: a folder of what they are reduced to. Also returns the pictures that are left out for want of a partner.
    """
    originals = by_name(place)
    given = [(c.folder, c.files) for c in contenders if isinstance(c, Results)] + ([(low, by_name(low))] if low else [])
    common = set(originals).intersection(*(files for _, files in given))
    if not common and not given:
        raise UsageError(f"no {images.KINDS} picture in {place}")
    if not common:
        places = " and ".join(str(folder) for folder, _ in given)
        raise UsageError(f"no picture of {places} has a partner of the same name in {place}")
    every = [originals, *(files for _, files in given)]
    unpaired = sorted(path for files in every for name, path in files.items() if name not in common)
    chosen = {name: path for name, path in originals.items() if name in common}
    partners = paired(chosen, low, scale) if low else None
    return Benchmark(chosen, [*([Bicubic()] if scale else []), *contenders], measure, scale, inputs, partners), unpaired
