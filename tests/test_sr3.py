"""SR3UNet: the published network, its training, its tiles, and the conversion of published files."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import randomise
from programs import Program, load, small
from torch import Tensor, nn

from dreamsr.config import ModelConfig, ProcessConfig, SamplingConfig, SR3Config, TrainConfig
from dreamsr.core import dream, sampling
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.process import Process
from dreamsr.core.sr3 import SR3UNet
from dreamsr.engine import optimize, runs, trainer
from dreamsr.engine.compilation import compiled
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import CheckpointError, UsageError
from dreamsr.files import checkpoint, sr3
from dreamsr.files.checkpoint import Model

DATA = Path(__file__).parent / "data"
PUBLISHED = DATA / "sr3_tiny_gen.pth"
KEYS = [
    "network.channels=4",
    "network.groups=2",
    "network.multipliers=[1, 2]",
    "network.attention=[8]",
    "network.blocks=1",
    "network.size=16",
]
NETWORK = SR3Config(channels=4, multipliers=(1, 2), blocks=1, attention=(8,), groups=2, size=16)
SR3 = ProcessConfig("linear", 2000, 1e-6, 1e-2, anchored=False, k=1.0)
TINY = ModelConfig(
    "tiny-sr3", 2, "bicubic", "eps", NETWORK, SR3, SamplingConfig(lambda_start=-4, lambda_end=3, steps=3)
)
CONFIG = TrainConfig(TINY, steps=6, batch=2, crop=16, loss="l1", warmup=0, val_every=3, save_every=100)
CPU = torch.device("cpu")
SCALE = torch.tensor([4.0])


def tiny() -> Model:
    return Model(TINY, randomise(checkpoint.build(TINY), 0.3), {}).to("cpu")


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = SR3UNet(SR3Config())
    assert sum(p.numel() for p in network.parameters()) == 97_807_491


def test_the_published_output() -> None:
    _, vector = checkpoint.read_tensors(DATA / "sr3_tiny_vector.safetensors")
    model = sr3.load_published(PUBLISHED, KEYS)
    condition, u = vector["input"].chunk(2, dim=1)
    angle = 2 / math.pi * torch.acos(vector["sqrt_alpha_bar"])
    with torch.no_grad():
        out = model.network(u, angle, model.network.encode(condition, SCALE))
    assert float(vector["output"].std()) > 0.1
    torch.testing.assert_close(out, vector["output"], rtol=0, atol=1e-5)


def test_it_is_told_the_square_root_of_alpha_bar() -> None:
    """By the denoiser, at every row of the published table; the first rows differ from 1 by less than float32 knows."""
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
            return anchor

        def forward(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
            seen.append(torch.cos(math.pi / 2 * angle))
            return u

    denoiser = Denoiser(Spy(), Process(SR3), "eps")
    x = torch.zeros(1, 3, 1, 1)
    rows = denoiser.process.levels(2000, "time")
    for t in (1, 20, 100, 500, 1000, 2000):
        denoiser(x, rows[2000 - t], denoiser.condition(x, SCALE))
    abar = torch.cumprod(1 - torch.linspace(1e-6, 1e-2, 2000, dtype=torch.float64), 0)
    expected = abar[torch.tensor([0, 19, 99, 499, 999, 1999])].sqrt()
    torch.testing.assert_close(torch.cat(seen).double(), expected, rtol=0, atol=2e-7)


def test_the_published_sampler_is_ddpm_on_the_grid_of_time() -> None:
    """Coefficients of the posterior mean and its variance, as Ho et al. give them for a table of betas."""
    betas = torch.linspace(1e-6, 1e-2, 2000, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, 0)
    rows = Process(SR3).levels(2000, "time")
    torch.testing.assert_close(rows[:-1, 0] ** 2, abar.flip(0), rtol=1e-9, atol=0)
    for t in (1, 10, 999, 1999):
        now, then = (tuple(rows[1999 - i].tolist()) for i in (t, t - 1))
        variance = betas[t] * (1 - abar[t - 1]) / (1 - abar[t])
        v2 = sampling.ddpm_variance(cast(Any, now), cast(Any, then))
        assert v2 == pytest.approx(float(variance), rel=1e-7)
        u, u_0 = torch.tensor([0.7, 0.0], dtype=torch.float64), torch.tensor([0.0, -0.4], dtype=torch.float64)
        mean = betas[t] * abar[t - 1].sqrt() / (1 - abar[t]) * u_0
        mean += (1 - abar[t - 1]) * (1 - betas[t]).sqrt() / (1 - abar[t]) * u
        lam = math.log(now[0] / now[1])
        ours = sampling._step(u, cast(Any, now), cast(Any, then), [(lam, u_0)], sampling.SAMPLERS["ddpm"], v2)
        torch.testing.assert_close(ours, mean, rtol=1e-7, atol=1e-12)


def test_every_parameter_has_a_gradient() -> None:
    network = randomise(SR3UNet(NETWORK), 0.3)
    u, anchor = torch.randn(2, 2, 3, 16, 16)
    network(u, torch.tensor([0.2, 0.7]), anchor).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_fresh_weights_are_orthogonal() -> None:
    for layer in SR3UNet(NETWORK).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.detach().flatten(1)
            gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)
            assert layer.bias is None or not bool(layer.bias.any())


def test_dropout_acts_before_the_second_convolution_alone() -> None:
    network = SR3UNet(NETWORK).train()
    names = {name.split(".")[-1] for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert names == {"dropout"}
    seen: dict[str, Tensor] = {}
    block = cast(Any, network.mid[0])
    for name in ("conv1", "conv2"):
        getattr(block, name).register_forward_pre_hook(lambda _m, x, name=name: seen.update({name: x[0]}))
    network(torch.randn(1, 3, 16, 16), torch.tensor([0.5]), torch.randn(1, 3, 16, 16))
    assert not bool((seen["conv1"] == 0).any())
    assert float((seen["conv2"] == 0).float().mean()) == pytest.approx(0.2, abs=0.08)


def test_the_first_pass_of_dream_has_no_dropout() -> None:
    network = SR3UNet(NETWORK).train()
    flags = []
    dropout = cast(Any, network.mid[0]).dropout
    dropout.register_forward_hook(lambda *_: flags.append((dropout.training, torch.is_grad_enabled())))
    denoiser = Denoiser(network, Process(SR3), "eps")
    x, eps = torch.randn(2, 2, 3, 16, 16)
    level = denoiser.process.draw(torch.tensor([0.3, 0.6]), torch.tensor([False, False]))
    dream.loss(denoiser, x, eps, level, denoiser.condition(x, SCALE), p=1.0, norm="l1")
    assert flags == [(False, False), (True, True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dropout_of_a_compiled_network_is_switched_off_too() -> None:
    network = SR3UNet(NETWORK).train()
    with dream.eval_mode(compiled(network, static=True)):
        assert not any(module.training for module in network.modules())
    assert all(module.training for module in network.modules())


def test_stop_and_resume_is_bitwise_the_whole_run(photos: Path, tmp_path: Path) -> None:
    """With dropout, DREAM and averages."""
    torch.set_num_threads(1)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    calls = iter([False, True])
    val = tmp_path / "val"  # what is held out is not trained on, so that it needs a folder of its own
    val.mkdir()
    held_out = min(photos.iterdir())
    held_out.rename(val / held_out.name)
    list(trainer.fit(runs.create(CONFIG, photos, val, straight), straight, CPU, torch.float32))
    list(trainer.fit(runs.create(CONFIG, photos, val, broken), broken, CPU, torch.float32, stop=lambda: next(calls)))
    torch.rand(7)  # the global generator is somewhere else when a run goes on
    list(trainer.fit(runs.reopen(broken), broken, CPU, torch.float32))
    (_, a), (_, b) = (checkpoint.load_state(out / runs.STATE) for out in (straight, broken))
    for group, tensors in a.items():
        for name, value in tensors.items():
            assert torch.equal(value, b[group][name]), (group, name)
    assert any(not torch.equal(a["ema"][name], value) for name, value in a["network"].items())


def test_dropout_differs_from_step_to_step(photos: Path, tmp_path: Path) -> None:
    run = runs.create(replace(CONFIG, steps=2, lr=1e-12), photos, None, tmp_path / "run")
    masks: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        dropout = nn.functional.dropout

        def watched(x: Tensor, *arguments: Any) -> Tensor:
            out: Tensor = dropout(x, *arguments)
            if arguments[1]:
                masks.append(out == 0)
            return out

        patch.setattr(nn.functional, "dropout", watched)
        before = torch.get_rng_state()
        list(trainer.fit(run, tmp_path / "run", CPU, torch.float32))
    half = len(masks) // 2
    assert half > 0
    assert not torch.equal(masks[0], masks[half])
    assert torch.equal(before, torch.get_rng_state())


def test_a_step_learns(photos: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=60, batch=4, lr=3e-3, dream_p="off", val_every=1000)
    run = runs.create(config, photos, None, tmp_path / "run")
    events = trainer.fit(run, tmp_path / "run", CPU, torch.float32)
    losses = [event.loss for event in events if isinstance(event, optimize.Progress)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (3, 30), (21, 17)])
def test_any_size(size: tuple[int, int]) -> None:
    seen: set[tuple[int, ...]] = set()
    model = tiny()
    model.network.register_forward_pre_hook(lambda _m, x: seen.add(tuple(x[0].shape)))
    (out,) = Upscaler(model)([torch.rand(3, *size) * 2 - 1])
    assert out.shape == (3, 2 * size[0], 2 * size[1])
    assert bool(out.isfinite().all())
    assert seen == {(1, 3, 16, 16)}


def test_company_and_order_do_not_matter() -> None:
    upscaler = Upscaler(tiny(), Settings(sampler="ddpm"))
    pictures = [torch.rand(3, h, w) * 2 - 1 for h, w in ((8, 8), (20, 11), (5, 40))]
    for a, b, x in zip(upscaler(pictures), reversed(upscaler(pictures[::-1])), pictures, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, upscaler([x])[0])


def test_the_tile_cannot_be_chosen() -> None:
    with pytest.raises(UsageError, match="--tile is 256; this network runs at 16 alone"):
        Upscaler(tiny(), Settings(tile=256))
    smaller = Upscaler(tiny(), Settings(batch=2)).smaller()
    assert smaller is not None
    assert smaller.smaller() is None


def convert(program: Program, source: Path, *more: str) -> tuple[int, str, str]:
    return program("export", source, "out.safetensors", *KEYS, "--from", "sr3", *more)


def test_a_published_file_is_converted(program: Program, tmp_path: Path) -> None:
    code, out, err = convert(program, PUBLISHED, "scale=2", "name=faces", "--dtype", "fp32")
    assert code == 0, err
    assert out.strip() == "out.safetensors"
    model = checkpoint.load_model(Path("out.safetensors"))
    process = model.config.process
    assert (process.table, process.beta_start, process.beta_end) == (20, 1e-6, 1e-2)
    assert (model.config.name, model.config.scale, model.config.prediction) == ("faces", 2, "eps")
    assert model.card == {"converted_from": PUBLISHED.name}
    original = torch.load(PUBLISHED, weights_only=True)
    weights = {name: original[sr3.published(name)] for name in model.network.state_dict()}
    assert all(torch.equal(weights[name], value) for name, value in model.network.state_dict().items())
    code, _, err = program("upscale", small(tmp_path / "cat.png"), "big.png", "-m", "out.safetensors", "--steps", 2)
    assert code == 0, err
    assert load("big.png").size == (60, 40)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('opened')",)


def without(key: str) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(PUBLISHED, weights_only=True)
    del content[key]
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (without("denoise_fn.downs.0.bias"), "1 missing, the first 'denoise_fn.downs.0.bias'"),
        (without("betas"), "1 missing, the first 'betas'"),
        ({**without("betas"), "ema": torch.zeros(1)}, "the first 'betas'; 1 unexpected, the first 'ema'"),
        ({**without("betas"), "betas": torch.tensor([1e-6, 1e-3, 1e-2])}, "betas that are not linear"),
        ({**without("betas"), "betas": torch.tensor(1.0)}, "betas of shape ()"),
        ({"params_ema": {"conv_first.weight": torch.zeros(1)}}, "is no table of weights; it holds params_ema"),
        ([1, 2], "is no table of weights; it holds list"),
        (Bomb(), "holds code that would have to run"),
    ],
)
def test_wrong_files_are_told_in_one_line(content: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as raised:
        sr3.load_published(path, KEYS)
    assert words in raised.value.message
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("content", [b"", b"words", pickle.dumps({"a": 1}), pickle.dumps(Bomb()), b"PK\x03\x04 no zip"])
def test_what_is_no_file_of_torch(content: bytes, program: Program, tmp_path: Path) -> None:
    path = tmp_path / "no.pth"
    path.write_bytes(content)
    code, _, err = convert(program, path)
    assert code == 1
    assert "error: " in err
    assert "Traceback" not in err
    assert "_gen.pth" in err
    assert not Path("out.safetensors").exists()


def test_another_size_is_told(program: Program) -> None:
    code, _, err = program("export", PUBLISHED, "out.safetensors", "--from", "sr3")
    assert code == 1
    assert "missing, the first 'denoise_fn." in err
    assert "unexpected, the first 'denoise_fn." in err
    assert "network.channels=" in err
    assert "cannot be read" in program("export", "none.pth", "o.safetensors", "--from", "sr3")[2]


def test_its_configuration_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    checkpoint.save_model(path, tiny(), torch.float32)
    assert checkpoint.load_model(path).config == TINY
    assert json.loads(checkpoint.read_tensors(path)[0]["config"])["network"]["kind"] == "sr3-unet"
