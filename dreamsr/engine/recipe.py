"""The configuration of a new training run: a preset or file, what the model started from hands on, and changes."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from dreamsr.config import ModelConfig, NetworkConfig, SR3Config, TrainConfig
from dreamsr.errors import UsageError
from dreamsr.tables import apply_overrides, from_dict, load_toml, merge, to_dict

DEFAULT = "bicubic-x4"
CONTINUING = ("fine-tune", "many-scales", "texture")
"""Presets that go on with a trained model."""


def make(
    preset: str | None, overrides: Sequence[str], start: ModelConfig | None, pairs: bool, name: str
) -> TrainConfig:
    """What the model started from hands on, a preset or file over it, overrides ("key=value") over both.

    pairs: inputs are given, not made, and have one scale and size. name: of the model, where none of them gives it
    one. Raises UsageError for an unknown preset, and for a network that cannot begin with the weights of `start`.
    """
    begun = {} if start is None else to_dict(start.with_tuned())  # grids belong to its weights
    document = load_toml(_preset(preset or DEFAULT), preset or DEFAULT)
    document = merge({"model": {**begun, "name": name}}, document)
    if pairs:
        document = merge(document, {"shrink": 1, "model": {"degradation": "pairs", "smallest_scale": None}})
    config = from_dict(TrainConfig, apply_overrides(TrainConfig, document, overrides))
    if start is not None and not _grows(start.network, config.model.network):
        raise UsageError(
            "--init needs the network of the model that it starts from, or one with more encoder_blocks",
            "leave model.network out",
        )
    return config


def shared(config: TrainConfig, processes: int) -> TrainConfig:
    """The recipe with at least one micro-batch for every process."""
    return replace(config, micro_batches=max(config.micro_batches, processes))


def _grows(start: NetworkConfig | SR3Config, network: NetworkConfig | SR3Config) -> bool:
    """Whether a network can begin as one that has its weights: with more blocks in the encoder, told the scale, too."""
    if isinstance(start, NetworkConfig) and isinstance(network, NetworkConfig):
        blocks = max(start.encoder_blocks, network.encoder_blocks)
        told = start.scale_embedding or network.scale_embedding
        start = replace(start, encoder_blocks=blocks, scale_embedding=told)
    return start == network


def _preset(name: str) -> bytes:
    presets = resources.files("dreamsr") / "presets"
    known = sorted(entry.name.removesuffix(".toml") for entry in presets.iterdir() if entry.name.endswith(".toml"))
    if name in known:
        return (presets / f"{name}.toml").read_bytes()
    if not Path(name).is_file():
        raise UsageError(f"there is no preset and no file {name!r}", f"presets: {', '.join(known)}")
    return Path(name).read_bytes()
