"""The energy score: least where samples are spread as the truth is, and learned at the end of a sampling run."""

import math

import pytest
import torch
from torch import Tensor, nn

from dreamsr.config import ProcessConfig
from dreamsr.core import scoring
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.process import Process
from dreamsr.core.sampling import SAMPLERS, solve

PROCESS = Process(ProcessConfig(anchored=False, k=50.0))
LEVELS = PROCESS.levels(4, "lambda", (-4.0, 2.0))
SHAPE = (4, 3, 32, 32)


class Gain(nn.Module):
    """Predicts u times a learned number, and remembers how it was called."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.calls: list[tuple[bool, bool]] = []

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        return self.gain * anchor

    def forward(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        self.calls.append((torch.is_grad_enabled(), self.training))
        return self.gain * u + features


def denoiser(gain: float) -> tuple[Denoiser, Condition, Gain]:
    network = Gain(gain)
    made = Denoiser(network, PROCESS, "x0")
    return made, made.condition(torch.zeros(SHAPE), torch.ones(1)), network


def normal(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The score of every pixel for itself."""
    monkeypatch.setattr(scoring, "BLURS", ())
    monkeypatch.setattr(scoring, "WINDOWS", (1,))


def test_the_score_of_normal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """E |N(0, v)| = sqrt(2 v / pi): (sqrt(s^2 + t^2) - s / sqrt(2)) of it for samples of s around a truth of t."""
    one_pixel(monkeypatch)
    a, b, truth = (normal(seed, (1, 1, 1000, 1000)) for seed in range(3))
    for s, t in ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 0.3)):
        expected = math.sqrt(2 / math.pi) * (math.hypot(s, t) - s / math.sqrt(2))
        assert scoring.energy_score(s * a, s * b, t * truth).item() == pytest.approx(expected, abs=3e-3)


def test_it_is_least_for_samples_spread_as_the_truth() -> None:
    a, b, truth = (normal(seed) for seed in range(3))
    scores = {s: scoring.energy_score(s * a, s * b, truth).item() for s in (0.0, 0.5, 0.9, 1.0, 1.1, 1.5)}
    assert min(scores, key=lambda s: scores[s]) == 1.0


def test_the_score_of_features_is_that_of_every_map_summed() -> None:
    """Maps of any size and scale; in each E |N(0, v)| = sqrt(2 v / pi) as above."""
    sizes, scales = (1000, 500), (1.0, 3.0)
    a, b, truth = (
        [scale * normal(seed, (1, 1, size, size)) for size, scale in zip(sizes, scales, strict=True)]
        for seed in range(3)
    )
    expected = math.sqrt(2 / math.pi) * (math.hypot(0.5, 1.0) - 0.5 / math.sqrt(2)) * sum(scales)
    a, b = ([0.5 * x for x in maps] for maps in (a, b))
    assert scoring.feature_score(a, b, truth).item() == pytest.approx(expected, abs=2e-2)


def test_bands_see_what_single_pixels_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pixel of noise is spread as a pixel of a truth of flat blocks; pixels side by side are not."""
    *flat, truth = (normal(seed, (16, 3, 48, 48)).repeat_interleave(8, 2).repeat_interleave(8, 3) for seed in range(3))
    noise = [normal(seed, (16, 3, 384, 384)) for seed in (3, 4)]
    right, wrong = (scoring.energy_score(a, b, truth).item() for a, b in (flat, noise))
    assert right < 0.9 * wrong
    one_pixel(monkeypatch)
    right, wrong = (scoring.energy_score(a, b, truth).item() for a, b in (flat, noise))
    assert right == pytest.approx(wrong, rel=0.004)


def test_bands_sum_to_the_picture_and_part_it_by_size() -> None:
    x = normal(0)
    assert torch.allclose(sum(scoring._bands(x), torch.zeros(SHAPE)), x, atol=1e-5)
    fine = torch.tensor([1.0, -1.0]).repeat(16).expand(SHAPE)  # stripes of one pixel: their mean over two is 0
    first, *others = scoring._bands(fine)
    assert torch.equal(first[..., :-1], fine[..., :-1])
    assert all(band[..., :16].abs().max() < 1e-6 for band in others)


def test_equal_pictures_have_no_distance_and_a_finite_gradient() -> None:
    a, b = (normal(0).requires_grad_() for _ in range(2))
    score = scoring.energy_score(a, b, normal(0))
    score.backward()
    assert score.item() == pytest.approx(0, abs=1e-3)
    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp-3m", "unipc"])
def test_a_sample_is_what_the_solver_makes_and_learns_at_its_end_alone(name: str) -> None:
    sampler = next(value for key, value in SAMPLERS.items() if key == name)
    made, condition, network = denoiser(0.3)
    sample = scoring.sample(made, normal(0), LEVELS, sampler, condition, normal)
    assert network.calls == [(False, False)] * 3 + [(True, True)]
    assert network.training
    with torch.no_grad():
        *_, last = solve(lambda u, level: made(u, level, condition), normal(0), LEVELS, sampler, normal)
    assert torch.equal(sample, last.u_0)
    (gradient,) = torch.autograd.grad(sample.sum(), network.gain)
    # the sample is gain * u, and u is held: a gradient through the earlier steps would have more terms
    assert gradient.item() == pytest.approx(sample.sum().item() / 0.3, rel=1e-4)


def test_training_finds_the_spread_of_the_truth() -> None:
    """Nothing is known of the truth but its spread: a mean error teaches 0, the energy score that spread."""
    made, _, network = denoiser(1.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    spread = []
    for step in range(100):
        condition = made.condition(torch.zeros(SHAPE), torch.ones(1))
        starts = [normal(3 * step), normal(3 * step + 1)]
        a, b = (scoring.sample(made, u, LEVELS, SAMPLERS["ddim"], condition) for u in starts)
        optimizer.zero_grad()
        scoring.energy_score(a, b, 0.2 * normal(3 * step + 2)).backward()
        optimizer.step()
        spread.append(a.std().item())
    assert sum(spread[-20:]) / 20 == pytest.approx(0.2, rel=0.05)
