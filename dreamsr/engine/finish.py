"""From what a network made to the picture that was asked for."""

from torch import Tensor

from dreamsr.config import ModelConfig
from dreamsr.data.degrade import reduced
from dreamsr.errors import DreamSRError
from dreamsr.files import images
from dreamsr.files.images import Picture
from dreamsr.metrics import psnr

EQUAL = 100.0
"""Stands for the infinite PSNR of equal pictures, in dB."""


def finished(source: Picture, color: Tensor, size: tuple[int, int]) -> Picture:
    """`source` with its enlarged `color` (3, H, W), all else to match, reduced to `size` (height, width).

    Raises DreamSRError for values that are not finite.
    """
    if not bool(color.sum().isfinite()):  # all of them are, without copies of a large picture
        raise DreamSRError("the network gave values that are not finite", "take another model")
    return images.resize(images.enlarged(source, color), size)


def agreement(color: Tensor, source: Picture, model: ModelConfig) -> float | None:
    """PSNR on RGB in dB between an enlargement (3, H, W), reduced again by the model's degradation, and its source.

    None for models whose degradation is not known.
    """
    if model.degradation != "bicubic":
        return None
    again = reduced(color[None], source.size)[0]
    return min(psnr(images.to_bytes(again), images.to_bytes(source.color)), EQUAL)
