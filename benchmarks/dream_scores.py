"""What the models of the study score, picture by picture."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dream_runs import HALF, LAST, PAIRED, POINTS, TRIALS, Trial, load, weights

from dreamsr.engine.evaluator import Benchmark, Row, Sampled
from dreamsr.engine.measure import Measure
from dreamsr.engine.schedule import Settings
from dreamsr.engine.sources import by_name
from dreamsr.engine.upscaler import Upscaler

FEW, MOST = (1, 4, 10), 50
"""Sampling steps."""
WATCHED = 4
"""Sampling steps at the points along a run."""
MEASURES = ("psnr_y", "ssim_y", "lpips", "psnr_lr")


@dataclass(frozen=True)
class Score:
    """A picture made by a model, against its original."""

    method: str
    seed: int
    trained: int
    """Steps of training."""
    steps: int
    """Steps of sampling."""
    picture: str
    psnr_y: float
    ssim_y: float
    lpips: float
    psnr_lr: float


def measured(out: Path, pictures: Path, measure: Measure, known: Collection[Score]) -> Iterator[list[Score]]:
    """Scores of all weights that are there, less those known; a list for every model and number of steps."""
    done = {(s.method, s.seed, s.trained, s.steps) for s in known}
    for trial, trained, steps in wanted():
        if (trial.method, trial.seed, trained, steps) not in done and weights(out, trial, trained).exists():
            model = load(out, trial, trained)
            contender = Sampled(trial.name, Upscaler(model, Settings(steps=steps)))
            rows = Benchmark(by_name(pictures), [contender], measure, model.config.scale).rows()
            yield [_score(row, trial, trained, steps) for row in rows]


def wanted() -> list[tuple[Trial, int, int]]:
    """(trial, steps of training, steps of sampling), the most important first."""
    ends = [(trial, trained) for trial in PAIRED for trained in trial.points if trained >= LAST]
    on_the_way = [(trial, trained) for trial in PAIRED for trained in POINTS if trained < LAST]
    exponents = [(trial, HALF) for trial in TRIALS if trial.seed == 0]
    found = [(*point, steps) for point in ends for steps in FEW]
    found += [(trial, trial.points[-1], MOST) for trial in PAIRED]
    found += [(*point, WATCHED) for point in on_the_way]
    found += [(*point, steps) for point in exponents for steps in FEW if (*point, steps) not in found]
    return found


def _score(row: Row, trial: Trial, trained: int, steps: int) -> Score:
    found = {key: round(row.scores[key], 4) for key in MEASURES}
    return Score(trial.method, trial.seed, trained, steps, row.picture, **found)
