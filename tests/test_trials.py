"""The trials of equal time in benchmarks/: what they compare, and that a slower recipe gets fewer steps."""

from pathlib import Path
from typing import Any

import pytest
import records
import trials

from dreamsr.engine.measure import Measure
from dreamsr.files.checkpoint import Model
from dreamsr.tables import to_dict

TINY = (
    "model.network.widths=[8, 16]",
    "model.network.blocks=1",
    "model.network.encoder_blocks=1",
    "batch=2",
    "crop=32",
    "warmup=1",
)


def test_trials_differ_from_the_base_in_what_they_name_alone() -> None:
    base = _leaves(to_dict(trials.configuration(())))
    for group, named in trials.TRIALS.items():
        for name, overrides in named.items():
            trial = _leaves(to_dict(trials.configuration(overrides)))
            changed = {key for key in base if trial[key] != base[key]}
            assert changed == {text.partition("=")[0] for text in overrides}, (group, name)


def test_a_recipe_that_is_twice_as_slow_gets_half_the_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for part in ("train", "val"):
        (data / part).symlink_to(photos)
    monkeypatch.setattr(trials, "FOUND", tmp_path / "trials.csv")
    monkeypatch.setattr(trials, "SHARED", TINY)
    monkeypatch.setattr(trials, "NOISE_SCALES", (1.0,))
    monkeypatch.setattr(trials, "interleaved", lambda cases, _: {"base": 1.0, "trial": 2.0})
    monkeypatch.setattr(trials, "TRIALS", {"base": {"seed 0": ()}, "loss": {"L1": ("loss=l1",)}})
    measure = Measure(colors=("y",), lpips=lambda a, b: float((a - b).abs().mean()))  # type: ignore[arg-type]
    trials.follow(["loss"], 6, data, measure)
    (result,) = records.read(trials.Result, tmp_path / "trials.csv")
    assert (result.group, result.name, result.steps) == ("loss", "L1", 3)
    assert result.flops_4 > result.flops_1 > 0

    monkeypatch.setattr(trials, "run", lambda *given: pytest.fail(f"done again: {given}"))
    trials.follow(["loss"], 6, data, measure)


def test_of_the_noise_scales_the_one_of_the_least_lpips_is_kept(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lpips = {(1, 1.0): 0.5, (4, 1.0): 0.4, (4, 1.15): 0.3}

    def scores(model: Model, pictures: Path, measure: Measure, steps: int) -> tuple[float, float]:
        return 10.0 * steps, lpips[steps, model.config.sampling.noise_scale]

    monkeypatch.setattr(trials, "scores", scores)
    found = trials.measured("loss", "L1", tiny_model, 7, tmp_path, Measure())
    assert (found.psnr_1, found.lpips_1, found.psnr_4, found.lpips_4, found.noise_scale) == (10, 0.5, 40, 0.3, 1.15)


def test_the_table_of_the_docs_is_that_of_the_records() -> None:
    results = records.read(trials.Result, trials.FOUND)
    assert trials.table(results) in trials.PAGE.read_text()
    assert {(r.group, r.name) for r in results} <= {(g, name) for g, named in trials.TRIALS.items() for name in named}


def _leaves(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
