"""What a job is going to take."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dreamsr.core import int8
from dreamsr.core.size import Size
from dreamsr.engine.upscaler import WHOLE, Upscaler

_SIDE = 1024
"""Longest side of the picture whose time is measured, in pixels of the output."""
_BYTES_A_PIXEL = 12 * 9
"""Memory of what is solved in one piece: nine float32 pictures, for anchors, u, estimates, noise and features."""
_VALUES_A_TILE_PIXEL = 60
"""Values that the bundled networks hold at a time for a pixel of the tiles of a call, in their precision."""
_OUTPUT_BYTES = 16
"""Memory of a pixel of the output before it is rounded: four float32, colour and alpha."""
_LONG = 100.0
"""Megapixels of output times steps that take some minutes in fp32 on a CPU."""


@dataclass(frozen=True)
class Estimate:
    """What to expect of a job."""

    tiles: int
    seconds: float
    """From the time that a picture of the middle size takes on this machine now."""
    bytes: int
    """Of memory for the largest picture, besides what torch and the network take."""


def estimate(upscaler: Upscaler, sizes: Sequence[Size], bits: Sequence[int] = ()) -> Estimate:
    """What outputs of (height, width), as the network makes them, take; bits: of a pixel of each (default: 24)."""
    if not sizes:
        return Estimate(0, 0.0, 0)
    tiles = sum(upscaler.tiles(size) for size in sizes)
    height, width = sorted(sizes, key=math.prod)[len(sizes) // 2]
    middle = min(height, _SIDE), min(width, _SIDE)
    work = sum(_work(upscaler, size) for size in sizes) / _work(upscaler, middle)
    seconds = work * _seconds(upscaler, middle)
    memory = max(_bytes(upscaler, *output) for output in zip(sizes, bits or [24] * len(sizes), strict=True))
    return Estimate(tiles, seconds, memory)


def int8_pays(upscaler: Upscaler, megapixels: float) -> bool:
    """Whether a job of fp32 on a CPU takes minutes that int8 would halve, at nearly the same picture."""
    model = upscaler.model
    slow = model.device.type == "cpu" and model.dtype == torch.float32 and megapixels * upscaler.steps > _LONG
    return slow and int8.fast() and model.trouble_with_int8 is None


def _bytes(upscaler: Upscaler, size: Size, bits: int) -> int:
    solved = min(size[0], WHOLE), min(size[1], WHOLE)
    tile = max(math.prod(tile.shape) for tile in upscaler.layout([solved]).tiles)
    held = tile * upscaler.tiling.batch * _VALUES_A_TILE_PIXEL * upscaler.denoiser.dtype.itemsize
    output = math.prod(size) * (_OUTPUT_BYTES + 2 * bits // 8)  # rounded, and encoded, which may save nothing
    return math.prod(solved) * _BYTES_A_PIXEL + output + held


def _work(upscaler: Upscaler, size: Size) -> int:
    """What the time of an output grows with: its tiles where all are of one shape, else its pixels."""
    return upscaler.tiles(size) if upscaler.tiling.static else math.prod(size)


def _seconds(upscaler: Upscaler, size: Size) -> float:
    """That an output takes; the best of three calls of one full batch, since the first one prepares the kernels."""
    scale, batch = upscaler.model.config.scale, upscaler.tiling.batch
    pictures = [torch.zeros(3, *(math.ceil(side / scale) for side in size))] * batch

    def call() -> float:
        start = time.perf_counter()
        for output in upscaler(pictures, [size] * batch):
            output.cpu()
        return time.perf_counter() - start

    return min(call() for _ in range(3)) / batch
