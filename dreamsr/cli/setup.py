"""From option values to a model on its device."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dreamsr.cli import console
from dreamsr.errors import DreamSRError

if TYPE_CHECKING:
    import torch

    from dreamsr.engine.compilation import Choice
    from dreamsr.engine.upscaler import Upscaler
    from dreamsr.files.checkpoint import Model
    from dreamsr.files.manifest import Manifest


def compute(device: str, dtype: str, threads: int | None = None) -> "tuple[torch.device, torch.dtype]":
    """The device and precision to compute with, which are printed; raises UsageError where they cannot be used."""
    from dreamsr.engine import device as machine

    machine.set_threads(threads)
    machine.keep_memory()
    machine.exact_floats()
    chosen = machine.choose_device(device)
    precision = machine.choose_dtype(chosen, dtype)
    if device == "auto" and (reason := machine.why_no_cuda()):
        console.warn(f"CUDA is not used: {reason}. This will be slow; see the README on builds of torch.")
    console.say(f"device: {machine.describe(chosen, precision)}")
    return chosen, precision


def advise(upscaler: "Upscaler", dtype: str, megapixels: float) -> None:
    """Say of a long job what would make it shorter, where the precision was not chosen."""
    from dreamsr.engine import estimate

    if dtype == "auto" and estimate.int8_pays(upscaler, megapixels):
        console.say("this CPU has no bf16; --dtype int8 would take about half of the time, for less than .1 dB")


def compiled(
    upscaler: "Upscaler", choice: "Choice", megapixels: float, manifest: "Manifest | None", dry: bool
) -> "Upscaler":
    """The upscaler with its network compiled, if that was asked for or is worth it; said aloud."""
    from dreamsr.engine import compilation

    recorded = manifest.entries[-1].compiled if manifest and manifest.entries else None
    device, dtype = upscaler.model.device, upscaler.model.dtype
    if not compilation.worthwhile(choice, device, dtype, megapixels * upscaler.steps, recorded):
        return upscaler
    if dry:
        return replace(upscaler, network=upscaler.model.network)  # settings as compiled, without the wait
    console.say("compiling the network; --compile off goes without")
    fast = replace(upscaler, network=compilation.compiled(upscaler.model.network, upscaler.tiling.static))
    try:
        console.say(f"compiled in {console.duration(compilation.warm_up(fast))}")
    except DreamSRError as error:
        if choice == "on":
            raise
        console.warn(f"{error.message}; going on without")
        return upscaler
    return fast


def lpips_weights(given: Path | None) -> Path | None:
    """--lpips-weights, downloaded if that is asked for."""
    from dreamsr.files import lpips_weights

    if given != Path("download"):
        return given
    console.say("LPIPS weights: what is not in the cache is downloaded, up to 250 MB")
    return lpips_weights.download()


def load(name: str, device: str, dtype: str, threads: int | None = None) -> "Model":
    """A model by name, on its device in its precision."""
    from dreamsr.files import checkpoint, hub

    model = checkpoint.load_model(hub.resolve(name))
    return model.to(*compute(device, dtype, threads))
