"""Every process through the program: trained for a few steps, then sampled."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import Program, load, small
from torch import Tensor

from dreamsr.config import Grid, Prediction, ProcessConfig, SamplerName
from dreamsr.core import sampling
from dreamsr.core.process import Process
from dreamsr.core.sampling import SAMPLERS, Step, solve

TINY = ["model.network.widths=[8, 16]", "model.network.blocks=1", "model.network.encoder_blocks=1"]
SHORT = ["steps=2", "batch=2", "crop=32", "warmup=1", "val_every=2"]
# process, what the network predicts, sampler, grid, steps
RUNS: dict[str, tuple[ProcessConfig, Prediction, SamplerName, Grid, int]] = {
    "linear": (ProcessConfig("linear"), "v", "unipc", "lambda", 4),
    "flow": (ProcessConfig("flow"), "flow", "ddim", "time", 4),
    "resshift": (ProcessConfig("resshift", 15), "x0", "resshift", "time", 15),
    "resshift, 4 rows": (ProcessConfig("resshift", 4, noise_start=0.2), "eps", "deis", "lambda", 4),
}


@pytest.mark.parametrize("name", RUNS)
def test_train_and_upscale(name: str, program: Program, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, prediction, sampler, grid, steps = RUNS[name]
    process = Process(config)
    model = {
        "prediction": prediction,
        "process.schedule": config.schedule,
        "process.table": config.table,
        "process.noise_start": config.noise_start,
        "sampling.sampler": sampler,
        "sampling.grid": grid,
        "sampling.steps": steps,
        "sampling.lambda_start": process.span[0],
        "sampling.lambda_end": process.span[1],
    }
    overrides = [f"model.{key}={value}" for key, value in model.items()]
    shutil.copytree(photos, "val")
    code, _, err = program("train", "--data", photos, "--val", "val", "--out", "run", *SHORT, *TINY, *overrides)
    assert code == 0, err
    assert "step 2: PSNR-Y of held-out photos" in err

    runs: list[tuple[Tensor, Tensor]] = []

    def spy(denoise: Any, u: Tensor, levels: Tensor, *rest: Any) -> Iterator[Step]:
        runs.append((u.clone(), levels))
        assert rest[0] == SAMPLERS[sampler]
        return solve(denoise, u, levels, *rest)

    monkeypatch.setattr(sampling, "solve", spy)
    small(Path("small.png"))
    assert program("upscale", "small.png", "large.png", "-m", "run")[0] == 0
    assert load("large.png").size == (120, 80)
    ((u, levels),) = runs
    torch.testing.assert_close(levels, process.levels(steps, grid))
    # the anchor alone and noise: nothing of the picture
    assert float(u.std()) == pytest.approx(float(levels[0, 1]), rel=0.02)
    assert float(u.mean()) == pytest.approx(0, abs=0.02 * float(levels[0, 1]))
