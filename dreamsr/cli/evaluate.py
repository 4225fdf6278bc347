"""`dreamsr eval`"""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import console, options, setup
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dreamsr.engine.evaluation import Evaluation
    from dreamsr.engine.evaluator import Benchmark, Contender, Row
    from dreamsr.engine.measure import Measure
    from dreamsr.engine.schedule import Settings

_HOW = "dreamsr eval SR_DIR HR_DIR, or dreamsr eval --model M --data HR_DIR"


def evaluate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SR_DIR HR_DIR]", help="Upscaled pictures, and their originals of the same names."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Measure this model on --data instead.")] = None,
    data: Annotated[Path | None, typer.Option(help="High-resolution pictures; they are degraded here.")] = None,
    low: Annotated[
        Path | None, typer.Option(help="Folder of inputs named as those of --data; else they are made from these.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model or folder of results: paired differences to it.")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", "-s", help="Reduction (default: the model's); two folders: measure bicubic beside."),
    ] = None,
    degradation: Annotated[
        Literal["auto", "bicubic", "photo"],
        typer.Option(help="How --data is reduced: bicubic, or as everyday pictures are (auto: as the model expects)."),
    ] = "auto",
    steps: Annotated[str | None, typer.Option(help="Step counts to measure, as 1,4,10,50 (default: 1,4)")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUES ...", help="All combinations, as --sweep steps=1,4 sampler=ddim,ddpm."),
    ] = None,
    sampler: options.Sampler = "auto",
    protocol: Annotated[
        Literal["all", "sr", "dream"], typer.Option(help="sr: Y, crop = scale. dream: RGB, no crop. all: both.")
    ] = "all",
    crop: Annotated[
        int | None, typer.Option(help="Border left out on Y (default: the scale, rounded up, or 4)")
    ] = None,
    crop_to_match: Annotated[
        bool, typer.Option("--crop-to-match", help="Cut pairs of different sizes at the bottom and right.")
    ] = False,
    lpips_weights: options.LpipsWeights = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    tile: options.Tile = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a line a picture and method.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables and protocol as Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option(callback=options.html, help="Write a page with tables, plot and pictures.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure pictures against originals: PSNR, SSIM, MS-SSIM, LPIPS, and agreement with the input.

    Either two folders whose pictures have the same names, or --model with --data: every picture is
    reduced, upscaled and compared, cut to a multiple of a whole scale first; bicubic is measured beside
    it. Means have 95 % intervals over pictures.
    """
    _check(crop, protocol, scale, (json, csv, markdown))
    if low and (not model or degradation != "auto" or crop_to_match):
        raise UsageError("--low goes with --model and --data, and without --degradation and --crop-to-match")
    swept = [*(sweep or []), *(word for word in words or [] if _is_sweep(word))]
    folders = [Path(word) for word in words or [] if not _is_sweep(word)]

    from dreamsr.engine import evaluation, evaluator, reports
    from dreamsr.engine.contest import Contest
    from dreamsr.engine.measure import measure
    from dreamsr.engine.schedule import Settings
    from dreamsr.engine.sweep import variants
    from dreamsr.files import page

    settings = Settings(sampler=sampler, seed=seed, tile=tile)
    ways = variants(settings, options.whole_numbers(steps) if steps else None, swept)
    compute = (device, dtype, threads)
    place = _originals(model, data, folders)
    own = _models(model, ways, "", compute) if model else [evaluator.results(folders[0], place, "given", crop_to_match)]
    contest = Contest(own, _rivals(against, place, crop_to_match, ways, compute) if against else [])
    idle = {"steps": steps, "sweep": swept, "sampler": sampler != "auto", "seed": seed, "tile": tile}
    contest.check_idle(idle, degradation, scale)
    scale = contest.agreed_scale(scale)
    measures = measure(protocol, crop, scale, setup.lpips_weights(lpips_weights))
    inputs = contest.inputs("pairs" if low else degradation)
    benchmark, unpaired = evaluator.benchmark(place, contest.contenders, measures, scale, inputs, low)
    _warn(unpaired, measures)
    rows, broken = _collect(benchmark)
    found = evaluation.of(benchmark, rows, contest.pairs, unpaired, broken)
    forms = {evaluation.to_json: json, evaluation.to_csv: csv, evaluation.to_markdown: markdown}
    if chosen := [form for form, wanted in forms.items() if wanted]:
        console.data(chosen[0](found))
    else:
        _print(found)
    if html:
        page.write(html, reports.evaluation_page(benchmark, found))
        console.say(f"report: {html}")
    if broken:
        raise typer.Exit(1)


def _is_sweep(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _check(crop: int | None, protocol: str, scale: float | None, forms: "Sequence[bool]") -> None:
    if sum(forms) > 1:
        raise UsageError("--json, --csv and --markdown exclude each other", "take one of them")
    if crop is not None and crop < 0:
        raise UsageError(f"--crop is {crop}; expected a whole number of at least 0")
    if crop is not None and protocol == "dream":
        raise UsageError("--protocol dream measures whole pictures", "leave out --crop")
    if scale is not None and not (isfinite(scale) and scale >= 1):
        raise UsageError(f"--scale is {scale:g}; expected a number of at least 1")


def _originals(model: str | None, data: Path | None, folders: "Sequence[Path]") -> Path:
    """Where the originals are; raises UsageError for what is neither of both ways to measure."""
    if model and data and not folders:
        return data
    if len(folders) == 2 and not (model or data):
        return folders[1]
    if folders and (model or data):
        given = " ".join(map(str, folders))
        raise UsageError(f"{given} and --model, --data are given: pictures are there, or they are made", _HOW)
    raise UsageError("nothing to measure", _HOW)


def _models(
    name: str, ways: "dict[str, Settings]", prefix: str, compute: "tuple[str, str, int | None]"
) -> "Sequence[Contender]":
    from dreamsr.engine.contest import sampled
    from dreamsr.files import hub

    file = hub.resolve(name)
    return sampled(name, file, setup.load(str(file), *compute), ways, prefix)


def _rivals(
    name: str, place: Path, cut: bool, ways: "dict[str, Settings]", compute: "tuple[str, str, int | None]"
) -> "Sequence[Contender]":
    """What --against names: pictures, or a model with the same settings."""
    from dreamsr.engine.contest import pictures

    there = pictures(name, place, cut)
    return [there] if there else _models(name, ways, f"{name}: ", compute)


def _warn(unpaired: "Sequence[Path]", measure: "Measure") -> None:
    from dreamsr.files.lpips_weights import HOW_TO_GET

    for path in unpaired:
        console.warn(f"{path} has no partner and is left out")
    if measure.lpips is None:
        console.warn(f"no LPIPS: its weights were not found; {HOW_TO_GET}")


def _collect(benchmark: "Benchmark") -> "tuple[list[Row], dict[str, str]]":
    """The rows, and why some pictures cannot be read, of which there may be rows, too."""
    from dreamsr.engine.measure import COLUMNS

    rows: list[Row] = []
    broken: dict[str, str] = {}
    with console.progress(len(benchmark.originals) * len(benchmark.contenders), "measures") as advance:
        for row in benchmark.rows(broken):
            rows.append(row)
            key, value = next(iter(row.scores.items()))
            advance(row.picture, f"{row.picture}, {row.method}: {COLUMNS[key].title} {value:.2f}")
    for name, reason in broken.items():
        console.warn(f"{benchmark.originals[name]} is left out: {reason}")
    return rows, broken


def _print(found: "Evaluation") -> None:
    from dreamsr.engine import evaluation

    for table in evaluation.tables(found):
        console.table(table.header, table.rows, turn=True)
    for line in evaluation.remarks(found):
        console.say(line)
