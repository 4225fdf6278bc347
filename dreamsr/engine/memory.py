"""What to do when a device runs out of memory: go on with less, or say what takes less."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from dreamsr.config import TrainConfig
from dreamsr.core.size import Size
from dreamsr.engine.upscaler import Enlarged, Upscaler
from dreamsr.errors import DreamSRError

T = TypeVar("T")
_LESS = "close other programs that use it, or take --device cpu"


class Frugal:
    """An upscaler that, once its device ran out of memory, takes half the batch, then half the tile, from then on."""

    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler = upscaler

    def __call__(self, pictures: Sequence[Tensor], sizes: Sequence[Size] | None = None) -> tuple[list[Enlarged], str]:
        """What `Upscaler.enlarge` makes, on the CPU, and a remark if memory ran out this time; raises DreamSRError."""
        remark = ""
        while True:
            try:
                return [x.cpu() for x in self.upscaler.enlarge(pictures, sizes)], remark
            except RuntimeError as error:
                if not _is_memory(error):
                    raise
                smaller = self.upscaler.smaller()  # retried outside: the error holds on to what it has seen
            if smaller is None:
                raise DreamSRError("the device has too little memory even for the smallest tiles", _LESS)
            self.upscaler = smaller
            batch, tile = smaller.tiling.batch, smaller.tiling.tile
            remark = f"the device ran out of memory; from here on tiles of {tile}, {batch} at a time"


@contextmanager
def _explained(message: str, hint: str) -> Iterator[None]:
    """A device that runs out of memory inside becomes a DreamSRError of this message; other errors pass."""
    try:
        yield
    except RuntimeError as error:
        if not _is_memory(error):
            raise
        raise DreamSRError(message, hint) from error


def told(pictures: Iterator[T]) -> Iterator[T]:
    """`pictures`, for which memory that runs out is a DreamSRError."""
    with _explained("the device has too little memory", _LESS):
        yield from pictures


def enough_for(config: TrainConfig) -> AbstractContextManager[None]:
    """Memory that runs out inside, while training, becomes a DreamSRError that tells what takes less."""
    now, batch = config.micro_batches, config.batch
    more = next((n for n in range(now + 1, batch + 1) if batch % n == 0), None)
    hint = f"micro_batches={more}, which computes a batch in {more} parts" if more else "a smaller crop="
    return _explained(
        f"the device has too little memory for {batch // now} crops of {config.crop} pixels at a time",
        f"start again with {hint}",
    )


def _is_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory; MPS and some libraries of CUDA say so in words alone."""
    words = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
