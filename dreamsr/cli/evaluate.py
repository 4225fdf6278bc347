"""`dreamsr eval`"""

from itertools import product
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import console, options, setup
from dreamsr.errors import DreamSRError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dreamsr.config import ModelConfig
    from dreamsr.engine.evaluation import Evaluation
    from dreamsr.engine.evaluator import Benchmark, Contender, Row, Sampled
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
    from dreamsr.engine.measure import PROTOCOLS, Measure, load_lpips
    from dreamsr.engine.schedule import Settings
    from dreamsr.files import page

    variants = _variants(Settings(sampler=sampler, seed=seed, tile=tile), steps, swept)
    compute = (device, dtype, threads)
    own: Sequence[Contender]
    if model and data and not folders:
        place = data
        own = _models(model, variants, "", *compute)
    elif len(folders) == 2 and not (model or data):
        place = folders[1]
        own = [evaluator.results(folders[0], place, "given", crop_to_match)]
    elif folders and (model or data):
        given = " ".join(map(str, folders))
        raise UsageError(f"{given} and --model, --data are given: pictures are there, or they are made", _HOW)
    else:
        raise UsageError("nothing to measure", _HOW)
    rivals = _rivals(against, place, crop_to_match, variants, compute) if against else []
    if not any(isinstance(contender, evaluator.Sampled) for contender in (*own, *rivals)):
        _check_idle({"steps": steps, "sweep": swept, "sampler": sampler != "auto", "seed": seed, "tile": tile})
        if degradation != "auto" and not scale:
            raise UsageError("--degradation makes inputs for bicubic, which takes a --scale", "add --scale 4")
    scale = _agreed_scale([*own, *rivals], scale)
    weights = setup.lpips_weights(lpips_weights)
    distances = load_lpips(weights), load_lpips(weights, "squeeze")
    measure = Measure(crop if crop is not None else ceil(scale or 4), *distances, PROTOCOLS[protocol])
    inputs = _inputs([*own, *rivals], "pairs" if low else degradation)
    benchmark, unpaired = evaluator.benchmark(place, [*own, *rivals], measure, scale, inputs, low)
    _warn(unpaired, measure)
    rows, broken = _collect(benchmark)
    together = zip(own, rivals, strict=True) if len(own) == len(rivals) else product(own, rivals)
    found = evaluation.of(benchmark, rows, [(a.name, b.name) for a, b in together], unpaired)
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


def _check_idle(given: dict[str, object]) -> None:
    """Raises UsageError for the first of these options that was given: without a model they do nothing."""
    if name := next((name for name, value in given.items() if value), ""):
        raise UsageError(f"--{name} is for models; these pictures are there already", f"leave --{name} out")


def _variants(settings: "Settings", steps: str | None, swept: list[str]) -> "dict[str, Settings]":
    """Settings by name: every combination of what is swept; --steps is short for a sweep of steps."""
    from dreamsr.engine import sweep

    axes = sweep.parse(swept)
    if "steps" in axes and steps:
        raise UsageError("steps are given by --steps and by --sweep", "leave one out")
    if "steps" not in axes and (steps or not sweep.has_levels(axes)):
        axes = {"steps": options.whole_numbers(steps or "1,4"), **axes}
    return sweep.combinations(settings, axes)


def _models(
    name: str, variants: "dict[str, Settings]", prefix: str, device: str, dtype: str, threads: int | None
) -> "list[Sampled]":
    from dreamsr.engine.evaluator import Sampled
    from dreamsr.engine.upscaler import Upscaler
    from dreamsr.files import hub
    from dreamsr.files.manifest import file_digest

    file = hub.resolve(name)
    loaded = setup.load(str(file), device, dtype, threads)
    public, sha256 = hub.public_name(name), file_digest(file)
    return [Sampled(prefix + label, Upscaler(loaded, s), public, sha256) for label, s in variants.items()]


def _rivals(
    name: str, place: Path, cut: bool, variants: "dict[str, Settings]", compute: "tuple[str, str, int | None]"
) -> "Sequence[Contender]":
    """What --against names: pictures, or a model with the same settings."""
    from dreamsr.engine import evaluator
    from dreamsr.files import hub, images

    path = Path(name)
    if path.suffix.lower() in images.SUFFIXES or (path.is_dir() and not (path / hub.RUN_FILE).is_file()):
        return [evaluator.results(path, place, f"{path}/" if path.is_dir() else name, cut)]
    return _models(name, variants, f"{name}: ", *compute)


def _agreed_scale(contenders: "Sequence[Contender]", given: float | None) -> float | None:
    """--scale, up to the scales of all models, or the scale of the models, which must be one."""
    from dreamsr.engine.evaluator import Sampled

    models = [c.upscaler.model.config for c in contenders if isinstance(c, Sampled)]
    for model in models:
        if given is not None and given > model.scale:
            raise UsageError(f"--scale is {given:g}; this model makes {model.scales}", f"use --scale {model.scale}")
    own = sorted({model.scale for model in models})
    if given is None and len(own) > 1:
        raise UsageError(f"the models make x{' and x'.join(map(str, own))}", "compare models of one scale")
    return given or next(iter(own), None)


def _inputs(
    contenders: "Sequence[Contender]", degradation: Literal["auto", "bicubic", "photo", "pairs"]
) -> "ModelConfig":
    """The model whose degradation makes the inputs: of the contenders one that is made for it."""
    from dreamsr.config import ModelConfig
    from dreamsr.engine.evaluator import Sampled

    models = [c.upscaler.model.config for c in contenders if isinstance(c, Sampled)]
    if degradation != "auto":
        made_for = (config for config in models if config.degradation == degradation)
        return next(made_for, ModelConfig(degradation=degradation))
    if len({config.degradation for config in models}) > 1:
        raise UsageError("the models expect different inputs", "give --degradation bicubic or --degradation photo")
    return next(iter(models), ModelConfig())


def _warn(unpaired: "Sequence[Path]", measure: "Measure") -> None:
    from dreamsr.files.lpips_weights import HOW_TO_GET

    for path in unpaired:
        console.warn(f"{path} has no partner and is left out")
    if measure.lpips is None:
        console.warn(f"no LPIPS: its weights were not found; {HOW_TO_GET}")


def _collect(benchmark: "Benchmark") -> "tuple[list[Row], dict[str, str]]":
    """The rows of what can be read, and why the rest cannot."""
    from dreamsr.engine.measure import COLUMNS

    collected: list[Row] = []
    broken: dict[str, str] = {}
    with console.progress(len(benchmark.originals) * len(benchmark.contenders), "measures") as advance:
        for row in benchmark.rows(broken):
            collected.append(row)
            key, value = next(iter(row.scores.items()))
            advance(row.picture, f"{row.picture}, {row.method}: {COLUMNS[key].title} {value:.2f}")
    for name, reason in broken.items():
        console.warn(f"{benchmark.originals[name]} is left out: {reason}")
    rows = [row for row in collected if row.picture not in broken]
    if not rows:
        raise DreamSRError("no picture can be measured")
    return rows, broken


def _print(found: "Evaluation") -> None:
    from dreamsr.engine import evaluation

    for table in evaluation.tables(found):
        console.table(table.header, table.rows, turn=True)
    for line in evaluation.remarks(found):
        console.say(line)
