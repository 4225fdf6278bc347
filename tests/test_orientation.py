"""Orientations: there and back, and a mean over all eight that has none of its own."""

import pytest
import torch
from conftest import TINY, photo, randomise
from torch import Tensor

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.orientation import ORIENTATIONS, Turned, oriented, turned, turned_back
from dreamsr.core.process import Process
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint
from dreamsr.files.checkpoint import Model

LEVEL = torch.tensor([0.6, 0.8], dtype=torch.float64)


def test_eight_ways_there_and_back() -> None:
    x = torch.arange(24.0).view(1, 4, 6)
    ways = [turned(x, way) for way in range(ORIENTATIONS)]
    assert ways[0] is turned_back(x, 0) is x  # a single sample pays for no copy
    assert len({(y.shape, tuple(y.flatten().tolist())) for y in ways}) == ORIENTATIONS
    for way, y in enumerate(ways):
        assert torch.equal(turned_back(y, way), x)


def test_the_mean_over_all_has_no_orientation() -> None:
    """It turns with its input, which a network alone does not."""
    denoiser = Denoiser(randomise(checkpoint.build(TINY)).eval(), Process(TINY.process), TINY.prediction)
    anchor = photo("chelsea")[None, :, :64, :96]
    u = torch.randn(anchor.shape, generator=torch.Generator().manual_seed(0))

    def estimate(of: Denoiser, u: Tensor, anchor: Tensor) -> Tensor:
        return of(u, LEVEL, of.condition(anchor, torch.tensor([4.0])))

    def mean(u: Tensor, anchor: Tensor) -> Tensor:
        return torch.stack([estimate(oriented(denoiser, way), u, anchor) for way in range(ORIENTATIONS)]).mean(0)

    with torch.inference_mode():
        for way in range(1, ORIENTATIONS):
            wanted = turned(mean(u, anchor), way)
            torch.testing.assert_close(mean(turned(u, way), turned(anchor, way)), wanted, rtol=0, atol=1e-5)
            alone = estimate(denoiser, turned(u, way), turned(anchor, way))
            assert float((alone - turned(estimate(denoiser, u, anchor), way)).abs().max()) > 1e-2


def test_what_overflows_is_done_again_in_the_same_orientation() -> None:
    network = randomise(checkpoint.build(TINY)).eval()
    denoiser = Denoiser(network, Process(TINY.process), TINY.prediction)
    broken = torch.nn.Module()
    broken.encode = network.encode  # type: ignore[assignment]
    broken.forward = lambda u, angle, features: torch.full_like(u, torch.inf)
    half = Denoiser(broken, denoiser.process, TINY.prediction, exact=network)  # type: ignore[arg-type]
    anchor = photo("coffee")[None, :, :32, :48]
    with torch.inference_mode():
        for way in range(ORIENTATIONS):
            made, wanted = (
                of(torch.zeros_like(anchor), LEVEL, of.condition(anchor, torch.tensor([4.0])))
                for of in (oriented(half, way), oriented(denoiser, way))
            )
            assert torch.equal(made, wanted)


def test_samples_take_turns(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sees the picture as it is, the ninth again."""
    ways: list[int] = []
    encode = Turned.encode

    def listening(self: Turned, anchor: Tensor, scale: Tensor) -> Tensor:
        ways.append(self.way)
        return encode(self, anchor, scale)

    monkeypatch.setattr(Turned, "encode", listening)
    Upscaler(tiny_model, Settings(steps=1, samples=9))([photo("coffee")[:, :9, :7]])
    assert ways == [*range(8), 0]
