"""What makes a low-resolution picture out of a high-resolution one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dreamsr.config import ModelConfig
from dreamsr.core.resize import bicubic
from dreamsr.data.dataset import generator
from dreamsr.data.photo import photo
from dreamsr.errors import UsageError


@dataclass(frozen=True)
class Pairs:
    """Reduced pictures (3, h, w) and their originals, in [-1, 1]."""

    inputs: Sequence[Tensor]
    originals: Sequence[Tensor]
    unread: Sequence[str] = ()
    """What is wrong with pictures that were left out."""


def quantize(x: Tensor) -> Tensor:
    """Round pictures in [-1, 1] to the 256 levels of an 8-bit file."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def degrade(hr: Tensor, scale: int) -> Tensor:
    """Bicubic reduction as Pillow's: (B, 3, H, W) in [-1, 1] to (B, 3, H / scale, W / scale)."""
    return reduced(hr, (hr.shape[-2] // scale, hr.shape[-1] // scale))


def reduced(hr: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic reduction as Pillow's: rows, then columns, each rounded to 8 bits; (B, 3, H, W) to (B, 3, *size)."""
    narrow = quantize(bicubic(hr, (hr.shape[-2], size[1])))
    return quantize(bicubic(narrow, size))


def degraded(hr: Tensor, size: tuple[int, int], model: ModelConfig, draw: tuple[int, int]) -> Tensor:
    """What a model of `model.degradation` is given: (B, 3, H, W) in [-1, 1] to (B, 3, *size).

    draw: seed and number, all that a random degradation depends on. Raises UsageError for a model of given pairs.
    """
    if model.degradation == "pairs":
        raise UsageError(
            "this model learned from given pairs; inputs like theirs cannot be made", "give them: --low FOLDER"
        )
    if model.degradation == "bicubic":
        return reduced(hr, size)
    return photo(hr, size, model.photo, generator(*draw, hr.device))


def examples(originals: Sequence[Tensor], model: ModelConfig) -> list[Tensor]:
    """What a model is given of originals (3, H, W) whose sides are multiples of its scale; the same at every call."""
    sizes = [(hr.shape[1] // model.scale, hr.shape[2] // model.scale) for hr in originals]
    pairs = enumerate(zip(originals, sizes, strict=True))
    return [degraded(hr[None], size, model, (0, i))[0] for i, (hr, size) in pairs]
