"""Shared fixtures: tiny models, free photos, and the data that only the project's own machines have."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

# what the terminal or the user has set must not change what the program prints
for _name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the tests at work beside this one have the other cores
os.environ.update(HF_HUB_OFFLINE="1", NO_COLOR="1", COLUMNS="200", _TYPER_FORCE_DISABLE_TERMINAL="1")

import pytest
import skimage.data
import torch
from programs import Program
from torch import Tensor, nn

from dreamsr.config import ModelConfig, NetworkConfig
from dreamsr.files import checkpoint, images, limits
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture

N = TypeVar("N", bound=nn.Module)
SHARED = Path(__file__).resolve().parents[2] / "shared"
limits.lift()
NETWORK = NetworkConfig(widths=(8, 16), blocks=1, encoder_blocks=1)
TINY = ModelConfig(name="tiny", network=NETWORK)


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DREAMSR_LPIPS_WEIGHTS", raising=False)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def randomise(network: N, std: float = 0.15) -> N:
    """Give every weight a value, the zero-initialised ones too, which otherwise hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return network


@pytest.fixture
def tiny_model() -> Model:
    return Model(TINY, randomise(checkpoint.build(TINY)).eval(), {"licence": "none"}).to("cpu")


@pytest.fixture
def tiny_file(tiny_model: Model, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    checkpoint.save_model(path, tiny_model, torch.float32)
    return path


def photo(name: str) -> Tensor:
    """A free photo of scikit-image as (3, H, W) in [-1, 1]."""
    data = torch.from_numpy(getattr(skimage.data, name)().copy())
    return images.to_unit(data.permute(2, 0, 1))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Program:
    monkeypatch.chdir(tmp_path)
    return Program(monkeypatch, capfd)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four small real photos as PNG."""
    folder = tmp_path / "photos"
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        images.write(folder / f"{name}.png", Picture(photo(name)[:, 100:196, 120:216]))
    return folder


@pytest.fixture
def shared_metrics() -> Path:
    folder = SHARED / "metrics"
    if not folder.is_dir():
        pytest.skip("the LPIPS weights and reference pictures are not part of the repository")
    return folder
