"""What only a CUDA device can show: run with `pytest -m gpu`."""

import pytest
import torch
from conftest import photo

from dreamsr.core.noise import normal
from dreamsr.data.degrade import degrade
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub

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
