"""Combinations of settings, as `steps=1,4 sampler=ddim,ddpm` names them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from dreamsr.engine.schedule import AUTO, GRIDS, Settings
from dreamsr.errors import UsageError
from dreamsr.tables import parse_field
from dreamsr.words import counted

_GRIDS = (AUTO, *GRIDS)


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
        axes[key] = [parse_field(Settings, key, value) for value in _split(key, values)]
    return axes


def variants(settings: Settings, steps: Sequence[int] | None, texts: Sequence[str]) -> dict[str, Settings]:
    """Settings by name: every combination of what is swept; `steps` (default: 1 and 4) is short for a sweep of them."""
    axes = parse(texts)
    if "steps" in axes and steps:
        raise UsageError("steps are given by --steps and by --sweep", "leave one out")
    levels = any(grid not in _GRIDS for grid in axes.get("grid", ()))  # which say how many steps there are
    if "steps" not in axes and (steps or not levels):
        axes = {"steps": list(steps or (1, 4)), **axes}
    return combinations(settings, axes)


def _split(key: str, values: str) -> list[str]:
    """The values of a key: of `grid` names, or the levels of a single one."""
    parts = values.split(",")
    if key != "grid" or set(parts) <= set(_GRIDS):
        return parts
    if set(parts) & set(_GRIDS):
        raise UsageError(f"grid={values} mixes names and levels", "sweep names, or the levels of one grid")
    return [values]


def combinations(settings: Settings, axes: Mapping[str, Sequence[Any]]) -> dict[str, Settings]:
    """`settings` with every combination of the values, by its name, as in `4 steps, sampler=ddim`."""
    chosen = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return {_name(values): replace(settings, **values) for values in chosen}


def _name(values: Mapping[str, Any]) -> str:
    return ", ".join(counted(value, "step") if key == "steps" else f"{key}={value}" for key, value in values.items())
