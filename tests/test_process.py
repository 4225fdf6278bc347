"""The schedules against published values, and the grids."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

from dreamsr.config import Grid, ProcessConfig
from dreamsr.core.dream import strength
from dreamsr.core.process import Process, level
from dreamsr.errors import UsageError

SR3 = Process(ProcessConfig("linear", 2000, 1e-6, 1e-2, anchored=False, k=1.0))
DDPM = Process(ProcessConfig("linear", 1000, 1e-4, 0.02))
COSINE = Process(ProcessConfig())
FLOW = Process(ProcessConfig("flow"))
RESSHIFT = Process(ProcessConfig("resshift", 15))
ALL = (COSINE, DDPM, SR3, FLOW, RESSHIFT)


def abar(process: Process, t: int) -> float:
    time = torch.tensor(t / process.config.table, dtype=torch.float64)
    return float(level(process.lambda_at(time))[0] ** 2)


@pytest.mark.parametrize(
    ("t", "expected", "weight"),
    [
        (1, 0.99999900, 0.001000),
        (20, 0.99903006, 0.031144),
        (100, 0.97544253, 0.156708),
        (200, 0.90504280, 0.308151),
        (500, 0.53525041, 0.681725),
        (1000, 0.08178379, 0.958236),
        (1500, 0.00355600, 0.998220),
        (2000, 0.00004386, 0.999978),
    ],
)
def test_sr3_schedule(t: int, expected: float, weight: float) -> None:
    assert abar(SR3, t) == pytest.approx(expected, abs=6e-9)
    row = level(SR3.lambda_at(torch.tensor(t / 2000, dtype=torch.float64)))
    assert float(strength(row, 1)) == pytest.approx(weight, abs=6e-7)


def test_sr3_strength_over_time() -> None:
    rows = level(SR3.table)
    for p, mean in ((1, 0.8015), (2, 0.7201), (3, 0.6717)):
        assert float(strength(rows, p).mean()) == pytest.approx(mean, abs=6e-5)
    first = strength(rows, 1)
    assert int((first >= 0.5).nonzero()[0]) + 1 == 340
    assert int((first >= 0.9).nonzero()[0]) + 1 == 815


def test_t1000_ends_short_of_noise() -> None:
    process = Process(ProcessConfig("linear", 1000, 1e-6, 1e-2))
    assert abar(process, 1000) == pytest.approx(0.00662264, abs=6e-9)
    weights = strength(level(process.table), 1)
    assert int((weights >= 0.5).nonzero()[0]) + 1 == 241
    assert float(weights.mean()) == pytest.approx(0.7196, abs=6e-5)


def test_reduced_betas_do_not_reach_noise() -> None:
    """Fewer rows need larger betas: the end points of T = 2000 over 100 rows stop at abar = .605."""
    short = Process(ProcessConfig("linear", 100, 1e-6, 1e-2))
    scaled = Process(ProcessConfig("linear", 100, 2e-5, 2e-1))
    assert abar(short, 100) == pytest.approx(0.605, abs=1e-3)
    assert abar(scaled, 100) == pytest.approx(2.15e-5, rel=5e-3)


def test_cosine_is_a_quarter_turn() -> None:
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    rows = level(COSINE.lambda_at(t))
    torch.testing.assert_close(rows[:, 0], torch.cos(math.pi / 2 * t))
    torch.testing.assert_close(rows[:, 1], torch.sin(math.pi / 2 * t))


@pytest.mark.parametrize("process", ALL)
def test_level_is_the_inverse_of_lambda(process: Process) -> None:
    lam = torch.linspace(-20, 20, 161, dtype=torch.float64).view(7, 23)
    alpha, sigma = process.level(lam).unbind(-1)
    torch.testing.assert_close(torch.log(alpha / sigma), lam, rtol=0, atol=1e-12)
    relation = {"flow": alpha + sigma, "resshift": alpha + (sigma / process.config.kappa) ** 2}
    whole = relation.get(process.config.schedule, alpha**2 + sigma**2)
    torch.testing.assert_close(whole, torch.ones_like(lam), rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", ALL)
def test_time_is_the_inverse_of_lambda(process: Process) -> None:
    lam = torch.linspace(*process.span, 31, dtype=torch.float64)
    torch.testing.assert_close(process.lambda_at(process.time_at(lam)), lam, rtol=0, atol=1e-9)


@pytest.mark.parametrize("process", ALL)
def test_all_is_computed_in_float64(process: Process) -> None:
    exact = torch.tensor([0.25, 0.75])  # in float32, too
    for of in (process.level, process.lambda_at, process.time_at):
        assert torch.equal(of(exact), of(exact.double()))


@pytest.mark.parametrize("process", [SR3, DDPM, COSINE])
@pytest.mark.parametrize("steps", [1, 2, 4, 50])
@pytest.mark.parametrize("grid", ["lambda", "time"])
def test_levels_run_from_noise_to_the_picture(process: Process, steps: int, grid: Grid) -> None:
    levels = process.levels(steps, grid)
    assert levels.dtype == torch.float64
    assert levels.shape == (steps + 1, 2)
    assert levels[-1].tolist() == [1.0, 0.0]
    assert bool((levels[:, 0].diff() > 0).all())
    torch.testing.assert_close(levels.square().sum(1), torch.ones(steps + 1, dtype=torch.float64))
    torch.testing.assert_close(levels[0], level(torch.tensor(process.span[0], dtype=torch.float64)))


@pytest.mark.parametrize("process", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("grid", get_args(Grid))
def test_every_grid_of_every_process(process: Process, steps: int, grid: Grid) -> None:
    levels = process.levels(steps, grid)
    assert levels.shape == (steps + 1, 2)
    assert levels[-1].tolist() == [1.0, 0.0]
    lam = torch.log(levels[:-1, 0] / levels[:-1, 1])
    assert bool((lam.diff() > 0).all())
    assert float(lam[0]) == pytest.approx(process.span[0])
    if grid in ("lambda", "karras") and steps > 1:
        assert float(lam[-1]) == pytest.approx(process.span[1])


def test_lambda_grid_is_uniform_between_its_ends() -> None:
    levels = COSINE.levels(5, "lambda", (-3.0, 1.0))
    lam = torch.log(levels[:-1, 0] / levels[:-1, 1])
    torch.testing.assert_close(lam, torch.linspace(-3, 1, 5, dtype=torch.float64))


def test_the_default_grid_is_uniform_in_lambda_and_explicit_grids_are_kept() -> None:
    assert torch.equal(COSINE.levels(5), COSINE.levels(5, "lambda"))
    lambdas = torch.tensor([-3.0, 0.0, 1.0], dtype=torch.float64)
    levels = COSINE.levels_at(lambdas)
    torch.testing.assert_close(torch.log(levels[:-1, 0] / levels[:-1, 1]), lambdas)
    assert levels[-1].tolist() == [1, 0]


def test_time_grid_of_the_whole_table_is_the_table() -> None:
    levels = DDPM.levels(1000, "time")
    torch.testing.assert_close(levels[:-1], level(DDPM.table.flip(0)), rtol=0, atol=1e-9)


def test_time_grid_that_repeats_a_level_names_the_largest_step_count() -> None:
    with pytest.raises(UsageError, match=r"1001 steps.*above 1000") as raised:
        DDPM.levels(1001, "time")
    assert "at most 1000" in raised.value.hint


def test_time_grid_of_a_table_that_rounding_would_cut() -> None:
    """1 / (1 / 93) is below 93 in floating point."""
    assert len(Process(ProcessConfig("linear", 93)).levels(93, "time")) == 94


def test_karras_grid() -> None:
    """arXiv 2206.00364, Eq. 5, in sigma / alpha."""
    alpha, sigma = COSINE.levels(6, "karras", (-3.0, 2.0))[:-1].unbind(-1)
    ends = math.exp(3) ** (1 / 7), math.exp(-2) ** (1 / 7)
    expected = [(ends[0] + i / 5 * (ends[1] - ends[0])) ** 7 for i in range(6)]
    assert (sigma / alpha).tolist() == pytest.approx(expected)


def test_quadratic_grid() -> None:
    """On the cosine schedule the angle of a level is pi / 2 t."""
    alpha, sigma = COSINE.levels(8, "quadratic")[:-1].unbind(-1)
    t = 2 / math.pi * torch.atan2(sigma, alpha)
    assert (t / t[0]).tolist() == pytest.approx([(1 - i / 8) ** 2 for i in range(8)])


@pytest.mark.parametrize(
    ("process", "grid", "largest", "what"),
    [
        (DDPM, "quadratic", 31, "the square root of time"),
        (RESSHIFT, "time", 15, "time"),
        (RESSHIFT, "quadratic", 3, "the square root of time"),
        # t = 2 / pi atan(e^-lambda): .98834 and .0070720 at the ends
        (COSINE, "time", 139, "time"),
        (COSINE, "quadratic", 11, "the square root of time"),
        (FLOW, "time", 89, "time"),
    ],
)
def test_grids_in_time_name_the_largest_step_count(process: Process, grid: Grid, largest: int, what: str) -> None:
    assert len(process.levels(largest, grid)) == largest + 1
    with pytest.raises(
        UsageError,
        match=f"{largest + 1} steps.* uniform in {what} leaves the levels the model knows above {largest}$",
    ):
        process.levels(largest + 1, grid)


@pytest.mark.parametrize(
    ("lambdas", "words"),
    [
        ([0.0, 0.0], "repeats a level"),
        ([1.0, 0.5], "more noise"),
        ([-9.0, 0.0], "knows -4"),
        ([0.0, 9.0], "to 9.000; this model knows -4.000 to 4.500"),
    ],
)
def test_bad_explicit_grids(lambdas: list[float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        COSINE.levels_at(torch.tensor(lambdas))


def test_no_steps() -> None:
    with pytest.raises(UsageError, match="0 steps"):
        COSINE.levels(0)


def test_anchored_variables() -> None:
    x, anchor = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(COSINE.to_u(x, anchor), 2 * (x - anchor))
    torch.testing.assert_close(COSINE.to_x(COSINE.to_u(x, anchor), anchor), x)
    assert torch.equal(SR3.to_u(x, anchor), x)
    assert torch.equal(SR3.to_x(x, anchor), x)
    twice = Process(replace(SR3.config, k=2.0))
    assert torch.equal(twice.to_u(x, anchor), 2 * x)
    assert torch.equal(twice.to_x(2 * x, anchor), x)
    assert twice.clip(torch.tensor([-3.0, -0.5, 0.5, 3.0]), anchor).tolist() == [-2, -0.5, 0.5, 2]


@pytest.mark.parametrize("process", [COSINE, SR3])
def test_levels_drawn_along_lambda_are_uniform_in_it(process: Process) -> None:
    uniform = torch.linspace(0, 1, 1001, dtype=torch.float64)
    first = torch.arange(1001) % 10 == 5
    rows = process.draw(uniform, first, "lambda")
    lam = torch.log(rows[:, 0] / rows[:, 1])
    noise, image = process.span
    torch.testing.assert_close(lam[~first], (image + (noise - image) * uniform)[~first])
    torch.testing.assert_close(lam[first], torch.full((100,), noise, dtype=torch.float64))


def test_drawn_levels_cover_the_range_and_the_first_level_has_its_share() -> None:
    uniform = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:-1]
    first = torch.arange(10_000) % 10 == 0
    rows = COSINE.draw(uniform, first)
    lam = torch.log(rows[:, 0] / rows[:, 1])
    assert float(lam[first].max()) == pytest.approx(-4)
    assert float(lam[~first].min()) == pytest.approx(-4, abs=0.05)
    assert float(lam[~first].max()) == pytest.approx(4.5, abs=0.05)
    t = COSINE.time_at(lam[~first])
    ends = COSINE.time_at(torch.tensor([-4.0, 4.5]))
    assert float(t.mean()) == pytest.approx(float(ends.mean()), abs=1e-3)
