"""Bags, tiles and canvases."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dreamsr.config import ProcessConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.process import Process, level
from dreamsr.core.tiling import Layout, tiled

SIZES = ((1, 1), (33, 70), (64, 64), (100, 30), (17, 200))


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, h, w, generator=generator) for h, w in SIZES]


@pytest.mark.parametrize(("tile", "halo"), [(32, 8), (48, 4), (128, 32), (16, 0)])
def test_pack_and_unpack(tile: int, halo: int) -> None:
    layout = Layout(SIZES, tile, halo)
    for x, y in zip(pictures(), layout.unpack(layout.pack(pictures())), strict=True):
        assert torch.equal(x, y)


def test_margins_repeat_the_edge() -> None:
    layout = Layout(((2, 3),), 16, 4)
    x = torch.arange(18.0).view(3, 2, 3)
    (canvas,) = layout.views(layout.pack([x]))
    assert canvas.shape == (3, 16, 16)
    assert torch.equal(canvas[:, 0, 0], x[:, 0, 0])
    assert torch.equal(canvas[:, -1, 5], x[:, 1, 1])
    assert torch.equal(canvas[:, 5, -1], x[:, 1, 2])


@pytest.mark.parametrize(("tile", "halo"), [(32, 8), (48, 4), (16, 0)])
def test_tiles_cover_every_pixel_once(tile: int, halo: int) -> None:
    layout = Layout(SIZES, tile, halo)
    marks = torch.full((sum(3 * h * w for h, w in layout.canvases),), -1.0)
    for i, one in enumerate(layout.tiles):
        fresh = torch.full_like(marks, -1.0)
        layout.scatter(torch.full((1, 3, tile, tile), float(i)), [one], fresh)
        assert not bool(((fresh >= 0) & (marks >= 0)).any())
        marks = torch.maximum(marks, fresh)
    assert bool((marks >= 0).all())


def test_gather_then_scatter_is_the_identity() -> None:
    layout = Layout(SIZES, 32, 8)
    flat = layout.pack(pictures())
    again = torch.zeros_like(flat)
    layout.scatter(layout.gather(flat, layout.tiles), layout.tiles, again)
    assert torch.equal(again, flat)


def test_a_tile_without_a_core_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        Layout(SIZES, 32, 16)


class Blur:
    """A local network: what it says depends on 2 pixels around, and on the anchor."""

    def encode(self, anchor: Tensor) -> Tensor:
        return anchor

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        self.shape = u.shape
        return torch.nn.functional.avg_pool2d(u + features, 5, 1, 2) * angle.view(-1, 1, 1, 1)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize(("tile", "halo"), [(24, 4), (32, 8), (64, 2)])
def test_a_local_network_is_tiled_exactly(batch: int, tile: int, halo: int) -> None:
    """Tiled equals whole inside the canvas, for every batch; the network sees one static shape."""
    network = Blur()
    denoiser = Denoiser(cast(Any, network), Process(ProcessConfig(k=1e-3)), "x0")
    anchors = [x * 0.1 for x in pictures()]
    layout = Layout(SIZES, tile, halo)
    row = level(torch.tensor(0.0))
    packed = layout.pack(anchors)
    u = layout.pack(pictures())
    result = tiled(denoiser, layout, packed, batch)(u, row)
    assert network.shape == (batch, 3, tile, tile)
    for canvas, whole_u, whole_anchor in zip(layout.views(result), layout.views(u), layout.views(packed), strict=True):
        whole = denoiser(whole_u[None], row, denoiser.condition(whole_anchor[None]))[0]
        torch.testing.assert_close(canvas, whole, rtol=0, atol=1e-6)


def test_order_of_pictures_does_not_matter() -> None:
    denoiser = Denoiser(cast(Any, Blur()), Process(ProcessConfig()), "x0")
    row = level(torch.tensor(1.0))

    def run(order: list[int]) -> list[Tensor]:
        chosen = [pictures()[i] for i in order]
        layout = Layout(tuple(SIZES[i] for i in order), 32, 8)
        flat = layout.pack(chosen)
        return layout.unpack(tiled(denoiser, layout, flat, 4)(flat, row))

    forward, backward = run([0, 1, 2, 3, 4]), run([4, 3, 2, 1, 0])
    for a, b in zip(forward, reversed(backward), strict=True):
        assert torch.equal(a, b)
