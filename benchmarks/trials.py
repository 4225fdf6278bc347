"""Recipes and networks trained for equal time: writes the table of trials in docs/training.md.

    python scripts/split_by_photo.py PHOTOS runs/data
    python benchmarks/trials.py --threads 1

A trial that is in docs/figures/trials.csv is not done again. LPIPS needs its weights ($DREAMSR_LPIPS_WEIGHTS).
The table alone is written by: python benchmarks/trials.py --only report
"""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import pages
import records
import torch
from dream_cost import step
from dream_runs import CPU
from sections import flops
from timing import interleaved

from dreamsr.config import TrainConfig
from dreamsr.data import dataset
from dreamsr.engine import optimize
from dreamsr.engine.device import keep_memory, set_threads
from dreamsr.engine.evaluator import Benchmark, Sampled
from dreamsr.engine.measure import Measure, load_lpips
from dreamsr.engine.schedule import Settings
from dreamsr.engine.sources import by_name
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import images
from dreamsr.files.checkpoint import Model
from dreamsr.tables import apply_overrides, from_dict

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "docs" / "figures" / "trials.csv"
PAGE = ROOT / "docs" / "training.md"
MARK = "<!-- measured: python benchmarks/trials.py --only report -->"
SHARED = (
    "model.network.widths=[32, 64, 96]",
    "model.network.encoder_blocks=4",
    "batch=16",
    "crop=64",
    "lr=1e-3",
    "warmup=50",
    "ema=0.99",
)
"""A network small enough that minutes teach it something."""
TRIALS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "base": {"seed 0": (), "seed 1": ("seed=1",)},
    "loss": {
        "L1": ("loss=l1",),
        "weight min(1 + SNR, 5)": ("snr_cap=5",),
        "predicts eps": ("model.prediction=eps",),
        "predicts v": ("model.prediction=v",),
        "plain diffusion": ("dream_p=off",),
    },
    "network": {
        "patch 2": (
            "model.network.patch=2",
            "model.network.widths=[24, 48, 64, 96]",
            "model.network.blocks=[1, 1, 2, 2]",
        ),
        "more in the encoder": ("model.network.encoder_blocks=8",),
        "no encoder": ("model.network.encoder_blocks=0",),
        "deeper below": ("model.network.blocks=[1, 2, 4]",),
        "one block a level": ("model.network.blocks=1", "model.network.encoder_blocks=2"),
        "wider above": ("model.network.widths=[48, 64, 96]",),
        "two levels": ("model.network.widths=[32, 96]",),
    },
    "levels": {
        "uniform in lambda": ("levels=lambda",),
        "lambda to 2 alone": ("model.process.lambda_image=2",),
        "none more at the first": ("first_level=0",),
        "a quarter at the first": ("first_level=0.25",),
        "k = 1": ("model.process.k=1", "model.sampling.lambda_end=2.7"),
        "k = 4": ("model.process.k=4", "model.sampling.lambda_end=1.3"),
    },
    "steps": {
        "half the rate": ("lr=5e-4",),
        "twice the rate": ("lr=2e-3",),
        "average over 1000 steps": ("ema=0.999",),
        "32 crops of 64": ("batch=32",),
        "7 crops of 96": ("batch=7", "crop=96"),
        "Muon": ("optimizer=muon",),
        "Muon, and L1": ("optimizer=muon", "loss=l1"),
    },
}
REPEATS = 15
"""Of the steps that are timed, in turns with those of the base."""
NOISE_SCALES = (1.0, 1.15)
"""Every recipe has a scale of its own that serves it best."""


@dataclass(frozen=True)
class Result:
    """What a recipe came to in its time."""

    group: str
    name: str
    parameters: int
    flops_1: float
    """FLOP an output pixel, 1 step of sampling."""
    flops_4: float
    steps: int
    """Of training, in the same time for all."""
    psnr_1: float
    lpips_1: float
    psnr_4: float
    lpips_4: float
    """At the noise scale where it is least."""
    noise_scale: float


def configuration(overrides: tuple[str, ...]) -> TrainConfig:
    return from_dict(TrainConfig, apply_overrides(TrainConfig, {}, (*SHARED, *overrides)))


def trained(config: TrainConfig, photos: dataset.Photos) -> Model:
    """The average of the weights at the end of a run."""
    state = optimize.new_state(config, CPU)
    for _ in islice(optimize.train(config, state, photos, CPU, torch.float32), config.steps):
        pass
    return Model(config.model, state.ema, {})


def scores(model: Model, pictures: Path, measure: Measure, steps: int) -> tuple[float, float]:
    """Means of (PSNR-Y, LPIPS) over every third picture of a folder."""
    chosen = dict(list(by_name(pictures).items())[::3])
    contender = Sampled("model", Upscaler(model.to(CPU), Settings(steps=steps)))
    rows = list(Benchmark(chosen, [contender], measure, model.config.scale).rows())
    return mean(row.scores["psnr_y"] for row in rows), mean(row.scores["lpips"] for row in rows)


def run(group: str, name: str, base_steps: int, data: Path, measure: Measure) -> Result:
    """Train for as long as the base takes for its steps, then measure."""
    config, base = configuration(TRIALS[group][name]), configuration(())
    with TemporaryDirectory() as folder:
        photos, _ = dataset.load(images.find(data / "train"), config.crop, Path(folder) / "photos.u8")
        seconds = interleaved({"base": step(base, photos), "trial": step(config, photos)}, REPEATS)
        config = replace(config, steps=round(base_steps * seconds["base"] / seconds["trial"]))
        model = trained(config, photos)
    return measured(group, name, model, config.steps, data / "val", measure)


def measured(group: str, name: str, model: Model, steps: int, pictures: Path, measure: Measure) -> Result:
    encoder, each = flops(model)
    single = scores(model, pictures, measure, 1)
    several = {scale: scores(with_noise(model, scale), pictures, measure, 4) for scale in NOISE_SCALES}
    best = min(several, key=lambda scale: several[scale][1])
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    return Result(group, name, parameters, encoder + each, encoder + 4 * each, steps, *single, *several[best], best)


def with_noise(model: Model, scale: float) -> Model:
    config = model.config
    return replace(model, config=replace(config, sampling=replace(config.sampling, noise_scale=scale)))


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    rows = []
    for r in results:
        cost = f"{r.flops_1 / 1e3:.0f} / {r.flops_4 / 1e3:.0f}"
        few = _pair(r.psnr_1, r.lpips_1), _pair(r.psnr_4, r.lpips_4)
        rows.append(
            [f"{r.group}: {r.name}", str(r.steps), f"{r.parameters / 1e6:.2f}", cost, *few, f"{r.noise_scale:g}"]
        )
    header = ["trial", "steps", "params, M", "kFLOP a pixel, 1 / 4 steps", "1 step", "4 steps", "noise scale"]
    return pages.table(header, rows)


def _pair(psnr: float, lpips: float) -> str:
    return f"{psnr:.2f} / " + f"{lpips:.3f}".removeprefix("0")


def report() -> None:
    pages.replace(PAGE, MARK, table(records.read(Result, FOUND)))


def follow(groups: Collection[str], steps: int, data: Path, measure: Measure) -> None:
    """Do the trials of the groups that are not done yet."""
    for group in groups:
        for name in TRIALS[group]:
            results = records.read(Result, FOUND)
            if (group, name) not in {(result.group, result.name) for result in results}:
                results.append(run(group, name, steps, data, measure))
                records.write(FOUND, results)
                print(results[-1], file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["report", *TRIALS], action="append", help="groups to run (default: all)")
    parser.add_argument("--data", type=Path, default=Path("runs/data"), help="photos: train/ and val/")
    parser.add_argument("--steps", type=int, default=800, help="steps of the base; the others get the same time")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    set_threads(options.threads)
    keep_memory()
    if options.only != ["report"]:
        lpips = load_lpips(None)
        if lpips is None:
            raise UsageError("trials are judged by LPIPS, whose weights were not found", "set $DREAMSR_LPIPS_WEIGHTS")
        groups = [group for group in options.only or TRIALS if group != "report"]
        follow(groups, options.steps, options.data, Measure(lpips=lpips, colors=("y",)))
    report()


if __name__ == "__main__":
    try:
        main()
    except DreamSRError as error:
        raise SystemExit(f"error: {error}") from None
