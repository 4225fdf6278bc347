"""Checkpoints: one .safetensors file holds the weights, and in its metadata what rebuilds the model."""

import copy
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dreamsr.config import ModelConfig, SR3Config
from dreamsr.core.convolution import prepared
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.int8 import is_quantized, quantized, suits
from dreamsr.core.networks import PatchUNet
from dreamsr.core.process import Process
from dreamsr.core.sr3 import SR3UNet
from dreamsr.errors import CheckpointError, ConfigError, UsageError
from dreamsr.files import foreign
from dreamsr.files.atomic import atomic, write
from dreamsr.tables import from_dict, to_dict

FORMAT = "dreamsr 1"
STATE_FORMAT = f"{FORMAT} training state"
NEWER = "if it was made by a newer version, update dreamsr"
UNet = PatchUNet | SR3UNet
N = TypeVar("N", bound=nn.Module)
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Model:
    """A network with what is needed to run it, and its card: who made it, of what, how good it is."""

    config: ModelConfig
    network: UNet
    card: dict[str, Any]
    exact: UNet | None = None
    """The network in float32, where `network` is in fp16, whose range it may leave."""

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in; int8 stands for 8 bits in its inner convolutions and float32 elsewhere."""
        return torch.int8 if is_quantized(self.network) else next(self.network.parameters()).dtype

    @property
    def denoiser(self) -> Denoiser:
        dtype = next(self.network.parameters()).dtype
        return Denoiser(self.network, Process(self.config.process), self.config.prediction, dtype, self.exact)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def trouble_with_int8(self) -> str | None:
        """Why 8 bits do not suit it; None if they do."""
        if self.config.prediction == "eps":
            return "predicts noise, and what int8 rounds would be magnified in the picture"
        return None if suits(self.network) else "has no layers wide enough for int8"

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Model":
        """A copy for inference with the network on `device` in `dtype`; int8 is for CPUs.

        Raises UsageError for a model that int8 does not suit.
        """
        if dtype == torch.int8 and (trouble := self.trouble_with_int8):
            raise UsageError(f"{self.config.name} {trouble}", "use --dtype fp32")
        network = _for_inference(self.network, device, torch.float32 if dtype == torch.int8 else dtype)
        network = quantized(network) if dtype == torch.int8 else network
        # bf16 has the range of float32
        exact = _for_inference(self.network, device, torch.float32) if dtype == torch.float16 else None
        return replace(self, network=prepared(network), exact=exact and prepared(exact))


def build(config: ModelConfig) -> UNet:
    """A freshly initialised network, channels last."""
    network = config.network
    return _channels_last(SR3UNet(network) if isinstance(network, SR3Config) else PatchUNet(network))


def with_weights(config: ModelConfig, weights: Mapping[str, Tensor], path: Path) -> UNet:
    """A network in float32 with these weights, channels last; to initialise a large one would take many seconds.

    Raises CheckpointError, before memory is asked for, where they do not fit.
    """
    try:
        with torch.device("meta"):
            network = build(config)
    except RuntimeError as error:
        raise CheckpointError(f"{path} has no usable model configuration: {error}") from error
    _check_fit(network, weights, path)
    network.load_state_dict({name: value.to(torch.float32) for name, value in weights.items()}, assign=True)
    return _channels_last(network)


def save_model(path: Path, model: Model, dtype: torch.dtype) -> Model:
    """Write weights in `dtype`, config and card; the file is loaded and compared before it is put in place.

    Grids that were tuned for these weights go with them. Raises CheckpointError for weights that are not finite.
    """
    weights = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.network.state_dict().items()}
    _check_finite(model.network, weights, path)
    config = signed(_with_own_grids(model.config, model.network), weights)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(to_dict(config)),
        "card": json.dumps(model.card, default=str),
    }
    with atomic(path) as temporary:
        temporary.write_bytes(save(weights, metadata))
        loaded = load_model(temporary)
        for name, value in loaded.network.state_dict().items():
            if not torch.equal(value, weights[name].to(torch.float32)):
                raise CheckpointError(f"{path} does not read back as it was written ({name})")
    return loaded


def _check_finite(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    for name, value in weights.items():
        if bool(value.isfinite().all()):
            continue
        if bool(network.state_dict()[name].isfinite().all()):
            raise CheckpointError(f"{path}: {name!r} is too large for {value.dtype}", "export it with --dtype bf16")
        raise CheckpointError(f"{path}: {name!r} is not finite", "its training went astray: begin with a lower lr")


def load_model(path: Path) -> Model:
    """Rebuild a model in float32 on the CPU; raises CheckpointError for any other kind of file."""
    metadata, weights = read_tensors(path)
    document, card = _documents(metadata, weights, path)
    config = _configuration(document, path)
    network = with_weights(config, weights, path)
    return Model(_with_own_grids(config, network), network.eval(), card)


def reconfigure(path: Path, target: Path, config: ModelConfig) -> None:
    """Write the checkpoint `path` to `target`, which may be the same, with another configuration."""
    metadata, weights = read_tensors(path)
    write(target, save(weights, {**metadata, "config": json.dumps(to_dict(config))}))


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and float32 values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def _with_own_grids(config: ModelConfig, network: nn.Module) -> ModelConfig:
    """`config` without the grids that were tuned for other weights."""
    if not config.sampling.tuned:
        return config  # a digest takes time
    digest = weights_digest(network.state_dict())
    return config.with_tuned(grid for grid in config.sampling.tuned if grid.weights == digest)


def signed(config: ModelConfig, weights: Mapping[str, Tensor]) -> ModelConfig:
    """`config` with its tuned grids declared to be for `weights`: those they were tuned for, rounded otherwise."""
    if not config.sampling.tuned:
        return config
    digest = weights_digest(weights)
    return config.with_tuned(replace(grid, weights=digest) for grid in config.sampling.tuned)


def describe(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(configuration, card) of a checkpoint, without building its network; raises CheckpointError as `load_model`."""
    with _opened(path) as file:
        document, card = _documents(file.metadata() or {}, file.keys(), path)
    _configuration(document, path)
    return document, card


def _configuration(document: Mapping[str, Any], path: Path) -> ModelConfig:
    try:
        return from_dict(ModelConfig, document)
    except ConfigError as error:
        raise CheckpointError(f"{path} has no usable model configuration: {error}", NEWER) from error


def _documents(
    metadata: Mapping[str, str], names: Collection[str], path: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(configuration, card) from a file's metadata; `names` of its weights tell what else it is."""
    if metadata.get("format") != FORMAT:
        found, (what, hint) = metadata.get("format", "none"), foreign.kind(names)
        if found == STATE_FORMAT:
            raise CheckpointError(f"{path} is the training state of a run", f"give its folder: {path.parent}")
        raise CheckpointError(
            f"{path} is not a dreamsr checkpoint (its format is {found!r}, expected {FORMAT!r})"
            + (f", but {what}" if what else ""),
            NEWER if found.startswith("dreamsr ") else hint,
        )
    try:
        documents = [json.loads(metadata.get(key, "{}")) for key in ("config", "card")]
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has damaged metadata: {error}") from error
    if not all(isinstance(document, dict) for document in documents):
        raise CheckpointError(f"{path} has damaged metadata: its configuration and card must be JSON objects")
    return documents[0], documents[1]


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights by name, all of them; raises CheckpointError naming the first that does not fit."""
    _check_fit(network, weights, path)
    network.load_state_dict({name: value.to(torch.float32) for name, value in weights.items()})


def _check_fit(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    for missing in sorted(own.keys() - weights.keys()):
        raise CheckpointError(f"{path} lacks the weight {missing!r} of this network")
    for extra in sorted(weights.keys() - own.keys()):
        raise CheckpointError(f"{path} has a weight {extra!r} that this network does not have")
    for name, value in own.items():
        if weights[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: {name!r} has shape {tuple(weights[name].shape)}, the network needs {tuple(value.shape)}"
            )


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors) of a safetensors file."""
    with _opened(path) as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; raises CheckpointError where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, expected a .safetensors file") from None
    except PermissionError:
        raise CheckpointError(f"there is no permission to read {path}") from None
    except (SafetensorError, OSError) as error:
        raise _unopened(path, error) from None


def _unopened(path: Path, error: Exception) -> CheckpointError:
    """What a file is that is not in the format of safetensors, and what to do about it."""
    pickled, suffix = foreign.pickled_names(path), path.suffix.lower()
    what, hint = foreign.kind(pickled)
    if pickled or suffix in foreign.PICKLED:
        hint = f"pickled .pt, .pth and .ckpt files are never opened; {hint}"
    elif suffix == ".onnx":
        hint = "a graph is for other programs (docs/export.md); give the model that it was made of"
    elif suffix == ".safetensors":
        hint = "it is damaged or cut off; get or make it again"
    return CheckpointError(
        f"{path} is not a safetensors file" + (f", but {what}, pickled" if what else f" ({error})"), hint
    )


def save_state(path: Path, groups: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, str]) -> None:
    """Write named groups of tensors, as training needs them to go on."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    write(path, save(flat, {"format": STATE_FORMAT, **metadata}))


def load_state(path: Path) -> tuple[dict[str, str], dict[str, dict[str, Tensor]]]:
    """The inverse of `save_state`."""
    metadata, flat = read_tensors(path)
    if metadata.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path} is not a training state of this version")
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return metadata, groups


def _for_inference(network: N, device: torch.device | str, dtype: torch.dtype) -> N:
    """A copy that does not learn."""
    return _channels_last(copy.deepcopy(network).requires_grad_(False).eval().to(device, dtype))


def _channels_last(network: N) -> N:
    # torch's type stubs do not know this argument of Module.to
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
