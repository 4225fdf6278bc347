"""What a job is made of: its settings, its tasks on their way, and what became of them."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dreamsr import __version__
from dreamsr.core.size import Size
from dreamsr.engine.device import dtype_name
from dreamsr.engine.outputs import Sizing
from dreamsr.engine.planning import Task
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import DreamSRError
from dreamsr.files.images import Picture, Provenance
from dreamsr.files.manifest import Entry, digest


@dataclass(frozen=True)
class Job:
    """All that decides the outputs besides the pictures."""

    upscaler: Upscaler
    model: str
    """Digest of the model's file."""
    sizing: Sizing
    quality: int | None = None
    overwrite: bool = False
    strip_metadata: bool = False
    provenance: Provenance | None = None
    """Noted in every output, with the name of its input; None: not."""

    @property
    def settings(self) -> str:
        """Digest of all that decides the bytes of an output, but for its input and the format, which its name tells."""
        own, model, tiling = self.upscaler.settings, self.upscaler.model, self.upscaler.tiling
        plan = self.upscaler.schedule
        return digest(
            {
                "model": self.model,
                "sampler": plan.name,
                "levels": plan.levels.tolist(),
                "noise_scale": plan.noise_scale,
                "fidelity": plan.fidelity,
                "samples": own.samples,
                "consistency": own.consistency,
                "seed": own.seed,
                "size": str(self.sizing) or f"--scale {model.config.scale}",
                "dtype": str(model.dtype),
                "device": model.device.type,
                "tile": tiling.tile,
                "batch": tiling.batch,
                "compiled": self.upscaler.compiled,
                "quality": self.quality,
                "metadata": not self.strip_metadata,
                "provenance": self.provenance is not None,
            }
        )

    def factor(self, size: Size) -> float:
        """Output size / input size of an input of (height, width)."""
        return self.sizing.factor(size, self.upscaler.model.config.scale)

    def output_size(self, size: Size) -> Size:
        """(height, width) of the output of an input of (height, width); raises ImageError for what cannot be made."""
        return self.sizing.output(size, self.upscaler.model.config.scale)

    def made_size(self, size: Size) -> Size:
        """(height, width) of what the network makes of an input of (height, width): the output's, or larger."""
        return self.upscaler.made_size(size, self.factor(size))


@dataclass(frozen=True)
class Result:
    """What became of a task; `message` says why it was skipped, made again, or failed."""

    task: Task
    status: Literal["done", "skipped", "failed"]
    message: str = ""
    size: Size = (0, 0)
    """(height, width) of the output; 0 where it is not known"""
    seconds: float = 0.0
    """Decoding, its share of the network's time, and encoding."""
    warnings: tuple[str, ...] = ()
    agreement: float | None = None
    """PSNR between the picture, reduced again, and its input; None where the model's reduction is not known."""
    elsewhere: bool = False
    """Another process did it."""


@dataclass(frozen=True)
class Work:
    """A task on its way through the pipeline: with a picture to enlarge or write, or with a result already.

    With neither, another process is at it.
    """

    task: Task
    result: Result | None = None
    picture: Picture | None = None
    before: Picture | None = None
    """The input, where a sheet shows it."""
    deviation: Tensor | None = None
    """(H, W) of the output, where maps show it."""
    agreement: float | None = None
    reason: str = ""
    entry: Entry | None = None
    """What the manifest is to know, as far as it is known before the end."""
    seconds: float = 0.0


def describe(upscaler: Upscaler, name: str, sha256: str) -> Provenance:
    """How `upscaler` makes pictures; its model is called `name`, and its file has this digest."""
    own, plan = upscaler.settings, upscaler.schedule
    return Provenance(
        software=f"dreamsr {__version__}",
        model=name,
        model_sha256=sha256,
        sampler=own.sampler,
        grid=own.grid,
        schedule=plan.words,
        steps=plan.steps,
        fidelity=plan.fidelity,
        samples=own.samples,
        consistency=own.consistency,
        seed=own.seed,
        scale=float(upscaler.model.config.scale),
        tile=upscaler.tiling.tile,
        dtype=dtype_name(upscaler.model.dtype),
    )


def failure(task: Task, error: DreamSRError) -> Result:
    """The result of a task that could not be done."""
    return Result(task, "failed", "; ".join(filter(None, (error.message, error.hint))))
