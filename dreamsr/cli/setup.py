"""From option values to a model on its device."""

from typing import TYPE_CHECKING

from dreamsr.cli import console

if TYPE_CHECKING:
    import torch

    from dreamsr.files.checkpoint import Model


def compute(device: str, dtype: str, threads: int | None = None) -> "tuple[torch.device, torch.dtype]":
    """The device and precision, said aloud."""
    from dreamsr.engine.device import choose_device, choose_dtype, describe, keep_memory, set_threads, why_no_cuda

    set_threads(threads)
    keep_memory()
    chosen = choose_device(device)
    precision = choose_dtype(chosen, dtype)
    if device == "auto" and (reason := why_no_cuda()):
        console.warn(f"CUDA is not used: {reason}. This will be slow; see the README on builds of torch.")
    console.say(f"device: {describe(chosen, precision)}")
    return chosen, precision


def load(name: str, device: str, dtype: str, threads: int | None = None) -> "Model":
    """A model by name, on its device in its precision."""
    from dreamsr.files import checkpoint, hub

    model = checkpoint.load_model(hub.resolve(name))
    return model.to(*compute(device, dtype, threads))
