"""Noise as a function of the place."""

import math

import pytest
import torch

from dreamsr.core.noise import normal

KEY = (0, 0, 0)
KNOWN = [-1.084743, -0.060163, -0.89381, -0.572155]


@pytest.mark.parametrize("origin", [(0, 0), (3, 5), (-7, -4), (100, 33), (-2, 7)])
def test_a_window_is_a_part_of_the_whole(origin: tuple[int, int]) -> None:
    whole = normal(KEY, (200, 200), (-50, -50))
    y, x = (n + 50 for n in origin)
    assert torch.equal(normal(KEY, (21, 34), origin), whole[:, y : y + 21, x : x + 34])


def test_one_pixel_at_a_time() -> None:
    whole = normal(KEY, (5, 6), (-2, -3))
    for y in range(5):
        for x in range(6):
            assert torch.equal(normal(KEY, (1, 1), (y - 2, x - 3))[:, 0, 0], whole[:, y, x])


def test_every_part_of_the_key_matters() -> None:
    fields = [normal(key, (64, 64)) for key in (KEY, (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**40, 0, 0), (-1, 0, 0))]
    for i, a in enumerate(fields):
        for b in fields[:i]:
            assert abs(float((a * b).mean())) < 5 / math.sqrt(a.numel())


def test_moments_and_tails() -> None:
    x = normal(KEY, (1000, 1000)).double()
    n = x.numel()
    assert abs(float(x.mean())) < 4 / math.sqrt(n)
    assert float(x.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    assert abs(float((x**3).mean())) < 4 * math.sqrt(15 / n)
    assert float((x**4).mean()) == pytest.approx(3, abs=4 * math.sqrt(96 / n))
    for bound in (1.0, 2.0, 3.0, 4.0):
        share = math.erfc(bound / math.sqrt(2))
        assert float((x.abs() > bound).double().mean()) == pytest.approx(share, abs=4 * math.sqrt(share / n))


def test_the_largest_value_is_finite() -> None:
    """Where the first hash gives 0 of 2^24: sqrt(-2 log 2^-24)."""
    pair = normal((1, 0, 0), (1, 2), (430, 1520))[2, 0].double()
    assert float(torch.linalg.vector_norm(pair)) == pytest.approx(math.sqrt(48 * math.log(2)), rel=1e-6)


def test_distribution_by_its_cumulative_function() -> None:
    """Kolmogorov-Smirnov distance to the normal distribution, at the 0.1 % level."""
    x = normal((5, 0, 0), (300, 300)).double().flatten().sort().values
    expected = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    empirical = torch.arange(1, len(x) + 1, dtype=torch.float64) / len(x)
    assert float((expected - empirical).abs().max()) < 1.95 / math.sqrt(len(x))


def test_white_in_space_and_across_channels() -> None:
    x = normal((9, 0, 3), (512, 512)).double()
    bound = 5 / math.sqrt(x.numel() / 3)
    for dy in range(5):
        for dx in range(-4, 5):
            if dy > 0 or dx > 0:
                shifted = torch.roll(x, (dy, dx), (1, 2))
                assert (x * shifted).mean((1, 2)).abs().max() < bound, (dy, dx)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(float((x[a] * x[b]).mean())) < bound
    power = torch.fft.fft2(x).abs().square().mean(0) / x[0].numel()
    assert float(power.max()) < 30


def test_known_values() -> None:
    """The field belongs to the results: the same seed makes the same picture in every version."""
    values = normal((42, 1, 2), (1, 4))[0, 0]
    torch.testing.assert_close(values, torch.tensor(KNOWN), rtol=0, atol=1e-5)
