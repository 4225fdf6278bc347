"""What a step of training costs with DREAM and without."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from dream_runs import CPU, SHARED, Trial
from timing import Case, interleaved

from dreamsr.config import TrainConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.process import Process
from dreamsr.data import dataset
from dreamsr.engine import optimize
from dreamsr.files import images

REPEATS = 61


@dataclass(frozen=True)
class Cost:
    """Seconds that a step of training takes."""

    method: str
    seconds: float


def seconds_a_step(photos: Path) -> list[Cost]:
    """Medians of steps that take turns, on the photos of a folder."""
    with TemporaryDirectory() as folder:
        loaded, _ = dataset.load(images.find(photos), SHARED.crop, Path(folder) / "photos.u8")
        cases = {trial.method: step(trial.config, loaded) for trial in (Trial("off"), Trial(1.0))}
        return [Cost(method, round(seconds, 5)) for method, seconds in interleaved(cases, REPEATS).items()]


def step(config: TrainConfig, photos: dataset.Photos) -> Case:
    """A step of training, from nothing."""
    state = optimize.new_state(config, CPU)
    denoiser = Denoiser(state.network, Process(config.model.process), config.model.prediction)
    return partial(optimize.optimizer_step, config, state, denoiser, photos, CPU, torch.float32)
