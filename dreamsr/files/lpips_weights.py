"""LPIPS weights, which are not part of dreamsr: found, downloaded, checked and read."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor

from dreamsr.errors import CheckpointError, UsageError
from dreamsr.files.atomic import make_folder
from dreamsr.files.checkpoint import read_tensors
from dreamsr.files.hub import cache_folder
from dreamsr.files.manifest import file_digest

VARIABLE = "DREAMSR_LPIPS_WEIGHTS"
HOW_TO_GET = "--lpips-weights download fetches them, --lpips-weights PATH names a file or folder"


@dataclass(frozen=True)
class Original:
    """A file as its authors publish it."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return Path(urlparse(self.url).path).name


_TORCHVISION = "https://download.pytorch.org/models"
_HEADS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
ORIGINALS = {
    "alex": (
        Original(
            f"{_TORCHVISION}/alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ),
        Original(f"{_HEADS}/alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    ),
    "squeeze": (
        Original(
            f"{_TORCHVISION}/squeezenet1_1-b8a52dc0.pth",
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        ),
        Original(f"{_HEADS}/squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"),
    ),
}
"""Backbone and heads of a network."""
_MARKS = {"alex": "backbone.features.8.weight", "squeeze": "backbone.features.12.squeeze.weight"}
"""A weight that no other network has."""


def load(network: str, given: Path | None = None) -> dict[str, Tensor] | None:
    """Weights of `network` (alex, squeeze) from the first place that has them; None if there is none.

    Places: `given`, what $DREAMSR_LPIPS_WEIGHTS names, the cache. A place is a .safetensors file, or a folder with
    lpips-NETWORK.safetensors or the original .pth files. Raises CheckpointError for files that are something else.
    """
    for place in _places(given):
        if (weights := _from_folder(place, network) if place.is_dir() else _from_file(place, network)) is not None:
            return weights
    return None


def download() -> Path:
    """Put the original files into the cache; returns its folder. Raises CheckpointError when that fails."""
    folder = cache_folder()
    make_folder(folder)
    for original in (file for pair in ORIGINALS.values() for file in pair):
        if (path := folder / original.name).is_file():
            continue
        try:
            torch.hub.download_url_to_file(original.url, str(path), hash_prefix=original.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{original.url} cannot be downloaded: {error}", f"put the file into {folder} yourself, or try again"
            ) from error
    return folder


def _places(given: Path | None) -> list[Path]:
    named = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    wanted = [given] if given else named
    for place in wanted:
        if not place.exists():
            raise UsageError(f"there is no file {place}", HOW_TO_GET)
    return [*wanted, cache_folder()]


def _from_file(path: Path, network: str) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    weights = read_tensors(path)[1]
    if not any(mark in weights for mark in _MARKS.values()):
        raise CheckpointError(f"{path} holds no LPIPS weights: {_MARKS[network]!r} is missing")
    return weights if _MARKS[network] in weights else None


def _from_folder(folder: Path, network: str) -> dict[str, Tensor] | None:
    if (converted := folder / f"lpips-{network}.safetensors").is_file():
        return _from_file(converted, network)
    backbone, heads = ORIGINALS[network]
    if not all((folder / original.name).is_file() for original in (backbone, heads)):
        return None
    features = {
        f"backbone.{key}": value for key, value in _read(folder, backbone).items() if key.startswith("features")
    }
    lin = {f"lin.{key.partition('.')[0]}": value for key, value in _read(folder, heads).items()}
    return features | lin


def _read(folder: Path, original: Original) -> dict[str, Tensor]:
    path = folder / original.name
    if (found := file_digest(path)) != original.sha256:
        raise CheckpointError(
            f"{path} is not the original file: its SHA-256 is {found[:8]}..., expected {original.sha256[:8]}...",
            f"delete it and get it again from {original.url}",
        )
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
