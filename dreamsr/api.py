"""dreamsr in Python: `dreamsr.load(...)` gives a model, which upscales pictures in memory as the program does files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from os.path import abspath, exists
from typing import Any, TypedDict, Unpack, get_type_hints

import numpy as np
import torch
from torch import Tensor

from dreamsr.engine.device import choose_device, choose_dtype, describe, exact_floats
from dreamsr.engine.finish import finished
from dreamsr.engine.memory import Frugal, told
from dreamsr.engine.outputs import Sizing
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import UsageError
from dreamsr.files import arrays, checkpoint, hub, images
from dreamsr.files.arrays import Pictorial
from dreamsr.files.images import Picture
from dreamsr.tables import from_dict


class Options(TypedDict, total=False):
    """What may be asked of a picture; what is left out comes from the model."""

    steps: int
    """Sampling steps, at least 1."""
    sampler: str
    """A name as `dreamsr upscale --sampler` takes it."""
    fidelity: float
    """From 0, all the texture, to 1, the mean picture."""
    samples: int
    """The result is the mean of so many."""
    consistency: float
    """From 0 to 1: how far the result is moved to agree with the image when it is reduced again."""
    seed: int
    """Of the noise (default: 0)."""
    tile: int
    """Largest side of a tile in output pixels."""

    grid: str | Sequence[float]
    """Spacing of the noise levels by name, as `dreamsr upscale --grid` takes it, or the levels themselves."""
    scale: float
    """Output size / input size, from 1 to the model's. Below the scales that the model knows, its smallest, reduced."""


_KNOWN = get_type_hints(Options).keys()


@dataclass(frozen=True)
class Model:
    """A model on its device; made by `load`."""

    loaded: checkpoint.Model

    def __repr__(self) -> str:
        where = describe(self.loaded.device, self.loaded.dtype)
        return f"<dreamsr.Model {self.name}, {self.loaded.config.scales}, {where}>"

    @property
    def name(self) -> str:
        """The name that its file has for it."""
        return self.loaded.config.name

    @property
    def scale(self) -> int:
        """The largest output size / input size."""
        return self.loaded.config.scale

    def upscale(self, image: Pictorial, **options: Unpack[Options]) -> Pictorial:
        """The enlarged image, of the same type as `image`, which is one of

        * a Pillow image, with or without transparency, a palette, or gray; EXIF orientation is not applied;
        * a numpy array (H, W) or (H, W, C) with 1 to 4 channels: gray, gray and alpha, RGB, RGBA; uint8, uint16, or a
          float in [0, 1], and so is the result;
        * a tensor (3, H, W) or (B, 3, H, W) of a float in [0, 1]; the result is on its device.

        The sides of the result are `scale` times those of `image`, rounded. Raises UsageError for any other picture or
        option. Equal to what `dreamsr upscale` writes with the same options.
        """
        upscaler, sizing = self._configured(**options)
        sources = [images.bled(picture) for picture in arrays.pictures(image)]
        size = upscaler.made_size(sources[0].size, sizing.scale)
        upscale, bag = Frugal(upscaler), max(1, upscaler.tiling.batch // upscaler.tiles(size))
        colors: list[Tensor] = []
        for i in range(0, len(sources), bag):
            inputs = [picture.color for picture in sources[i : i + bag]]
            colors += [made.color for made in upscale(inputs, [size] * len(inputs))[0]]
        return arrays.like(image, self._finished(sources, colors, sizing))

    def steps(self, image: Pictorial, **options: Unpack[Options]) -> Iterator[Pictorial]:
        """What the image looks like after every step, for previews; the last one is what `upscale` returns.

        As `upscale`, but only where the network makes at most 4096 pixels a side.
        """
        upscaler, sizing = self._configured(**options)
        sources = [images.bled(picture) for picture in arrays.pictures(image)]
        size = upscaler.made_size(sources[0].size, sizing.scale)
        runs = [told(upscaler.previews(picture.color, size)) for picture in sources]
        return (arrays.like(image, self._finished(sources, colors, sizing)) for colors in zip(*runs, strict=True))

    def _configured(self, **options: Unpack[Options]) -> tuple[Upscaler, Sizing]:
        if unknown := sorted(options.keys() - _KNOWN):
            raise UsageError(f"option {unknown[0]!r} is unknown", f"known are {', '.join(_KNOWN)}")
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
        sizing = from_dict(Sizing, {"scale": plain.pop("scale", None)})
        sizing.check(self.scale)
        if "grid" in plain:
            plain["grid"] = _named(plain["grid"])
        return Upscaler(self.loaded, from_dict(Settings, plain)), sizing

    def _finished(self, sources: Sequence[Picture], colors: Sequence[Tensor], sizing: Sizing) -> list[Picture]:
        return [
            finished(source, color.cpu(), sizing.output(source.size, self.scale))
            for source, color in zip(sources, colors, strict=True)
        ]


def _named(grid: Any) -> str:
    """A grid as the command line takes it."""
    if isinstance(grid, str):
        return grid
    try:
        return ",".join(str(float(level)) for level in grid)
    except (TypeError, ValueError):
        raise UsageError(f"grid is {grid!r}; expected a name or a list of levels", "grid=[-4, -1, 0.5, 2]") from None


def load(name: str | PathLike[str] = hub.DEFAULT_MODEL, *, device: str = "auto", dtype: str = "auto") -> Model:
    """A model by its bundled name, .safetensors file or run folder, or `org/repo[@revision][:file]` on the Hub.

    device: auto, cpu, cuda, cuda:1, mps; dtype: auto, fp32, bf16, fp16, or int8 on a CPU. fp32 on an NVIDIA card
    switches TF32 off for the whole process. Raises DreamSRError for a model, device or dtype that is not there.
    """
    chosen = choose_device(device)
    precision = choose_dtype(chosen, dtype)
    if chosen.type == "cuda" and precision == torch.float32:
        exact_floats()
    # a path that is there is no name of a bundled model, though pathlib has lost its ./
    local = not isinstance(name, str) and exists(name)
    return Model(checkpoint.load_model(hub.resolve(abspath(name) if local else fspath(name))).to(chosen, precision))
