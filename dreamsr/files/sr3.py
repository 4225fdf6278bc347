"""Published SR3 and DREAM checkpoints: the one place that opens a pickled file, and that for tensors alone.

The layout is that of `I..._gen.pth` as github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement and
github.com/jinxinzhou/DREAM write it: the network below `denoise_fn.`, and the noise schedule beside it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamsr.config import ModelConfig
from dreamsr.core.process import Process
from dreamsr.errors import CheckpointError
from dreamsr.files import checkpoint
from dreamsr.files.checkpoint import Model
from dreamsr.tables import apply_overrides, from_dict, load_toml

BETAS = "betas"
SCHEDULE = {
    BETAS,
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
}
"""Buffers of the file; all but the betas follow from them."""
RENAMED = {
    "embed.0.": "noise_level_mlp.1.",
    "embed.2.": "noise_level_mlp.3.",
    ".norm1.": ".res_block.block1.block.0.",
    ".conv1.": ".res_block.block1.block.3.",
    ".level.": ".res_block.noise_func.noise_func.0.",
    ".norm2.": ".res_block.block2.block.0.",
    ".conv2.": ".res_block.block2.block.3.",
    ".skip.": ".res_block.res_conv.",
    ".attention.": ".attn.",
    "leave.0.": "final_conv.block.0.",
    "leave.2.": "final_conv.block.3.",
}
"""Parts of our names and of the published ones."""


def load_published(path: Path, overrides: Sequence[str] = ()) -> Model:
    """The model of a published file: the preset sr3-face with `key=value` changes, and the noise schedule of the file.

    Raises CheckpointError where the file is no such checkpoint, or of another network than the configuration says.
    """
    preset = load_toml((resources.files("dreamsr") / "presets" / "sr3-face.toml").read_bytes(), "sr3-face")["model"]
    config = from_dict(ModelConfig, apply_overrides(ModelConfig, {"name": "sr3-face", **preset}, overrides))
    content = _read(path)
    with torch.device("meta"):
        names = {name: published(name) for name in checkpoint.build(config).state_dict()}
    _check_names([*names.values(), BETAS], content, path)
    weights = {ours: content[theirs] for ours, theirs in names.items()}
    network = checkpoint.with_weights(config, weights, path)
    process = replace(config.process, **_linear(content[BETAS], path))
    sampling = replace(config.sampling, lambda_start=Process(process).span[0])
    return Model(replace(config, process=process, sampling=sampling), network.eval(), {"converted_from": path.name})


def published(name: str) -> str:
    """The published name of a weight of SR3UNet."""
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    return f"denoise_fn.{name}"


def _read(path: Path) -> dict[str, Tensor]:
    hint = "give the published file that ends in _gen.pth"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception:  # what a damaged or hostile pickle comes to is not foreseeable
        raise CheckpointError(f"{path} is no file of torch, or holds code that would have to run", hint) from None
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path} is no table of weights; it holds {found[:80]}", hint)
    return dict(content)


def _check_names(needed: Collection[str], found: Collection[str], path: Path) -> None:
    missing = [name for name in needed if name not in found]
    unexpected = [name for name in found if name not in needed and name not in SCHEDULE]
    lists = {"missing": missing, "unexpected": unexpected}
    words = [f"{len(names)} {kind}, the first {names[0]!r}" for kind, names in lists.items() if names]
    if words:
        hint = "a network of other sizes? add network.channels=, .multipliers=, .blocks=, .attention=, .size="
        raise CheckpointError(f"{path} has not the weights of this network: {'; '.join(words)}", hint)


def _linear(betas: Tensor, path: Path) -> dict[str, Any]:
    """Entries of ProcessConfig for a table of betas."""
    if betas.ndim != 1 or len(betas) == 0:
        raise CheckpointError(f"{path} has betas of shape {tuple(betas.shape)}, expected a table")
    # float32, of which six digits are meant
    start, end = (float(f"{float(beta):.6g}") for beta in (betas[0], betas[-1]))
    if not torch.allclose(betas.double(), torch.linspace(start, end, len(betas), dtype=torch.float64), 1e-4, 0):
        raise CheckpointError(f"{path} has betas that are not linear, which dreamsr does not know")
    return {"table": len(betas), "beta_start": start, "beta_end": end}
