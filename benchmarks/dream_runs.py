"""The runs of the study of DREAM: what they share, how they differ, and the weights along each of them."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dreamsr.config import ModelConfig, NetworkConfig, TrainConfig
from dreamsr.core.dream import Exponent
from dreamsr.engine import runs, trainer
from dreamsr.files import checkpoint
from dreamsr.files.checkpoint import Model

CPU = torch.device("cpu")
POINTS = (120, 240, 480, 960, 1920)
"""Steps at which the averaged weights are kept."""
LAST = POINTS[-1]
HALF = POINTS[-2]
"""Steps after which all exponents are compared."""
EQUAL_TIME = 2400
"""Steps of plain diffusion, each cheaper than DREAM's, that take no less time than the last of POINTS."""
SHARED = TrainConfig(
    model=ModelConfig(name="dream-study", network=NetworkConfig(widths=(32, 64, 96), encoder_blocks=4)),
    batch=8,
    crop=64,
    lr=1e-3,
    warmup=60,
    cooldown=0.0,  # a constant rate, as in the paper: every point is the end of a run of that length
    save_every=120,
    val_every=EQUAL_TIME,
)


@dataclass(frozen=True)
class Trial:
    """A run of the study: DREAM's exponent and the seed of everything random."""

    p: Exponent
    seed: int = 0

    @property
    def method(self) -> str:
        return "plain" if self.p == "off" else f"p = {self.p:g}"

    @property
    def name(self) -> str:
        return f"{self.method.replace(' = ', '')}-{self.seed}"

    @property
    def points(self) -> tuple[int, ...]:
        """Steps at which the averaged weights are kept; the last one ends the run."""
        points = {"off": (*POINTS, EQUAL_TIME), 1.0: POINTS}
        return points.get(self.p, tuple(n for n in POINTS if n <= HALF))

    @property
    def config(self) -> TrainConfig:
        return replace(SHARED, dream_p=self.p, seed=self.seed, steps=self.points[-1])


PAIRED = tuple(Trial(p, seed) for seed in range(3) for p in ("off", 1.0))
TRIALS = (*PAIRED, *(Trial(p) for p in (2.0, 0.0, 3.0, 0.5)))


def follow(trial: Trial, data: Path, out: Path) -> None:
    """Train on `data`/train in a folder of `out`, or go on there; the weights of every point are kept beside."""
    if weights(out, trial, trial.points[-1]).exists():
        return
    folder = out / trial.name
    begun = (folder / runs.STATE).exists()
    run = runs.reopen(folder) if begun else runs.create(trial.config, data / "train", data / "val", folder)
    for event in trainer.fit(run, folder, CPU, torch.float32):
        if isinstance(event, trainer.Saved) and event.step in trial.points:
            shutil.copyfile(event.weights, weights(out, trial, event.step))


def weights(out: Path, trial: Trial, step: int) -> Path:
    """Where the averaged weights of a point are."""
    return out / trial.name / f"step-{step}.safetensors"


def load(out: Path, trial: Trial, step: int) -> Model:
    """The averaged weights of a point, ready to run."""
    return checkpoint.load_model(weights(out, trial, step)).to(CPU)
