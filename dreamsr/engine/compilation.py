"""torch.compile: whether it pays, and a compiled network in the place of a plain one."""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Network
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import hub

Choice = Literal["auto", "on", "off"]
PAYS = 10_000.0
"""Megapixels of output times steps from which compiling saves more time on CUDA than it takes."""


class Compiled(nn.Module):
    """A network whose two parts are compiled; a module, so that DREAM can switch its dropout off."""

    def __init__(self, network: Network, static: bool) -> None:
        super().__init__()
        self.encoder: Callable[[Tensor, Tensor], Tensor]
        self.step: Callable[[Tensor, Tensor, Tensor], Tensor]
        self.encoder, self.step = (torch.compile(part, dynamic=not static) for part in (network.encode, network))

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return self.encoder(anchor, scale)

    def forward(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        return self.step(u, angle, features)


def worthwhile(
    choice: Choice, device: torch.device, dtype: torch.dtype, work: float, recorded: bool | None = None
) -> bool:
    """Whether to compile for `work` megapixels times steps; a function of its arguments and the machine.

    `auto` repeats what is recorded of an earlier part of the same job. On a CPU it never compiles: it gains nothing
    there, where oneDNN computes the convolutions in any case. Raises UsageError for `on` where nothing can be compiled.
    """
    reason = unavailable(device)
    if dtype == torch.int8:
        reason = "convolutions in 8 bits are compiled already"
    if choice == "on" and reason:
        raise UsageError(f"--compile on: {reason}", "leave --compile out")
    if choice != "auto":
        return choice == "on"
    if recorded is not None:
        return recorded and reason is None
    return device.type == "cuda" and reason is None and work >= PAYS


def unavailable(device: torch.device) -> str | None:
    """Why torch.compile cannot work here; None if it can."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device)[0] < 7:
            return "this GPU is too old"
        return "there is no triton package" if importlib.util.find_spec("triton") is None else _no_compiler("C")
    return _no_compiler("C++") if device.type == "cpu" else f"it is not used on {device.type}"


def _no_compiler(language: Literal["C", "C++"]) -> str | None:
    variable, known = {"C": ("CC", ["gcc", "clang"]), "C++": ("CXX", ["g++", "clang++", "cl"])}[language]
    names = filter(None, [os.environ.get(variable), *known])
    return None if any(map(shutil.which, names)) else f"there is no {language} compiler"


def compiled(network: Network, static: bool) -> Compiled:
    """Compiled at the first call; the code is kept in the cache folder for the next run.

    static: one shape for every call; else the code serves every shape.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(hub.cache_folder() / "compiled"))
    return Compiled(network, static)


def warm_up(upscaler: Upscaler) -> float:
    """Seconds that a first picture takes: the compilation. Raises DreamSRError if it fails."""
    start, side = time.perf_counter(), upscaler.tiling.tile // upscaler.model.config.scale
    try:
        upscaler([torch.zeros(3, side // 2, side // 3)])
    except Exception as error:  # whatever a compiler on this machine comes to
        raise _failed(error) from error
    return time.perf_counter() - start


@contextmanager
def explained() -> Iterator[None]:
    """What a compiler fails at while it is used, in one line: raises DreamSRError."""
    from torch._dynamo.exc import TorchDynamoException  # seconds, which training takes anyway

    try:
        yield
    except TorchDynamoException as error:
        raise _failed(error) from error


def _failed(error: Exception) -> DreamSRError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return DreamSRError(f"the network cannot be compiled here: {reason}", "use --compile off")
