"""Combinations of settings, as `steps=1,4 sampler=ddim,ddpm` names them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import count_steps
from dreamsr.errors import UsageError
from dreamsr.tables import parse_field


def parse(texts: Iterable[str]) -> dict[str, list[Any]]:
    """`key=value,value` as values by key, converted to the types of the fields of Settings."""
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"{text!r} is no sweep", "write key=value,value, for example steps=1,4")
        if key in axes:
            raise UsageError(
                f"{key!r} is swept twice", f"write all values once: {key}={','.join(map(str, axes[key]))},..."
            )
        axes[key] = [parse_field(Settings, key, value) for value in values.split(",")]
    return axes


def combinations(settings: Settings, axes: Mapping[str, Sequence[Any]]) -> dict[str, Settings]:
    """`settings` with every combination of the values, by its name, as in `4 steps, sampler=ddim`."""
    chosen = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return {_name(values): replace(settings, **values) for values in chosen}


def _name(values: Mapping[str, Any]) -> str:
    return ", ".join(count_steps(value) if key == "steps" else f"{key}={value}" for key, value in values.items())
