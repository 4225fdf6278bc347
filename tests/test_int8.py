"""Convolutions of whole numbers."""

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch
from conftest import photo
from programs import Program
from torch import nn
from torch.nn import functional as F

from dreamsr.cli import setup
from dreamsr.config import ModelConfig, NetworkConfig
from dreamsr.core import int8
from dreamsr.core.int8 import Int8Conv2d
from dreamsr.data.degrade import degrade
from dreamsr.engine import estimate
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, hub, images
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture

pytestmark = pytest.mark.skipif(not int8.available(), reason="this build of torch has no convolutions in 8 bits")
CONVOLUTIONS = {
    "3x3": nn.Conv2d(64, 80, 3, padding=1).requires_grad_(False),
    "strided": nn.Conv2d(64, 96, 2, stride=2).requires_grad_(False),
    "1x1 without bias": nn.Conv2d(96, 64, 1, bias=False).requires_grad_(False),
}


def whole_numbers(conv: nn.Conv2d, low: int, high: int) -> tuple[nn.Conv2d, torch.Tensor]:
    """A convolution and an input whose values lie on the grids that both are rounded to."""
    generator = torch.Generator().manual_seed(0)
    limit = int8.largest_weight()
    weight = torch.randint(-limit, limit + 1, conv.weight.shape, generator=generator).float()
    weight[:, 0, 0, 0] = limit
    x = torch.randint(low, high + 1, (1, conv.in_channels, 12, 14), generator=generator).float()
    x[0, 0, 0, :2] = torch.tensor([low, high]).float()
    same = copy.deepcopy(conv)
    same.load_state_dict(same.state_dict() | {"weight": weight})
    return same, x


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-255, 0), (-28, 227), (-128, 127)])
def test_whole_numbers_are_exact(name: str, low: int, high: int) -> None:
    """Also where every product is the largest there is: nothing saturates."""
    conv, x = whole_numbers(CONVOLUTIONS[name], low, high)
    torch.testing.assert_close(Int8Conv2d(conv)(x), conv(x), rtol=1e-6, atol=0.5)
    conv.weight.fill_(int8.largest_weight())
    x = torch.where(x > 0, high, low).float()
    torch.testing.assert_close(Int8Conv2d(conv)(x), conv(x), rtol=1e-6, atol=0.5)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_it_errs_by_less_than_the_steps_of_both_grids(name: str) -> None:
    conv = CONVOLUTIONS[name]
    x = 3 * torch.randn(1, conv.in_channels, 10, 9, generator=torch.Generator().manual_seed(1)) + 1
    x = x.contiguous(memory_format=torch.channels_last)
    step_x = (x.max() - x.min()) / 255
    step_w = conv.weight.abs().amax((1, 2, 3), keepdim=True) / int8.largest_weight()
    # |xw - x'w'| <= |x - x'| |w| + |x'| |w - w'|; the grid of x begins up to a step beside its smallest value
    half_w = (step_w / 2).expand_as(conv.weight)
    bound = F.conv2d(step_x * torch.ones_like(x), conv.weight.abs(), None, conv.stride, conv.padding)
    bound += F.conv2d(x.abs() + step_x, half_w, None, conv.stride, conv.padding)
    error = (Int8Conv2d(conv)(x) - conv(x)).abs()
    assert 0 < float((error / bound).max()) < 1
    assert float((error / bound).mean()) < 0.05  # of hundreds of independent errors most cancel


def test_constants_and_company() -> None:
    conv = Int8Conv2d(CONVOLUTIONS["3x3"])
    bias = CONVOLUTIONS["3x3"].bias
    assert bias is not None
    zeros = torch.zeros(1, 64, 5, 6)
    torch.testing.assert_close(conv(zeros)[0, :, 2, 2], bias)
    x = (
        torch.randn(3, 64, 5, 6, generator=torch.Generator().manual_seed(2))
        * torch.tensor([1, 10, 0.1])[:, None, None, None]
    )
    together = conv(x)
    for i in range(3):
        assert torch.equal(together[i : i + 1], conv(x[i : i + 1]))
    torch.testing.assert_close(conv(x[:1] * 1e-38)[0, :, 2, 2], bias)
    for broken in (torch.inf, -torch.inf, torch.nan):
        x[1, 5, 2, 2] = broken
        assert conv(x).isnan().flatten(1).all(1).tolist() == [False, True, False]
        assert torch.equal(conv(x)[::2], together[::2])


def test_first_and_last_layers_are_kept_however_wide() -> None:
    config = ModelConfig(network=NetworkConfig(patch=8, widths=(96, 160), blocks=1, encoder_blocks=1))
    small = int8.quantized(checkpoint.build(config))
    kept = {name for name, module in small.named_modules() if isinstance(module, nn.Conv2d)}
    assert kept == {"enter", "enter_anchor", "leave"}


def test_what_is_replaced() -> None:
    model = checkpoint.load_model(hub.resolve("photo-x4"))
    small = model.to("cpu", torch.int8)
    assert (model.dtype, small.dtype) == (torch.float32, torch.int8)
    kept = {name for name, module in small.network.named_modules() if isinstance(module, nn.Conv2d)}
    assert kept == {"enter", "enter_anchor", "leave"}
    assert sum(isinstance(module, Int8Conv2d) for module in small.network.modules()) == 2 * 6 + 2 * 10 + 2 + 2
    assert not int8.is_quantized(model.network)  # a copy was


def test_narrow_networks_have_none(tiny_model: Model) -> None:
    with pytest.raises(UsageError, match="tiny has no layers wide enough for int8"):
        tiny_model.to("cpu", torch.int8)


@pytest.mark.parametrize("prediction", ["x0", "v", "flow"])
def test_what_is_near_the_picture_is_not_refused(prediction: Literal["x0", "v", "flow"]) -> None:
    config = ModelConfig(prediction=prediction, network=NetworkConfig(widths=(64,), blocks=1))
    assert Model(config, checkpoint.build(config), {}).to("cpu", torch.int8).dtype == torch.int8


def test_what_predicts_noise_is_refused(program: Program, tmp_path: Path) -> None:
    """However wide: u_0 = (u - sigma eps) / alpha, and alpha is small where sampling starts."""
    config = ModelConfig("noisy", prediction="eps", network=NetworkConfig(widths=(64, 96), blocks=1))
    noisy = Model(config, checkpoint.build(config), {})
    checkpoint.save_model(tmp_path / "noisy.safetensors", noisy, torch.float32)
    images.write(tmp_path / "a.png", Picture(photo("chelsea")[:, 60:84, 80:108]))
    command = ("upscale", "a.png", "b.png", "-m", "noisy.safetensors", "--steps", 1, "--device", "cpu")
    code, out, err = program(*command, "--dtype", "int8")
    assert (code, out) == (2, "")
    assert "error: noisy predicts noise, and what int8 rounds would be magnified in the picture" in err
    assert "use --dtype fp32" in err
    assert not (tmp_path / "b.png").exists()
    assert program(*command, "--dtype", "fp32")[0] == 0


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ["bicubic-x4", "photo-x4"])
def test_pictures_are_those_of_fp32_within_few_levels(name: str, steps: int) -> None:
    hr = photo("chelsea")[:, 60:252, 80:272]
    lr = degrade(hr[None], 4)[0]
    model = checkpoint.load_model(hub.resolve(name))
    exact, rough = (Upscaler(model.to("cpu", t), Settings(steps=steps))([lr])[0] for t in (torch.float32, torch.int8))
    levels = (exact - rough).abs() * 127.5
    assert 0.05 < float(levels.square().mean().sqrt()) < 1.5
    assert float(levels.max()) < 16


@pytest.mark.parametrize(
    ("vnni", "dtype", "chosen", "megapixels", "said"),
    [
        (True, torch.float32, "auto", 30, True),
        (True, torch.float32, "auto", 20, False),
        (True, torch.float32, "fp32", 30, False),
        (True, torch.bfloat16, "auto", 30, False),
        (True, torch.int8, "int8", 30, False),
        (False, torch.float32, "auto", 30, False),
    ],
)
def test_long_jobs_in_fp32_are_told(
    *, vnni: bool, dtype: torch.dtype, chosen: str, megapixels: float, said: bool, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    upscaler = Upscaler(checkpoint.load_model(hub.resolve("photo-x4")).to("cpu", dtype), Settings(steps=4))
    setup.advise(upscaler, chosen, megapixels)
    assert ("--dtype int8" in capfd.readouterr().err) == said


def test_nobody_is_told_of_what_would_be_refused(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    noisy = ModelConfig(prediction="eps", network=NetworkConfig(widths=(64,), blocks=1))
    for model in (tiny_model, Model(noisy, checkpoint.build(noisy), {})):
        assert not estimate.int8_pays(Upscaler(model, Settings(steps=4)), 1e6)


def test_the_program(program: Program, tmp_path: Path) -> None:
    images.write(tmp_path / "in" / "a.png", Picture(photo("chelsea")[:, 60:84, 80:108]))
    job = ("upscale", "in", "out", "--steps", 1, "--device", "cpu")
    code, _, err = program(*job, "--dtype", "int8", "--compile", "off")
    assert code == 0, err
    assert ", int8\n" in err
    first = (tmp_path / "out" / "a.png").read_bytes()
    assert "dtype: int8" in program("info", "out/a.png")[1]
    assert "1 skipped" in program(*job, "--dtype", "int8")[2]
    assert "1 made again: the settings changed" in program(*job, "--dtype", "fp32")[2]
    assert (tmp_path / "out" / "a.png").read_bytes() != first
    code, _, err = program("train", "--data", "in", "--out", "run", "--dtype", "int8")
    assert code == 2
    assert "training in int8" in err
