"""What a job is going to take."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dreamsr.engine.outputs import Size
from dreamsr.engine.upscaler import WHOLE, Upscaler

_SIDE = 1024
"""Of the largest picture that is measured, in pixels of the output."""
_BYTES_A_PIXEL = 12 * 9
"""Three float32 planes of what is solved in one piece: anchors, u, its estimates, noise; and features."""
_OUTPUT_BYTES = 12 + 3
"""Of a pixel of the output, before and after it is rounded."""


@dataclass(frozen=True)
class Estimate:
    """What to expect of a job."""

    tiles: int
    seconds: float
    """From the time that a picture of the middle size takes on this machine now."""
    bytes: int
    """Of memory for the largest picture, besides what torch and the network take."""


def estimate(upscaler: Upscaler, sizes: Sequence[Size]) -> Estimate:
    """What outputs of (height, width) take; they are those that the network makes."""
    if not sizes:
        return Estimate(0, 0.0, 0)
    by_pixels = sorted(height * width for height, width in sizes)
    middle = sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]
    tiles = sum(upscaler.tiles(size) for size in sizes)
    seconds = sum(by_pixels) * _seconds_a_pixel(upscaler, middle)
    largest = by_pixels[-1]
    return Estimate(tiles, seconds, min(largest, WHOLE**2) * _BYTES_A_PIXEL + largest * _OUTPUT_BYTES)


def _seconds_a_pixel(upscaler: Upscaler, size: Size) -> float:
    """Of the output; the best of three calls of one full batch, since the first one prepares the kernels."""
    height, width = (min(side, _SIDE) for side in size)
    scale, batch = upscaler.model.config.scale, upscaler.tiling.batch
    pictures = [torch.zeros(3, math.ceil(height / scale), math.ceil(width / scale))] * batch

    def call() -> float:
        start = time.perf_counter()
        for output in upscaler(pictures, [(height, width)] * batch):
            output.cpu()
        return time.perf_counter() - start

    return min(call() for _ in range(3)) / (batch * height * width)
