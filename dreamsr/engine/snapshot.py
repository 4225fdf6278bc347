"""A training state as a file: weights, average, what the optimizers remember, step and time."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dreamsr.engine.optimize import State
from dreamsr.files import checkpoint
from dreamsr.files.checkpoint import Model


def save(path: Path, state: State, seconds: float) -> None:
    """Write the state, and the seconds that it took to get there."""
    weights = {"network": state.network.state_dict(), "ema": state.ema.state_dict()}
    checkpoint.save_state(path, {**weights, **_moments(state)}, {"step": str(state.step), "seconds": str(seconds)})


def restore(path: Path, state: State) -> float:
    """Bring a fresh state to where a saved one was; returns its seconds."""
    metadata, groups = checkpoint.load_state(path)
    checkpoint.load_weights(state.network, groups.pop("network"), path)
    checkpoint.load_weights(state.ema, groups.pop("ema"), path)
    state.step = int(metadata["step"])
    names = _names(state)
    for optimizer in state.optimizers:
        for parameter in optimizer.param_groups[0]["params"]:
            name = names[parameter]
            # copied into the parameter's own memory format, which the fused optimizer relies on
            own = {k: torch.empty_like(parameter).copy_(v[name]) for k, v in groups.items() if name in v}
            if isinstance(optimizer, torch.optim.AdamW):
                own["step"] = torch.tensor(float(state.step), device=parameter.device)
            optimizer.state[parameter] = own
    return float(metadata["seconds"])


def average(path: Path, model: Model) -> Model:
    """The model with the averaged weights of a saved state, in full precision."""
    _, groups = checkpoint.load_state(path)
    checkpoint.load_weights(model.network, groups["ema"], path)
    return replace(model, config=checkpoint.signed(model.config, groups["ema"]))


def _moments(state: State) -> dict[str, dict[str, Tensor]]:
    """What the optimizers remember of the weights, by kind and name."""
    names = _names(state)
    moments: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for optimizer in state.optimizers:
        for parameter, values in optimizer.state.items():
            for key in values.keys() - {"step"}:
                moments[key][names[parameter]] = values[key]
    return moments


def _names(state: State) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in state.network.named_parameters()}
