"""The study of DREAM in benchmarks/: runs that differ in what is studied alone, and what is said of their scores."""

import math
import shutil
from itertools import product
from pathlib import Path

import dream_runs
import dream_scores
import numpy as np
import pytest
import records
import torch
from dream_cost import Cost
from dream_discrepancy import errors
from dream_findings import Group, difference, reached, resampled_means, speedup
from dream_runs import LAST, PAIRED, POINTS, TRIALS, Trial, follow, load, weights
from dream_scores import Score, measured
from oracles import gaussian, points
from torch import Tensor

from dreamsr.config import ModelConfig, NetworkConfig, TrainConfig
from dreamsr.core.process import level
from dreamsr.engine.measure import Measure
from dreamsr.engine.optimize import learning_rate
from dreamsr.tables import to_dict

ROOT = Path(__file__).resolve().parents[1]
TINY = ModelConfig(network=NetworkConfig(widths=(8, 16), blocks=1, encoder_blocks=1))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> Path:
    """A study of a few steps on small photos; the folder of its data."""
    monkeypatch.setattr(dream_runs, "SHARED", TrainConfig(TINY, batch=2, crop=32, warmup=2, cooldown=0.0, save_every=2))
    monkeypatch.setattr(dream_runs, "POINTS", (2, 4))
    monkeypatch.setattr(dream_runs, "EQUAL_TIME", 6)
    data = tmp_path / "data"
    for part in ("train", "val"):
        shutil.copytree(photos, data / part)
    return data


def test_runs_differ_in_exponent_and_seed_alone() -> None:
    documents = [to_dict(trial.config) for trial in TRIALS]
    differing = {key for key in documents[0] if any(d[key] != documents[0][key] for d in documents)}
    assert differing == {"dream_p", "seed", "steps"}
    for step, trial in product(range(LAST), (Trial("off"), Trial(1.0))):
        assert learning_rate(trial.config, step) == learning_rate(TRIALS[0].config, step)


def test_a_point_is_the_end_of_a_run_of_that_length(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(1.0, seed=5)
    follow(trial, small, tmp_path / "long")
    monkeypatch.setattr(dream_runs, "POINTS", (2,))
    follow(trial, small, tmp_path / "short")
    pairs = zip(
        load(tmp_path / "long", trial, 2).network.parameters(),
        load(tmp_path / "short", trial, 2).network.parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not weights(tmp_path / "short", trial, 4).exists()


def test_what_is_measured_is_not_measured_again(
    small: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, missing = Trial("off", seed=1), Trial(1.0, seed=1)
    follow(done, small, tmp_path)
    monkeypatch.setattr(dream_scores, "wanted", lambda: [(done, 2, 1), (done, 6, 2), (missing, 2, 1)])
    measure = Measure(colors=("y",), lpips=lambda a, b: 0.0)  # type: ignore[arg-type]
    (first, second) = measured(tmp_path, photos, measure, [])
    assert {(s.method, s.seed, s.trained, s.steps) for s in first + second} == {("plain", 1, 2, 1), ("plain", 1, 6, 2)}
    assert [s.picture for s in first] == ["astronaut", "chelsea", "coffee", "rocket"]
    assert list(measured(tmp_path, photos, measure, first)) == [second]


def test_errors_agree_for_the_true_denoiser() -> None:
    u_0, eps = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)
    training, sampling = errors(points(u_0[0]), u_0, eps, _levels(9))
    assert training == pytest.approx([0.0] * 9, abs=1e-20)
    assert sampling == pytest.approx([0.0] * 9, abs=1e-20)


def test_errors_of_the_best_denoiser_have_a_gap() -> None:
    """For u_0 ~ N(0, v): the posterior's variance in training; in sampling u_t knows nothing of u_0."""
    v, generator = 0.25, torch.Generator().manual_seed(0)
    u_0, eps = torch.randn(2, 40_000, dtype=torch.float64, generator=generator)
    levels = _levels(100)
    found = errors(gaussian(torch.zeros(()), torch.tensor(v)), v**0.5 * u_0, eps, levels)
    alpha, sigma = levels[:-1].unbind(1)
    total = alpha**2 * v + sigma**2
    exact = v * sigma**2 / total, v + (alpha * v) ** 2 / total
    for errors_, expected in zip(found, exact, strict=True):
        torch.testing.assert_close(torch.tensor(errors_, dtype=torch.float64), expected, rtol=0.03, atol=0)


def test_intervals_over_seeds_and_pictures() -> None:
    """Means of two seeds drawn from {0, 1} are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4."""
    means = resampled_means(np.array([[0.0] * 5, [1.0] * 5]))
    assert [np.isclose(means, value).mean() for value in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert resampled_means(np.ones((2, 3, 14))) == pytest.approx(np.ones((len(means), 2)))
    pictures = resampled_means(np.tile(np.arange(14.0), (3, 1)))
    assert pictures.std() == pytest.approx((195 / 12 / 14) ** 0.5, rel=0.03)


def test_a_constant_difference_has_no_spread() -> None:
    found = difference(_scores(), Group("p = 1", 480, 4), Group("plain", 480, 4), "psnr_y")
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


def test_twice_as_fast_is_two() -> None:
    """Scores that rise by 1 with every doubling of the steps, p = 1 ahead by 1."""
    curve = [Group("p = 1", trained, 4) for trained in POINTS]
    for key in ("psnr_y", "lpips"):
        found = speedup(_scores(), curve, Group("plain", LAST, 4), key)
        assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_where_a_curve_reaches_a_goal() -> None:
    steps, curve = (100, 200, 400), (1.0, 2.0, 3.0)
    assert reached(steps, curve, 0.5) == 100
    assert reached(steps, curve, 2.5) == pytest.approx(200 * 2**0.5)
    assert reached(steps, curve, 3.5) == float("inf")


def test_records_survive(tmp_path: Path) -> None:
    known = [Cost("plain", 0.25), Cost("p = 1", 1e-9)]
    records.write(tmp_path / "costs.csv", known)
    assert records.read(Cost, tmp_path / "costs.csv") == known
    assert records.read(Cost, tmp_path / "none.csv") == []


def test_the_page_is_made_from_the_records(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    import dream_report
    from dream import COSTS, GAPS, SCORES
    from dream_discrepancy import Gap

    page = ROOT / "docs" / "dream.md"
    (tmp_path / "figures").mkdir()
    copy = tmp_path / "dream.md"
    copy.write_text(page.read_text())
    dream_report.write(copy, records.read(Score, SCORES), records.read(Gap, GAPS), records.read(Cost, COSTS))
    assert copy.read_text() == page.read_text()
    figures = {path.name: path.stat().st_size for path in (tmp_path / "figures").iterdir()}
    assert figures.keys() == {path.name for path in (ROOT / "docs" / "figures").glob("dream-*.svg")}
    assert max(figures.values()) < 100_000


def _levels(count: int) -> Tensor:
    rows = level(torch.linspace(-4, 4, count, dtype=torch.float64))
    return torch.cat([rows, torch.tensor([[1.0, 0.0]], dtype=torch.float64)])


def _scores() -> list[Score]:
    """Pictures and seeds differ, methods and steps of training by whole numbers."""
    return [
        Score(trial.method, trial.seed, trained, 4, f"picture {i}", value, value, -value, value)
        for trial in PAIRED
        for trained in POINTS
        for i in range(4)
        for value in (math.log2(trained) + (trial.p != "off") + 0.3 * i + 0.7 * trial.seed,)
    ]
