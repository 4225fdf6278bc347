"""What only a CUDA device can show: run with `pytest -m gpu`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from conftest import TINY, photo

from dreamsr.config import TrainConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.noise import normal
from dreamsr.core.process import Process
from dreamsr.data.dataset import Photos
from dreamsr.data.degrade import degrade
from dreamsr.engine import optimize
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub, images

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def test_noise_is_the_same_on_every_device() -> None:
    on_gpu = normal((3, 0, 0), (300, 300), (-5, 7), device="cuda").cpu()
    torch.testing.assert_close(on_gpu, normal((3, 0, 0), (300, 300), (-5, 7)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_pictures_are_the_same_within_a_level(steps: int) -> None:
    model = checkpoint.load_model(hub.resolve("bicubic-x4"))
    lr = degrade(photo("chelsea")[None, :, :200, :200], 4)[0]
    here, there = (Upscaler(model.to(d), Settings(steps=steps))([lr])[0].cpu() for d in ("cpu", "cuda"))
    assert float((here - there).abs().max()) <= 2 / 255


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    """An operation that makes the host wait for the GPU is an error inside."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_waiting_is_noticed() -> None:
    with waiting_forbidden(), pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(1, device="cuda").item()


@pytest.mark.parametrize("changes", [{}, {"energy": 1.0}, {"optimizer": "muon"}])
@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_a_training_step_never_waits_for_the_gpu(
    degradation: Literal["bicubic", "photo"], changes: dict[str, Any]
) -> None:
    gpu = torch.device("cuda")
    pixels = images.to_bytes(photo("chelsea")[:, :200, :200]).permute(1, 2, 0).contiguous()
    photos = Photos(pixels.flatten(), torch.tensor([[0]]), torch.tensor([[[200, 200]]])).to(gpu)
    config = TrainConfig(model=replace(TINY, degradation=degradation), batch=4, crop=64, **changes)
    state = optimize.new_state(config, gpu)
    denoiser = Denoiser(state.network, Process(TINY.process), TINY.prediction)

    def step() -> None:
        optimize.optimizer_step(config, state, denoiser, photos, gpu, torch.bfloat16)

    step()  # libraries wait when they begin
    with waiting_forbidden():
        step()
