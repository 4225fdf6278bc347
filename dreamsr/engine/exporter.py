"""Slim weights out of a training run or a model, checked before they are put in place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dreamsr.config import ModelConfig, apply_overrides, from_dict, to_dict
from dreamsr.engine import trainer
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, hub, sr3
from dreamsr.files.checkpoint import Model


def export(
    source: str,
    target: Path,
    dtype: str,
    overrides: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
    origin: Literal["sr3"] | None = None,
) -> Model:
    """Write the averaged weights of a run folder, or of a model, as one .safetensors file.

    overrides: `key=value` of the model's configuration, for example `name=mine sampling.lambda_end=2`;
    card: entries laid over the model's own card; origin: the program that made `source`, if another one did.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} has no suffix .safetensors", f"dreamsr export {source} {target.stem}.safetensors")
    if dtype not in checkpoint.DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown", f"use one of {', '.join(checkpoint.DTYPES)}")
    model = sr3.load_published(Path(source), overrides) if origin else _load(source)
    config = from_dict(ModelConfig, apply_overrides(ModelConfig, to_dict(model.config), overrides))
    model = replace(model, config=config, card={**model.card, **(card or {})})
    return checkpoint.save_model(target, model, checkpoint.DTYPES[dtype])


def _load(source: str) -> Model:
    run = Path(source)
    is_run = (run / trainer.STATE).is_file()
    return trainer.averaged(run) if is_run else checkpoint.load_model(hub.resolve(source))
