"""The promise of the upscaler: size, range, and a result that depends on the picture and the seed alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHARED, TINY, photo, randomise
from torch import Tensor

from dreamsr.config import NetworkConfig
from dreamsr.core import noise
from dreamsr.core.enlargement import Axis, window
from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine import upscaler as upscaler_module
from dreamsr.engine.device import choose_dtype
from dreamsr.engine.evaluator import Sampled, benchmark
from dreamsr.engine.measure import Measure, load_lpips
from dreamsr.engine.outputs import output_size
from dreamsr.engine.schedule import Settings
from dreamsr.engine.statistics import means
from dreamsr.engine.sweep import combinations
from dreamsr.engine.upscaler import HALO, Upscaler
from dreamsr.errors import UsageError
from dreamsr.files import checkpoint, hub
from dreamsr.files.checkpoint import Model


def pictures() -> list[Tensor]:
    return [photo("chelsea")[:, 50:90, 60:120], photo("coffee")[:, 5:6, 7:8], photo("rocket")[:, 100:117, 200:263]]


@pytest.fixture
def upscaler(tiny_model: Model) -> Upscaler:
    return Upscaler(tiny_model, Settings(steps=3, tile=128))


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (17, 40), (1, 150)])
def test_size_and_range(size: tuple[int, int], upscaler: Upscaler) -> None:
    (out,) = upscaler([torch.rand(3, *size) * 2 - 1])
    assert out.shape == (3, 4 * size[0], 4 * size[1])
    assert float(out.abs().max()) <= 1 + 1e-6


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp-2m"])
def test_company_and_order_do_not_matter(sampler: str, upscaler: Upscaler) -> None:
    upscaler = replace(upscaler, settings=replace(upscaler.settings, sampler=sampler))
    together, backward = upscaler(pictures()), upscaler(pictures()[::-1])
    for x, a, b in zip(pictures(), together, reversed(backward), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, upscaler([x])[0])


def test_batch_size_does_not_matter(upscaler: Upscaler) -> None:
    reference = upscaler(pictures())
    for batch in (2, 5):
        other = replace(upscaler, settings=replace(upscaler.settings, batch=batch))
        for a, b in zip(reference, other(pictures()), strict=True):
            assert float((a - b).abs().max()) < 1e-4


def test_every_draw_of_noise_has_a_key_of_its_own(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """(seed, sample, step), where step 0 is what sampling starts from."""
    keys: list[tuple[int, int, int]] = []

    def normal(key: tuple[int, int, int], size: tuple[int, int], *_: object, **__: object) -> Tensor:
        keys.append(key)
        return torch.zeros(3, *size)

    monkeypatch.setattr(noise, "normal", normal)
    Upscaler(tiny_model, Settings(steps=3, sampler="ddpm", seed=7, samples=2))([torch.zeros(3, 8, 8)])
    assert keys == [(7, sample, step) for sample in range(2) for step in range(3)]


def test_without_noise_at_the_start_the_seed_does_not_matter(tiny_model: Model) -> None:
    silent = replace(TINY, sampling=replace(TINY.sampling, noise_scale=0.0))
    model = replace(tiny_model, config=silent)
    a, b = (Upscaler(model, Settings(steps=2, seed=seed))(pictures()[1:2])[0] for seed in (0, 1))
    assert torch.equal(a, b)


def test_the_seed_matters(upscaler: Upscaler) -> None:
    other = replace(upscaler, settings=replace(upscaler.settings, seed=1))
    assert not torch.equal(upscaler(pictures())[0], other(pictures())[0])


def test_a_fresh_model_is_bicubic() -> None:
    fresh = Upscaler(Model(TINY, checkpoint.build(TINY), {}), Settings(steps=2, tile=128))
    x = pictures()[0]
    torch.testing.assert_close(fresh([x])[0], bicubic(x[None], (160, 240))[0].clamp(-1, 1), rtol=0, atol=1e-5)


def bundled() -> Model:
    return checkpoint.load_model(hub.resolve("bicubic-x4"))


def whole_against_tiles(model: Model, steps: int, sampler: str = "ddim") -> float:
    """The largest difference between one tile around the picture and tiles of the usual size."""
    lr = degrade(photo("astronaut")[None, :, :480, :400], 4)[0]
    whole = Upscaler(model, Settings(steps=steps, sampler=sampler, tile=480 + 2 * HALO))([lr])[0]
    parts = Upscaler(model, Settings(steps=steps, sampler=sampler, tile=192))([lr])[0]
    # a picture that is bicubic, or clipped all over, would be equal for nothing
    anchor = bicubic(lr[None], (480, 400))[0]
    assert float((whole - anchor).std()) > 0.02
    assert float((whole.abs() > 0.999).float().mean()) < 0.5
    return float((whole - parts).abs().max())


@pytest.mark.parametrize(("steps", "sampler"), [(1, "ddim"), (4, "ddim"), (4, "ddpm")])
def test_tiles_equal_the_whole_within_a_level(steps: int, sampler: str) -> None:
    assert whole_against_tiles(bundled().to("cpu"), steps, sampler) <= 2 / 255


@pytest.mark.parametrize("steps", [1, 4])
def test_tiles_of_the_default_model_equal_the_whole_within_a_level(steps: int) -> None:
    """Of tiles as large as on a CPU. With WIDE_HALO = 64 they differ by more than 2."""
    model = checkpoint.load_model(hub.resolve(hub.DEFAULT_MODEL)).to("cpu")
    lr = degrade(photo("astronaut")[None, :, 100:164].repeat(1, 1, 1, 3)[..., :1280], 4)[0]
    whole, parts = (Upscaler(model, Settings(steps=steps, tile=tile)) for tile in (1312, 1024))
    assert [upscaler.tiles((64, 1280)) for upscaler in (whole, parts)] == [1, 2]
    assert float((whole([lr])[0] - parts([lr])[0]).abs().max()) <= 2 / 255


def test_small_tiles_of_the_default_model_differ_by_few_levels() -> None:
    """They have no room for a wide halo: more than a level, as the documents say, in one pixel of a hundred."""
    model = checkpoint.load_model(hub.resolve(hub.DEFAULT_MODEL)).to("cpu")
    lr = degrade(photo("astronaut")[None, :, :300, :448], 4)[0]
    whole, parts = (Upscaler(model, Settings(steps=4, tile=tile))([lr])[0] for tile in (544, 224))
    levels = (whole - parts).abs() * 127.5
    assert 1 < float(levels.max()) < 7
    assert float((levels > 1).float().mean()) < 0.015


def test_the_bundled_model_is_better_than_bicubic() -> None:
    """1 step: at least half a decibel, also on a soft picture; 4 steps: visibly another, for about the same PSNR."""
    model, measure = bundled().to("cpu"), Measure()
    for name in ("chelsea", "coffee"):
        hr = photo(name)[:, :256, :384]
        lr = degrade(hr[None], 4)[0]
        anchor = bicubic(lr[None], (256, 384))[0]
        one, four = (Upscaler(model, Settings(steps=steps))([lr])[0] for steps in (1, 4))
        base = measure(anchor, hr)["psnr_y"]
        assert measure(one, hr)["psnr_y"] > base + 0.5, name
        assert measure(four, hr)["psnr_y"] > base - 0.5, name
        assert float((four - one).abs().mean()) > 1 / 255, name


@pytest.mark.parametrize(("steps", "most"), [(1, 1.5 / 255), (4, 2 / 255)])
def test_blocks_join(steps: int, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture in blocks is the picture in one piece, within what tiles differ by; tested on four small blocks."""
    lr = degrade(photo("astronaut")[None], 4)[0][:, :121, :125]
    model = Upscaler(bundled().to("cpu"), Settings(steps=steps))
    (whole,) = model([lr])
    monkeypatch.setattr(upscaler_module, "WHOLE", 448)
    monkeypatch.setattr(upscaler_module, "BLOCK", 448)
    (joined,) = model([lr])
    assert joined.shape == whole.shape == (3, 484, 500)
    assert not torch.equal(joined, whole)
    assert float((joined - whole).abs().max()) <= most
    for a, b in zip(model([pictures()[0], lr]), (*model([pictures()[0]]), joined), strict=True):
        assert torch.equal(a, b)


def test_a_window_of_the_anchor_is_a_part_of_the_whole() -> None:
    x = photo("coffee")[:, :60, :70]
    whole = bicubic(x[None], (240, 280))[0]
    for rows, columns in (((0, 240), (0, 280)), ((0, 80), (118, 280)), ((51, 190), (22, 23)), ((239, 240), (277, 280))):
        part = window(x, Axis(60, 240, *rows), Axis(70, 280, *columns), torch.device("cpu")).anchor
        expected = whole[:, slice(*rows), slice(*columns)]
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)


def test_smaller_halves_the_batch_then_the_tile(tiny_model: Model) -> None:
    now: Upscaler | None = Upscaler(tiny_model, Settings(tile=512, batch=4))
    seen = []
    while now is not None:
        seen.append((now.tiling.batch, now.tiling.tile))
        now = now.smaller()
    assert seen == [(4, 512), (2, 512), (1, 512), (1, 256), (1, 128)]
    assert Upscaler(tiny_model, Settings(tile=4 * HALO)).smaller() is None  # a half would be two halos and nothing else


def test_overflow_in_half_precision_is_repaired(tiny_model: Model) -> None:
    """Features of some 1e6 are infinite in fp16; the result is that of float32."""
    with torch.no_grad():
        tiny_model.network.get_parameter("enter_anchor.weight").mul_(1e6)
    upscalers = [Upscaler(tiny_model.to("cpu", dtype), Settings(steps=2)) for dtype in (torch.float16, torch.float32)]
    broken, exact = (upscaler(pictures()) for upscaler in upscalers)
    raw = replace(upscalers[0], model=replace(upscalers[0].model, exact=None))
    assert not bool(raw(pictures())[0].isfinite().all())
    for a, b in zip(broken, exact, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_bars_on_the_benchmark_sets(shared_metrics: Path) -> None:
    """Set14 and BSD100: what the card promises."""
    measure = Measure(lpips=load_lpips(shared_metrics / "lpips-alex.safetensors"))
    model = bundled().to("cpu", choose_dtype(torch.device("cpu")))
    contenders = [Sampled(n, Upscaler(model, s)) for n, s in combinations(Settings(), {"steps": [1, 4]}).items()]
    scores = {}
    for name in ("Set14", "BSD100"):
        rows = list(benchmark(SHARED / "data" / "eval" / name, contenders, measure, 4, model.config)[0].rows())
        scores[name] = {k: {key: m.value for key, m in v.items()} for k, v in means(rows).items()}
    assert scores["Set14"]["1 step"]["psnr_y"] >= 27.8
    assert scores["Set14"]["4 steps"]["lpips"] <= 0.20
    assert scores["Set14"]["4 steps"]["psnr_y"] >= 26.5
    assert scores["BSD100"]["4 steps"]["lpips"] <= scores["BSD100"]["bicubic"]["lpips"] / 2


@pytest.mark.parametrize(("steps", "most"), [(1, 1e-5), (3, 2 / 255)])
def test_tiles_equal_the_whole_on_randomised_weights(steps: int, most: float) -> None:
    """Random weights look as far as they can, here 24 pixels, which the halo covers.

    One step is equal; over several the end of the canvas, which lies elsewhere, is felt a little.
    """
    config = replace(TINY, network=NetworkConfig(widths=(8,), blocks=1, encoder_blocks=1))
    model = Model(config, randomise(checkpoint.build(config)), {}).to("cpu")
    assert whole_against_tiles(model, steps) <= most


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_no_tint(steps: int) -> None:
    """The mean colour stays within half a level of the input's, also on flat colours."""
    upscaler = Upscaler(bundled().to("cpu"), Settings(steps=steps))
    flat = [torch.full((3, 40, 40), level / 127.5 - 1) for level in (0, 1, 127, 254, 255)]
    for x in [degrade(photo("coffee")[None, :, :400, :600], 4)[0], *flat]:
        (out,) = upscaler([x])
        drift = (out.mean((1, 2)) - x.mean((1, 2))).abs().max()
        assert float(drift) * 127.5 < 0.5


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((10, 20), 4, (40, 80)), ((1, 1), 1.5, (2, 2)), ((3, 7), 1.5, (5, 11)), ((5, 5), 1, (5, 5))],
)
def test_output_size(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert output_size(size, scale) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "--steps is 0"),
        ({"steps": -3}, "--steps is -3"),
        ({"batch": 0}, "--batch-size is 0"),
        ({"seed": 2**64}, "--seed is 18446744073709551616"),
        ({"sampler": "euler"}, "sampler 'euler' is unknown"),
    ],
)
def test_wrong_settings(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(**change)


@pytest.mark.parametrize("tile", [0, 64, 250])
def test_wrong_tiles(tile: int, tiny_model: Model) -> None:
    with pytest.raises(UsageError, match=f"--tile is {tile}; expected a multiple of"):
        Upscaler(tiny_model, Settings(tile=tile))


def test_the_usual_tile_fits_every_network() -> None:
    config = replace(TINY, network=NetworkConfig(widths=(8, 8, 8, 8, 8), blocks=1, encoder_blocks=1, patch=8))
    upscaler = Upscaler(Model(config, checkpoint.build(config).eval(), {}).to("cpu"), Settings(steps=1))
    assert upscaler.tiling.tile == 1408  # the largest multiple of 128 up to 1472
    assert upscaler([torch.zeros(3, 20, 30)])[0].shape == (3, 80, 120)
    with pytest.raises(UsageError) as error:
        replace(upscaler, settings=Settings(tile=1472))
    assert error.value.hint == "try --tile 1408"
