"""Where tensors lie, on a device that is not the host and cannot be waited for.

Tensors of torch's meta device have shapes and no values: to ask for a value is an error, as it costs time on a GPU, and
so are element-wise operations with tensors of the host, as they are there. Matrix products and indexing are not: they,
and all values, are for `test_gpu.py`.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import pytest
import torch
from conftest import TINY, photo
from torch import Tensor

from dreamsr.config import TrainConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.process import Process
from dreamsr.data import dataset, degrade
from dreamsr.data.dataset import Photos
from dreamsr.engine import optimize
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import images
from dreamsr.files.checkpoint import Model

META = torch.device("meta")


@pytest.mark.parametrize("asked", [lambda x: x.item(), lambda x: x + torch.ones(2), lambda x: x.cpu()])
def test_the_device_forbids_what_it_is_to_forbid(asked: Any) -> None:
    with pytest.raises(RuntimeError, match="meta"):
        asked(torch.ones(2, device=META)[:1])


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(steps=1),
        Settings(steps=3, fidelity=0.5),
        Settings(steps=4, sampler="dpmpp-3m"),
        Settings(steps=4, sampler="unipc"),
        Settings(steps=3, sampler="ddpm", samples=2),
        Settings(steps=2, consistency=1.0),
    ],
)
def test_pictures_stay_on_the_device(tiny_model: Model, settings: Settings) -> None:
    upscaler = Upscaler(tiny_model.to(META, torch.bfloat16), settings)
    assert upscaler.tiling.static
    made = upscaler.enlarge([torch.zeros(3, 40, 50), torch.zeros(3, 150, 160)], [(160, 200), (450, 480)])
    assert [(x.color.device, x.color.shape) for x in made] == [(META, (3, 160, 200)), (META, (3, 450, 480))]
    assert {x.deviation is not None and x.deviation.device == META for x in made} == {settings.samples > 1}


@pytest.fixture
def trains_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch knows of devices with values alone: generators, fused optimizers and lower precision."""
    made = dataset.generator

    def generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator | None:
        return None if torch.device(device) == META else made(seed, step)

    for module in (dataset, degrade):
        monkeypatch.setattr(module, "generator", generator)
    monkeypatch.setattr(torch.optim, "AdamW", partial(_unfused, torch.optim.AdamW))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def _unfused(kind: type[torch.optim.Optimizer], *values: Any, fused: bool, **others: Any) -> torch.optim.Optimizer:
    assert fused
    return kind(*values, **others)


@pytest.mark.usefixtures("trains_on_meta")
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dream_p": "off"},
        {"optimizer": "muon"},
        {"energy": 1.0},
        {"loss": "l1", "snr_cap": 5.0},
        {"micro_batches": 2},
    ],
)
def test_training_does_not_wait_and_stays_on_the_device(
    *, changes: dict[str, Any], degradation: Literal["bicubic", "photo"], resident: bool
) -> None:
    pixels = images.to_bytes(photo("chelsea")[:, :100, :100]).permute(1, 2, 0).contiguous()
    photos = Photos(pixels.flatten(), torch.tensor([[0]]), torch.tensor([[[100, 100]]]))
    model = replace(TINY, degradation=degradation, smallest_scale=2.0)
    config = TrainConfig(model=model, batch=4, crop=64, **changes)
    state = optimize.new_state(config, META)
    denoiser = Denoiser(state.network, Process(model.process), model.prediction)
    place = photos.to(META) if resident else photos
    results: list[Tensor] = []
    for _ in range(2):
        results += optimize.optimizer_step(config, state, denoiser, place, META, torch.bfloat16)
    assert {result.device for result in results} == {META}
    assert {p.device for p in state.ema.parameters()} == {META}
