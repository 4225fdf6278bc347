"""Which device, precision and tiles to compute with."""

import ctypes
import os
import shutil
from dataclasses import dataclass

import torch

from dreamsr.core import int8
from dreamsr.errors import UsageError
from dreamsr.files.checkpoint import DTYPES
from dreamsr.words import counted

PRECISIONS = {**DTYPES, "int8": torch.int8}
MOST_THREADS = 1024
TILE = 1472
"""Default side of the tiles on a CPU, in output pixels."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU, whatever works first; a named device must work."""
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        return torch.device(next(kind for kind, is_there in there.items() if is_there and not trouble(kind)))
    if reason := trouble(name):
        hint = "use --device cpu, or install a build of torch for your GPU (see the README)"
        raise UsageError(f"device {name!r} cannot be used: {reason}", hint)
    return torch.device(name)


def trouble(device: str) -> str | None:
    """Why nothing can be computed on a device, as where torch is not built for this GPU; None if it can."""
    try:
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0].split(". ")[0]
    return None


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """`auto` takes bf16 where the hardware multiplies it natively, else fp32."""
    if name == "int8" and (device.type != "cpu" or not int8.available()):
        raise UsageError("int8 is for CPUs with a torch for x86", "use --device cpu --dtype int8, or another --dtype")
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise UsageError(f"dtype {name!r} is unknown", f"use auto, {', '.join(PRECISIONS)}")
    return torch.bfloat16 if has_bf16(device) else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a precision, as `--dtype` takes it."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32: CUDA from Ampere on, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


@dataclass(frozen=True)
class Tiling:
    """Largest side of a tile in output pixels, tiles in a call of the network, and whether all have that side."""

    tile: int
    batch: int
    static: bool


def tiling(device: torch.device) -> Tiling:
    """A CPU is busy with one large tile of any shape; a GPU needs many, and different pictures' have one shape."""
    return Tiling(TILE, 1, False) if device.type == "cpu" else Tiling(512, 16, True)


def set_threads(count: int | None) -> None:
    """Let the CPU part of torch use `count` threads (default: torch's own choice, the cores)."""
    if count is None:
        return
    if not 1 <= count <= MOST_THREADS:
        raise UsageError(f"--threads is {count}; expected a whole number from 1 to {MOST_THREADS}")
    torch.set_num_threads(count)


def exact_floats() -> None:
    """Let fp32 be fp32 in convolutions on NVIDIA cards, which round to 10 bits (TF32) else."""
    torch.backends.cudnn.allow_tf32 = False


def keep_memory() -> None:
    """Let glibc keep freed memory for the next tensor: handing every one back costs page after page of faults.

    Does nothing with other C libraries. Old versions of glibc refuse more than 32 MiB, and what is set at all ends the
    adaptation of the other threshold, so without the first the second would do harm.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size) for size in (1 << 30, 1 << 25)):
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """One line for people, for example `CUDA (NVIDIA H200), bf16`."""
    name = dtype_name(dtype)
    if device.type == "cuda":
        return f"CUDA ({torch.cuda.get_device_name(device)}), {name}"
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    return f"{device.type.upper()}{threads}, {name}"


def why_no_cuda() -> str | None:
    """Why CUDA cannot be used although it was to be expected here; None otherwise."""
    if torch.cuda.is_available():
        return trouble("cuda")
    if torch.version.cuda:
        return f"this torch is built for CUDA {torch.version.cuda}, but finds no usable GPU"
    if shutil.which("nvidia-smi"):
        return "there is an NVIDIA driver, but this torch is built without CUDA"
    return None
