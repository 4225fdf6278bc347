"""Options, tuning and model become a schedule."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import TINY

from dreamsr.config import ModelConfig, ProcessConfig, SamplingConfig, TunedGrid
from dreamsr.engine.schedule import Schedule, Settings, schedule
from dreamsr.errors import UsageError

TUNED = TunedGrid("dpmpp-2m", (-3.5, -1.0, 0.5), 1.2, "digest", "lpips", "photos")
MODEL = replace(TINY, sampling=SamplingConfig(tuned=(TUNED,), noise_scale=1.1))


def lambdas(found: Schedule) -> list[float]:
    rows = found.levels[:-1]
    return torch.log(rows[:, 0] / rows[:, 1]).tolist()


def test_the_default_is_the_models_own() -> None:
    found = schedule(MODEL, Settings())
    assert (found.name, found.steps, found.noise_scale) == ("ddim", 4, 1.1)
    assert lambdas(found) == pytest.approx([-4, -2, 0, 2])


def test_auto_is_what_was_tuned_for_this_number_of_steps() -> None:
    found = schedule(MODEL, Settings(steps=3))
    assert (found.name, found.noise_scale) == ("dpmpp-2m", 1.2)
    assert lambdas(found) == pytest.approx(TUNED.lambdas)


@pytest.mark.parametrize("asked", [Settings(3, "ddim"), Settings(3, grid="lambda"), Settings(3, "ddim", "lambda")])
def test_what_is_asked_for_is_not_tuned(asked: Settings) -> None:
    found = schedule(MODEL, asked)
    assert (found.name, found.noise_scale) == ("ddim", 1.1)
    assert lambdas(found) == pytest.approx([-4, -1, 2])


def test_explicit_levels_set_the_number_of_steps() -> None:
    found = schedule(MODEL, Settings(grid="-3,0.1", sampler="ddim"))
    assert found.steps == 2
    assert lambdas(found) == pytest.approx([-3, 0.1], rel=1e-12)


@pytest.mark.parametrize("asked", [Settings(steps=1), Settings(fidelity=1), Settings(steps=9, fidelity=1)])
def test_full_fidelity_is_one_step_at_the_noisiest_level(asked: Settings) -> None:
    found = schedule(MODEL, asked)
    assert (found.steps, found.noise_scale, found.name) == (1, 1.0, "ddim")
    assert lambdas(found) == pytest.approx([MODEL.process.lambda_noise])


def test_a_model_of_full_fidelity_takes_one_step_unless_asked() -> None:
    own = replace(TINY, sampling=SamplingConfig(fidelity=1.0))
    assert schedule(own, Settings(steps=4)).steps == 1
    assert schedule(own, Settings(steps=4, fidelity=0.5)).steps == 4


def test_a_models_own_sampler_gives_way_where_steps_are_too_few() -> None:
    own = replace(TINY, sampling=SamplingConfig(sampler="dpmpp-3m"))
    names = [schedule(own, Settings(steps=steps)).name for steps in (1, 3, 4)]
    assert names == ["ddim", "ddim", "dpmpp-3m"]


def test_grids_end_where_a_table_does() -> None:
    shift = ModelConfig(process=ProcessConfig("resshift", table=15), sampling=SamplingConfig(lambda_end=4.0))
    found = schedule(shift, Settings(sampler="resshift"))
    assert lambdas(found)[-1] == pytest.approx(3.2185, abs=1e-3)
    short = ModelConfig(process=ProcessConfig("linear", 500, 1e-4, 0.002))  # at its end alpha^2 is 0.592
    kept = math.prod(1 - 1e-4 - i / 499 * 0.0019 for i in range(500))
    assert lambdas(schedule(short, Settings()))[0] == pytest.approx(math.log(kept / (1 - kept)) / 2)


@pytest.mark.parametrize(
    ("asked", "words", "hint"),
    [
        (Settings(2, "dpmpp-2m"), "sampler dpmpp-2m needs at least 3 steps, 2 asked for", "--sampler ddim"),
        (Settings(3, "deis"), "sampler deis needs at least 4 steps", "--steps 4"),
        (Settings(4, "resshift"), "made for ResShift's process; this model has cosine", "--sampler ddpm"),
        (Settings(grid="-4,1,0"), "repeats a level or goes back to more noise", ""),
        (Settings(grid="-4,0,0"), "repeats a level", ""),
        (Settings(grid="-9,0"), "this model knows -4.000 to 4.500", ""),
        (Settings(999, grid="quadratic"), "leaves the levels the model knows above", "use at most"),
    ],
)
def test_what_does_not_fit(asked: Settings, words: str, hint: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        schedule(TINY, asked)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("grid", "steps", "words"),
    [
        ("uniform", None, "grid 'uniform' is unknown"),
        ("-4,nan", None, "grid '-4,nan' is unknown"),
        ("-4,1", 3, "--grid names 2 levels"),
    ],
)
def test_wrong_grids(grid: str, steps: int | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(steps, grid=grid)
