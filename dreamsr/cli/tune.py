"""`dreamsr tune`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import console, options, setup
from dreamsr.errors import UsageError
from dreamsr.words import counted

if TYPE_CHECKING:
    from dreamsr.data.degrade import Pairs
    from dreamsr.engine.tuner import Candidate, Objective
    from dreamsr.files.checkpoint import Model
    from dreamsr.metrics import LPIPS


def tune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Bundled name, .safetensors file, run folder, or a name on the Hub.")
    ],
    data: Annotated[Path, typer.Option(help="High-resolution pictures; keep them apart from those you measure on.")],
    low: Annotated[
        Path | None, typer.Option(help="Folder of inputs named as those of --data; else they are made from these.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The tuned model (default: MODEL, if it is a file of yours)")
    ] = None,
    steps: Annotated[str, typer.Option(help="Step counts to tune.")] = "2,4,8",
    objective: Annotated[
        Literal["lpips", "psnr"], typer.Option(help="lpips: LPIPS + 1 - SSIM; psnr: PSNR on Y.")
    ] = "lpips",
    pairs: Annotated[int, typer.Option(help="Pictures to tune on, spread over --data.")] = 12,
    trials: Annotated[int, typer.Option(help="Candidates for every step count.")] = 48,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output if it exists.")] = False,
    lpips_weights: options.LpipsWeights = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Search the noise levels and the sampler that a model is best sampled with at few steps.

    The best is written into the model's file, for its weights and this number of steps; `--sampler auto`,
    the default, uses it. The same command finds the same. It is never worse on its pictures than before.
    """
    from dreamsr.engine import measure, tuner
    from dreamsr.files import checkpoint, hub
    from dreamsr.files.paths import own_name

    counts = options.whole_numbers(steps)
    if pairs < 1 or trials < 1:
        raise UsageError(f"--pairs is {pairs}, --trials is {trials}; expected at least 1 of each")
    file = hub.resolve(model)
    target = _target(model, file, output, overwrite)
    lpips = measure.load_lpips(setup.lpips_weights(lpips_weights)) if objective == "lpips" else None
    if objective == "lpips" and lpips is None:
        raise UsageError(
            "there are no LPIPS weights here", "--lpips-weights download fetches them (250 MB); or --objective psnr"
        )
    loaded = setup.load(model, device, dtype, threads)
    chosen = tuner.load_pairs(data, pairs, loaded.config, low)
    for line in chosen.unread:
        console.warn(f"left out: {line}")
    pictures = counted(len(chosen.inputs), "picture")
    console.say(f"tuning {loaded.config.name} on {pictures} of {data}, {objective}")
    found = [_search(loaded, count, chosen, objective, lpips, trials, seed) for count in counts]
    own = checkpoint.load_model(file)  # grids belong to the file's weights, not to their rounding to --dtype
    grids = [tuner.tuned_grid(own, best, objective, f"{pictures} of {own_name(data)}") for best in found]
    checkpoint.reconfigure(file, target, tuner.with_tuned(own, grids).config)
    console.data(str(target))


def _target(model: str, file: Path, output: Path | None, overwrite: bool) -> Path:
    from dreamsr.files import hub

    yours = Path(model).exists() and file not in hub.bundled().values()
    if output is None and yours:
        return file
    if output is None:
        raise UsageError(f"{model} is not a file of yours", f"give the tuned model a place: -o {file.name}")
    if output.suffix != ".safetensors":
        raise UsageError(f"{output} has no suffix .safetensors", f"-o {output.stem}.safetensors")
    if output.exists() and not overwrite and not (yours and output.samefile(file)):
        raise UsageError(f"{output} exists", "give another name, or --overwrite")
    return output


def _search(
    model: "Model",
    steps: int,
    pairs: "Pairs",
    objective: "Objective",
    lpips: "LPIPS | None",
    trials: int,
    seed: int,
) -> "Candidate":
    from dreamsr.engine import tuner

    first = tuner.starts(model, steps)
    score = tuner.objective(model, pairs, objective, lpips)
    limits = tuner.limits(model)
    name, before = counted(steps, "step"), None
    with console.progress(max(trials, len(first)), "trials") as advance:
        for trial in tuner.search(score, first, limits, trials, seed):
            before = trial.score if before is None else before
            advance(name, f"trial {trial.number}: {trial.score:.4f}, best {trial.best_score:.4f}")
    grid = ", ".join(f"{x:g}" for x in trial.best.lambdas)
    noise = f"noise x{trial.best.noise_scale:.3f}"
    console.say(f"{name}: {before:.4f} -> {trial.best_score:.4f} with {trial.best.sampler}, {noise}, at {grid}")
    return trial.best
