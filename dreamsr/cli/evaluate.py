"""`dreamsr eval`"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamsr.cli import console, options, setup
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dreamsr.engine.evaluator import Measure, Row

DIGITS = {"psnr_y": 2, "psnr_rgb": 2, "psnr_lr": 2, "s_per_mp": 2}


def evaluate(
    sr: Annotated[Path | None, typer.Argument(metavar="SR_DIR", help="Upscaled pictures.")] = None,
    hr: Annotated[Path | None, typer.Argument(metavar="HR_DIR", help="Their originals, of the same names.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Measure this model on --data instead.")] = None,
    data: Annotated[Path | None, typer.Option(help="High-resolution pictures; they are degraded here.")] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="Reduction; two folders: measure bicubic beside them.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Step counts to measure, as 1,4,10,50.")] = "1,4",
    sampler: options.Sampler = "auto",
    crop: Annotated[int, typer.Option(help="Border left out of PSNR and SSIM on Y.")] = 4,
    lpips_weights: options.LpipsWeights = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    tile: options.Tile = None,
    json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
) -> None:
    """Measure pictures against originals: PSNR, SSIM, LPIPS, and agreement with the input.

    Either two folders whose pictures have the same names, or --model with --data: every picture is
    cut to a multiple of the scale, reduced, upscaled and compared; bicubic is measured beside it.
    """
    from dreamsr.engine import evaluator
    from dreamsr.engine.schedule import Settings
    from dreamsr.engine.upscaler import Upscaler
    from dreamsr.files import images

    if crop < 0:
        raise UsageError(f"--crop is {crop}; expected a whole number of at least 0")
    if scale is not None and scale < 1:
        raise UsageError(f"--scale is {scale}; expected a whole number of at least 1")
    measure = evaluator.Measure(crop, evaluator.load_lpips(lpips_weights))
    if measure.lpips is None:
        console.warn("no LPIPS: its weights were not found (--lpips-weights FILE, or $DREAMSR_LPIPS_WEIGHTS)")
    if model and data and not (sr or hr):
        counts = options.whole_numbers(steps)
        total = len(images.find(data))
        if not total:
            raise UsageError(f"no {images.KINDS} picture in {data}")
        loaded = setup.load(model, device, dtype, threads)
        if scale not in (None, loaded.config.scale):
            own = loaded.config.scale
            raise UsageError(f"--scale is {scale}; this model makes x{own}", f"use --scale {own}")
        upscaler = Upscaler(loaded, Settings(sampler=sampler, seed=seed, tile=tile))
        rows = _collect(evaluator.evaluate_model(upscaler, data, counts, measure), total * (1 + len(counts)))
    elif sr and hr and not (model or data):
        rows = _pair_rows(sr, hr, scale, measure)
    else:
        raise UsageError("nothing to measure", "dreamsr eval SR_DIR HR_DIR, or dreamsr eval --model M --data HR_DIR")
    if json:
        console.data(evaluator.to_json(rows, measure.protocol))
    else:
        _print(evaluator.means(rows), len({row.picture for row in rows}))
        console.say(measure.protocol)


def _pair_rows(sr: Path, hr: Path, scale: int | None, measure: "Measure") -> "list[Row]":
    from dreamsr.engine import evaluator

    pairing = evaluator.pair(sr, hr)
    for path in pairing.unpaired:
        console.warn(f"{path} has no partner and is left out")
    rows = evaluator.evaluate_pairs(pairing, measure, scale)
    return _collect(rows, len(pairing.pairs) * (1 if scale is None else 2))


def _collect(rows: "Iterator[Row]", total: int) -> "list[Row]":
    collected = []
    with console.progress(total, "measures") as advance:
        for row in rows:
            collected.append(row)
            advance(row.picture, f"{row.picture}, {row.method}: {row.scores['psnr_y']:.2f} dB")
    return collected


def _print(means: dict[str, dict[str, float]], pictures: int) -> None:
    keys = list(dict.fromkeys(key for scores in means.values() for key in scores))
    lines = [[method, *(_number(key, scores.get(key)) for key in keys)] for method, scores in means.items()]
    console.table([f"mean of {pictures}", *keys], lines)


def _number(key: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{DIGITS.get(key, 4)}f}"
