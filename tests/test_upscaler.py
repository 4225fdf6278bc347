"""The promise of the upscaler: size, range, and a result that depends on the picture and the seed alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY, photo, randomise
from torch import Tensor

from dreamsr.config import NetworkConfig
from dreamsr.core.resize import bicubic
from dreamsr.data.degrade import degrade
from dreamsr.engine.upscaler import HALO, Settings, Upscaler, output_size
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


def test_batch_size_and_tiles_do_not_matter_within_a_level(upscaler: Upscaler) -> None:
    reference = upscaler(pictures())
    for batch in (2, 5):
        other = replace(upscaler, settings=replace(upscaler.settings, batch=batch))
        for a, b in zip(reference, other(pictures()), strict=True):
            assert float((a - b).abs().max()) < 1e-4


def test_the_seed_matters(upscaler: Upscaler) -> None:
    other = replace(upscaler, settings=replace(upscaler.settings, seed=1))
    assert not torch.equal(upscaler(pictures())[0], other(pictures())[0])


def test_every_step_is_yielded(upscaler: Upscaler) -> None:
    steps = list(upscaler.run(pictures()))
    assert len(steps) == 3
    for a, b in zip(steps[-1], upscaler(pictures()), strict=True):
        assert torch.equal(a, b)


def test_a_fresh_model_is_bicubic() -> None:
    fresh = Upscaler(Model(TINY, checkpoint.build(TINY), {}), Settings(steps=2, tile=128))
    x = pictures()[0]
    torch.testing.assert_close(fresh([x])[0], bicubic(x[None], (160, 240))[0].clamp(-1, 1), rtol=0, atol=1e-5)


def bundled() -> Model:
    return checkpoint.load_model(hub.resolve(hub.DEFAULT_MODEL))


def whole_against_tiles(model: Model, steps: int) -> float:
    """The largest difference between one tile around the picture and tiles of the usual size."""
    lr = degrade(photo("astronaut")[None, :, :480, :400], 4)[0]
    whole = Upscaler(model, Settings(steps=steps, tile=480 + 2 * HALO))([lr])[0]
    parts = Upscaler(model, Settings(steps=steps, tile=192))([lr])[0]
    return float((whole - parts).abs().max())


@pytest.mark.parametrize("steps", [1, 4])
def test_tiles_equal_the_whole_within_a_level(steps: int) -> None:
    assert whole_against_tiles(bundled().to("cpu"), steps) <= 2 / 255


@pytest.mark.parametrize(("steps", "most"), [(1, 1e-5), (3, 2 / 255)])
def test_tiles_equal_the_whole_on_randomised_weights(steps: int, most: float) -> None:
    """Random weights look as far as they can, here 24 pixels, which the halo covers.

    One step is equal; over several the end of the canvas, which lies elsewhere, is felt a little.
    """
    config = replace(TINY, network=NetworkConfig(widths=(8,), blocks=1, encoder_blocks=1))
    model = Model(config, randomise(checkpoint.build(config)), {}).to("cpu")
    assert whole_against_tiles(model, steps) <= most


def test_no_tint() -> None:
    """The mean colour stays within half a level of the input's, also on flat colours."""
    upscaler = Upscaler(bundled().to("cpu"), Settings(steps=4))
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
        ({"sampler": "euler"}, "sampler 'euler' is unknown"),
    ],
)
def test_wrong_settings(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(**change)


@pytest.mark.parametrize("tile", [64, 250])
def test_wrong_tiles(tile: int, tiny_model: Model) -> None:
    with pytest.raises(UsageError, match=f"--tile is {tile}; expected a multiple of"):
        Upscaler(tiny_model, Settings(tile=tile))
