"""Bags, tiles and canvases."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dreamsr.config import ProcessConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.process import Process, level
from dreamsr.core.tiling import Layout, tiled
from dreamsr.engine.device import TILE
from dreamsr.engine.upscaler import BLOCK

SIZES = ((1, 1), (33, 70), (64, 64), (100, 30), (17, 200))
SCALES = (4.0, 2.0, 1.5, 3.0, 2.5)


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, h, w, generator=generator) for h, w in SIZES]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("tile", "halo"), [(32, 8), (48, 4), (128, 32), (16, 0)])
def test_pack_and_unpack(tile: int, halo: int, static: bool) -> None:
    layout = Layout(SIZES, tile, halo, 8, static)
    for x, y in zip(pictures(), layout.unpack(layout.pack(pictures())), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(("static", "side"), [(False, 4), (True, 16)])
def test_edges_are_replicated(static: bool, side: int) -> None:
    layout = Layout(((2, 3),), 16, 4, 4, static)
    x = torch.arange(18.0).view(3, 2, 3)
    (canvas,) = layout.views(layout.pack([x]))
    assert canvas.shape == (3, side, side)
    assert torch.equal(canvas[:, :2, :3], x)
    assert torch.equal(canvas[:, 1, -1], x[:, 1, 2])
    assert torch.equal(canvas[:, -1, 1], x[:, 1, 1])


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("tile", "halo"), [(32, 8), (48, 4), (16, 0)])
def test_tiles_cover_every_pixel_once(tile: int, halo: int, static: bool) -> None:
    layout = Layout(SIZES, tile, halo, 8, static)
    times = torch.zeros(sum(3 * h * w for h, w in layout.canvases))
    for one in layout.tiles:
        marks = torch.zeros_like(times)
        layout.scatter(torch.ones(1, 3, *one.shape), [one], marks)
        times += marks
    assert torch.equal(times, torch.ones_like(times))


@pytest.mark.parametrize("length", range(1, 400, 7))
def test_what_a_tile_keeps_is_a_halo_away_from_its_cut_edges(length: int) -> None:
    layout = Layout(((length, 1),), 64, 12, 8)
    canvas = layout.canvases[0][0]
    for tile in layout.tiles:
        rows = tile.rows
        assert rows.stop - rows.start <= 64
        assert rows.start % 8 == rows.stop % 8 == 0
        assert rows.first - rows.start >= 12 or rows.start == rows.first == 0
        assert rows.stop - rows.last >= 12 or rows.stop == rows.last == canvas


def test_tiles_waste_little() -> None:
    """A picture of one tile costs itself; one of many, tiles of (side / (side - 2 halo))^2."""
    for size, halo, most in (
        ((500, 500), 48, 1.05),
        ((1472, 1472), 48, 1.0),
        ((4000, 4000), 48, 1.12),
        ((2000, 300), 48, 1.08),
        ((1472, 1472), 96, 1.0),
        ((4000, 4000), 96, 1.22),
        ((BLOCK, BLOCK), 96, 1.15),
    ):
        layout = Layout((size,), TILE, halo, 16)
        computed = sum(tile.shape[0] * tile.shape[1] for tile in layout.tiles)
        assert computed <= most * size[0] * size[1]


def test_batches_hold_one_shape() -> None:
    layout = Layout(SIZES, 32, 8, 8)
    batches = list(layout.batches(3))
    assert sorted(t.shape for batch in batches for t in batch) == sorted(t.shape for t in layout.tiles)
    assert all(len({tile.shape for tile in batch}) == 1 and len(batch) <= 3 for batch in batches)
    assert len({tile.shape for batch in batches for tile in batch}) > 1
    assert {tile.shape for tile in Layout(SIZES, 32, 8, 8, static=True).tiles} == {(32, 32)}


def test_gather_then_scatter_is_the_identity() -> None:
    layout = Layout(SIZES, 32, 8)
    flat = layout.pack(pictures())
    again = torch.zeros_like(flat)
    for batch in layout.batches(4):
        layout.scatter(layout.gather(flat, batch), batch, again)
    assert torch.equal(again, flat)


BLENDED = Layout(SIZES, 32, 2, static=True, blend=True)


def test_shares_of_blended_tiles_sum_to_one() -> None:
    flat = BLENDED.pack(pictures())
    again = torch.zeros_like(flat)
    for batch in BLENDED.batches(4):
        BLENDED.scatter(BLENDED.gather(flat, batch), batch, again)
    torch.testing.assert_close(again, flat, rtol=0, atol=1e-6)


def test_blended_tiles_fade_into_each_other() -> None:
    """Tiles of 0 and 1 that overlap by 4 of 60 pixels meet in a straight line; a single tile stays as it is."""
    layout = Layout(((32, 60),), 32, 2, static=True, blend=True)
    left, right = layout.tiles
    flat = torch.zeros(3 * 32 * 60)
    layout.scatter(torch.ones(1, 3, 32, 32), [right], flat)
    row = layout.views(flat)[0][0, 7]
    assert torch.equal(row[:28], torch.zeros(28))
    torch.testing.assert_close(row[28:32], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(row[32:], torch.ones(28))
    assert left.columns.stop - right.columns.start == 4


def test_a_tile_without_a_core_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        Layout(SIZES, 32, 16)
    assert len(Layout(((33, 40),), 33, 16).tiles) == 40 - 33 + 1  # of one pixel each
    with pytest.raises(ValueError, match="does not fit"):
        Layout(SIZES, 36, 4, 8)


class Blur:
    """A local network: what it says depends on 2 pixels around, and on the anchor and the scale."""

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return anchor * scale.view(-1, 1, 1, 1)

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        self.shapes.add(tuple(u.shape))
        return torch.nn.functional.avg_pool2d(u + features, 5, 1, 2) * angle.view(-1, 1, 1, 1)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize(("tile", "halo"), [(24, 4), (32, 8), (64, 2)])
def test_a_local_network_is_tiled_exactly(batch: int, tile: int, halo: int, static: bool) -> None:
    """Tiled equals whole, for every batch; the network sees full batches, and one shape if asked."""
    network = Blur()
    denoiser = Denoiser(cast(Any, network), Process(ProcessConfig(k=1e-3)), "x0")
    anchors = [x * 0.1 for x in pictures()]
    layout = Layout(SIZES, tile, halo, 4, static)
    row = level(torch.tensor(0.0))
    packed = layout.pack(anchors)
    u = layout.pack(pictures())
    result = tiled(denoiser, layout, packed, SCALES, batch)(u, row)
    assert {shape[0] for shape in network.shapes} == {batch}
    assert not static or network.shapes == {(batch, 3, tile, tile)}
    canvases = zip(layout.views(result), layout.views(u), layout.views(packed), SCALES, strict=True)
    for canvas, whole_u, whole_anchor, scale in canvases:
        whole = denoiser(whole_u[None], row, denoiser.condition(whole_anchor[None], torch.tensor([scale])))[0]
        torch.testing.assert_close(canvas, whole, rtol=0, atol=1e-6)


def test_order_of_pictures_does_not_matter() -> None:
    denoiser = Denoiser(cast(Any, Blur()), Process(ProcessConfig()), "x0")
    row = level(torch.tensor(1.0))

    def run(order: list[int]) -> list[Tensor]:
        chosen = [pictures()[i] for i in order]
        layout = Layout(tuple(SIZES[i] for i in order), 32, 8, 8)
        flat = layout.pack(chosen)
        return layout.unpack(tiled(denoiser, layout, flat, [SCALES[i] for i in order], 4)(flat, row))

    forward, backward = run([0, 1, 2, 3, 4]), run([4, 3, 2, 1, 0])
    for a, b in zip(forward, reversed(backward), strict=True):
        assert torch.equal(a, b)
