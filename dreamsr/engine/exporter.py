"""Slim weights or an ONNX graph out of a training run or a model, checked before they are put in place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import Dim

from dreamsr import __version__
from dreamsr.config import ModelConfig
from dreamsr.core import noise, sampling
from dreamsr.core.unrolled import Unrolled
from dreamsr.engine import runs, trainer
from dreamsr.engine.blending import blended
from dreamsr.engine.schedule import Settings, schedule
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import CheckpointError, UsageError
from dreamsr.files import atomic, checkpoint, hub, onnx, sr3
from dreamsr.files.checkpoint import Model
from dreamsr.files.manifest import file_digest
from dreamsr.tables import apply_overrides, from_dict, to_dict
from dreamsr.words import counted

Format = Literal["safetensors", "onnx"]
Origin = Literal["sr3"]
MOST_STEPS = 8
"""That a graph holds: each adds some hundred nodes."""
CHECKED = ((32, 48), (21, 37), (3, 5))
"""(height, width) of the pictures that a graph is compared on."""
_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest difference to torch in fp32, of a range of 1."""


@dataclass(frozen=True)
class Graph:
    """What was exported as ONNX."""

    name: str
    steps: int
    sampling: str
    """The sampler and its levels, in words."""
    differences: tuple[float, ...]
    """Largest difference to torch in fp32 on a picture of each size of CHECKED, of a range of 1."""


def format_of(target: Path, asked: Format | Literal["auto"]) -> Format:
    """The format that was asked for, or that the suffix of `target` tells; raises UsageError where they disagree."""
    suffixes: dict[str, Format] = {".safetensors": "safetensors", ".onnx": "onnx"}
    named = suffixes.get(target.suffix)
    if asked != "auto" and named != asked:
        raise UsageError(f"{target} does not end with .{asked}", f"name it {target.stem}.{asked}")
    if named is None:
        raise UsageError(f"{target} has no suffix .safetensors or .onnx", f"name it {target.stem}.safetensors")
    return named


def export(
    source: str,
    target: Path,
    dtype: str,
    overrides: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
    blend: Mapping[str, float] | None = None,
) -> Model:
    """Write the averaged weights of a run folder, or of a model, as one .safetensors file.

    overrides: `key=value` of the model's configuration, for example `name=mine sampling.lambda_end=2`;
    card: entries laid over the model's own card; origin: the program that made `source`, if another one did;
    blend: shares of the weights of other models or runs, as in `blended`.
    """
    if dtype not in checkpoint.DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown", f"use one of {', '.join(checkpoint.DTYPES)}")
    model, _ = _load(source, overrides, card, origin)
    if blend:
        model = blended(model, {name: (_read(name)[1], share) for name, share in blend.items()})
    return checkpoint.save_model(target, model, checkpoint.DTYPES[dtype])


def export_onnx(
    source: str,
    target: Path,
    dtype: str,
    steps: int | None = None,
    overrides: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> Graph:
    """Write a model with its sampler, unrolled to `steps` (default: the model's), as one .onnx file; as `export`.

    Raises UsageError for what a graph cannot hold, CheckpointError if onnxruntime and torch disagree.
    """
    onnx.require()
    if dtype not in _TOLERANCE:
        raise UsageError(f"--dtype is {dtype!r}; ONNX takes {' or '.join(_TOLERANCE)}")
    model, sha256 = _load(source, overrides, card, origin)
    upscaler = Upscaler(model.to("cpu"), Settings(steps=steps))
    _check_sampling(upscaler)
    module = _unrolled(upscaler, model.to("cpu", checkpoint.DTYPES[dtype]))
    data = onnx.encode(module, *_signature(upscaler), "upscaled", _metadata(upscaler, dtype, sha256))
    differences = tuple(_difference(onnx.Session(data), upscaler, size) for size in CHECKED)
    if not all(difference <= _TOLERANCE[dtype] for difference in differences):  # nor is one that is no number
        raise CheckpointError(
            f"{target} would differ from torch by {max(differences):.2g} of the range, above {_TOLERANCE[dtype]:g}",
            "export it with --dtype fp32" if dtype == "fp16" else "",
        )
    atomic.write(target, data)
    return Graph(model.config.name, upscaler.steps, upscaler.schedule.words, differences)


def _load(
    source: str, overrides: Sequence[str], card: Mapping[str, Any] | None, origin: Origin | None
) -> tuple[Model, str]:
    """The model of a run folder or by name, changed as asked for, and the digest of the file it comes from."""
    file, model = (Path(source), sr3.load_published(Path(source), overrides)) if origin else _read(source)
    config = from_dict(ModelConfig, apply_overrides(ModelConfig, to_dict(model.config), overrides))
    if config.network != model.config.network:
        raise UsageError(f"the weights of {source} are of another network", "leave out what begins with network.")
    if not origin and not model.config.least_scale <= config.least_scale <= config.scale <= model.config.scale:
        raise UsageError(f"{source} makes {model.config.scales}, not {config.scales}", "`upscale --scale` reduces")
    _check_schedules(config)
    return replace(model, config=config, card={**model.card, **(card or {})}), file_digest(file)


def _check_schedules(config: ModelConfig) -> None:
    """Raises UsageError for a model that cannot be sampled: by its own grid, or by what was tuned for it."""
    schedule(config.with_tuned(), Settings(fidelity=0.0))
    for steps in (len(grid.lambdas) for grid in config.sampling.tuned):
        try:
            schedule(config, Settings(steps=steps, fidelity=0.0))
        except UsageError as error:
            hint = "sampling.tuned=[] leaves it out"
            raise UsageError(f"what was tuned for {counted(steps, 'step')}: {error.message}", hint) from error


def _read(source: str) -> tuple[Path, Model]:
    """A run folder's averaged weights in full precision, or a model by name; with the file that it is in."""
    file = hub.resolve(source)
    state = file.with_name(runs.STATE)
    if file.parent == Path(source) and state.is_file():
        return state, trainer.averaged(Path(source))
    return file, checkpoint.load_model(file)


def _check_sampling(upscaler: Upscaler) -> None:
    name = upscaler.schedule.name
    if side := upscaler.model.network.fixed_size:
        raise UsageError(f"this network runs in tiles of {side} pixels, which a graph does not", "export .safetensors")
    if upscaler.steps > MOST_STEPS:
        raise UsageError(f"--steps is {upscaler.steps}; a graph holds 1 to {MOST_STEPS}", "try --steps 4")
    if upscaler.schedule.sampler.variance:
        fixed = [name for name, known in sampling.SAMPLERS.items() if not known.variance]
        raise UsageError(
            f"sampler {name!r} draws noise at every step, which a graph does not",
            f"use sampling.sampler={' or '.join(fixed)}",
        )


def _unrolled(upscaler: Upscaler, model: Model) -> Unrolled:
    """`model` sampled as `upscaler` does. A graph cannot predict again in float32 what overflows."""
    plan, denoiser = upscaler.schedule, replace(model.denoiser, exact=None)
    noise_scale, fidelity = plan.noise_scale, plan.fidelity
    return Unrolled(denoiser, plan.levels, plan.sampler, model.config.scale, noise_scale=noise_scale, fidelity=fidelity)


def _signature(upscaler: Upscaler) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, Any]]]:
    """Example inputs, and which of their sides are free."""
    grain, picture = upscaler.model.network.granularity, torch.zeros(1, 3, *CHECKED[0])
    examples = {"picture": picture, "noise": _noise(upscaler, CHECKED[0])}
    return examples, {
        "picture": {2: Dim("height"), 3: Dim("width")},
        "noise": {2: grain * Dim("rows"), 3: grain * Dim("columns")},
    }


def _metadata(upscaler: Upscaler, dtype: str, sha256: str) -> dict[str, str]:
    """What the file tells of itself."""
    config = upscaler.model.config
    return {
        "software": f"dreamsr {__version__}",
        "name": config.name,
        "model_sha256": sha256,
        "licence": str(upscaler.model.card.get("licence", "")),
        "scale": str(config.scale),
        "multiple": str(upscaler.model.network.granularity),
        "steps": str(upscaler.steps),
        "sampler": upscaler.schedule.words,
        "fidelity": f"{upscaler.schedule.fidelity:g}",
        "dtype": dtype,
    }


def _difference(session: onnx.Session, upscaler: Upscaler, size: tuple[int, int]) -> float:
    """The largest difference between both enlargements of a random picture, of a range of 1."""
    picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    got = session(picture=picture[None], noise=_noise(upscaler, size))[0]
    wanted = (upscaler([2 * picture - 1])[0] + 1) / 2
    return float((got - wanted).abs().max())


def _noise(upscaler: Upscaler, size: tuple[int, int]) -> torch.Tensor:
    """The noise (1, 3, Y, X) that `upscaler` begins with on a picture of `size`."""
    scale = upscaler.model.config.scale
    (canvas,) = upscaler.layout([(scale * size[0], scale * size[1])]).canvases
    return noise.normal((upscaler.settings.seed, 0, 0), canvas)[None]
