"""Transparency: colour bled under it, and extremes that stay."""

from pathlib import Path

import pytest
import torch
from conftest import photo

from dreamsr.core import alpha as transparency
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub, images
from dreamsr.files.images import Picture


def disc(side: int = 32) -> torch.Tensor:
    """Alpha (1, side, side): an opaque disc with a soft edge on nothing."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = ((x - side / 2 + 0.5) ** 2 + (y - side / 2 + 0.5) ** 2).sqrt()
    return (side / 3 - distance).clamp(0, 1)[None] * 2 - 1


def test_visible_colour_fills_what_is_hidden() -> None:
    alpha = disc()
    color = torch.tensor([0.8, -0.2, 0.4])[:, None, None].expand(3, 32, 32).where(alpha > -1, torch.tensor(-1.0))
    bled = transparency.bleed(color, alpha)
    assert torch.allclose(bled, torch.tensor([0.8, -0.2, 0.4])[:, None, None].expand(3, 32, 32), atol=1e-6)


def test_visible_pixels_keep_their_colour() -> None:
    color, alpha = photo("chelsea")[:, :37, :41], torch.rand(1, 37, 41).round() * 2 - 1
    bled = transparency.bleed(color, alpha)
    seen = (alpha > -1).expand_as(color)
    assert torch.equal(bled[seen], color[seen])
    assert not torch.equal(bled, color)


def test_the_nearest_colour_counts_most() -> None:
    alpha = torch.full((1, 16, 64), -1.0)
    alpha[..., 0] = alpha[..., -1] = 1
    color = torch.zeros(3, 16, 64)
    color[..., 0], color[..., -1] = 1, -1
    row = transparency.bleed(color, alpha)[0, 8]
    assert row[8] > 0.5
    assert row[-9] < -0.5


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_nothing_to_bleed(value: float) -> None:
    color = photo("chelsea")[:, :9, :9]
    assert torch.equal(transparency.bleed(color, torch.full((1, 9, 9), value)), color)


@pytest.mark.parametrize("size", [(32, 32), (37, 41), (33, 9)])
def test_extremes_of_alpha_stay_extremes(size: tuple[int, int]) -> None:
    """Also beside corners, where the second pass of a bicubic filter undoes the overshoot of the first."""
    alpha = torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    alpha[:, :4] = 1
    big = transparency.enlarge(alpha, size)
    linear = torch.nn.functional.interpolate(alpha[None], size, mode="bilinear")[0]
    assert bool((big[linear > 0.99999] == 1).all())
    assert bool((big[linear < -0.99999] == -1).all())
    assert bool((big.abs() <= 1).all())
    for value in (-1.0, 1.0):
        assert bool((transparency.enlarge(torch.full((1, 5, 6), value), size) == value).all())


@pytest.mark.parametrize("depth", [8, 16])
def test_no_dark_halo(depth: int, tmp_path: Path) -> None:
    """A white disc whose hidden pixels hold black: all that can be seen of it stays white."""
    alpha = disc()
    color = torch.ones(3, 32, 32).where(alpha > -1, torch.tensor(-1.0))
    images.write(tmp_path / "a.png", Picture(color, alpha, depth=depth))
    picture = images.bled(images.read(tmp_path / "a.png"))
    model = checkpoint.load_model(hub.resolve("bicubic-x4")).to("cpu")
    large = images.enlarged(picture, Upscaler(model, Settings(steps=1, tile=224))([picture.color])[0])
    images.write(tmp_path / "b.png", large)
    result = images.read(tmp_path / "b.png")
    assert result.depth == depth
    assert result.alpha is not None
    visible = (result.alpha > -1).expand_as(result.color)
    assert result.color[visible].min() > 1 - 4 / 127.5
    assert bool((result.alpha[:, 54:74, 54:74] == 1).all())
    assert bool((result.alpha[:, :8] == -1).all())
