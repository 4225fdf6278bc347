"""What a job is going to take."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from dreamsr.engine.outputs import Size
from dreamsr.engine.upscaler import HALO, Upscaler

_BYTES_A_PIXEL = 12
_COPIES = 8
"""Bags that are held at once: anchors, u, its estimates, noise, the result and what is written."""


@dataclass(frozen=True)
class Estimate:
    """What to expect of a job."""

    tiles: int
    seconds: float
    """From the time that one batch of tiles takes on this machine now."""
    bytes: int
    """Of pictures in memory at the largest one, besides what torch and the network take."""


def estimate(upscaler: Upscaler, sizes: Iterable[Size]) -> Estimate:
    """The tiles, time and memory that inputs of (height, width) take."""
    counts = [upscaler.tiles(size) for size in sizes]
    if not counts:
        return Estimate(0, 0.0, 0)
    core = upscaler.settings.tile - 2 * HALO
    largest = (max(counts) + 1) * core**2 * _BYTES_A_PIXEL * _COPIES
    return Estimate(sum(counts), sum(counts) * _seconds_a_tile(upscaler), largest)


def _seconds_a_tile(upscaler: Upscaler) -> float:
    """Measured on gray, after a first call that prepares the kernels."""
    side = max(1, (upscaler.settings.tile - 2 * HALO) // upscaler.model.config.scale)
    pictures = [torch.zeros(3, side, side)] * upscaler.settings.batch
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for output in upscaler(pictures):
            output.cpu()
        seconds = time.perf_counter() - start
    return seconds / upscaler.settings.batch
