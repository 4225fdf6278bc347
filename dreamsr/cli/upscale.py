"""`dreamsr upscale`"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamsr.cli import console, options, setup
from dreamsr.cli.report import Report
from dreamsr.engine.outputs import Naming, Sizing
from dreamsr.engine.ranks import Ranks
from dreamsr.errors import UsageError
from dreamsr.files.hub import DEFAULT_MODEL
from dreamsr.words import counted

if TYPE_CHECKING:
    from dreamsr.engine.planning import Task
    from dreamsr.engine.work import Job
    from dreamsr.files.manifest import Manifest


def upscale(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="IN|OUT", help="Pictures and folders (trees are kept), then a file or folder for them."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="OUT; then all arguments are IN.")] = None,
    model: options.Model = DEFAULT_MODEL,
    steps: Annotated[int | None, typer.Option(help="Sampling steps (default: the model's)")] = None,
    sampler: options.Sampler = "auto",
    grid: options.Grid = "auto",
    fidelity: options.Fidelity = None,
    samples: options.Samples = 1,
    uncertainty: options.Uncertainty = False,
    consistency: options.Consistency = 0.0,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    compile: options.Compile = "auto",
    tile: options.Tile = None,
    batch_size: options.BatchSize = None,
    scale: options.Scale = None,
    max_side: options.MaxSide = None,
    width: options.Width = None,
    height: options.Height = None,
    format: options.Format = "auto",
    quality: options.Quality = None,
    suffix: options.Suffix = None,
    compare: options.Compare = False,
    page: options.Report = None,
    strip_metadata: options.StripMetadata = False,
    provenance: options.Provenance = True,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Upscale pictures and folders of pictures.

    The last of several arguments is OUT. Without OUT, a single picture gets name_x4.png beside it. A
    broken file is reported and the others are done. The same command again continues an interrupted job,
    and remakes outputs whose input or settings changed. Several processes may share a folder, also as
    torchrun -m dreamsr. Exit code: 0 all done or skipped, 1 a picture failed, 2 wrong usage, 130
    interrupted.
    """
    sources, target = (places, output) if output or len(places) == 1 else (places[:-1], places[-1])
    for source in sources:
        if not source.exists():
            raise UsageError(f"{source} does not exist", "give a picture or a folder of pictures")
    if uncertainty and samples < 2:
        raise UsageError(f"--uncertainty compares samples, --samples is {samples}", "add --samples 8")
    sizing, naming = Sizing(scale, max_side, width, height), Naming(format, quality, suffix, compare, uncertainty)

    from dreamsr.engine import planning
    from dreamsr.engine.schedule import Settings
    from dreamsr.engine.upscaler import Upscaler
    from dreamsr.engine.work import Job, describe
    from dreamsr.files import checkpoint, hub, images
    from dreamsr.files.manifest import Manifest, file_digest

    ranks = Ranks.from_environment()
    if ranks.rank:
        console.hush()
    settings = Settings(steps, sampler, grid, seed, tile, batch_size, fidelity, samples, consistency)
    file = hub.resolve(model)
    loaded = checkpoint.load_model(file)
    sizing.check(loaded.config.scale)
    tasks = planning.plan(sources, target, sizing, loaded.config.scale, naming)
    if target and not output and (foreign := planning.foreign(target)):
        if overwrite:
            raise foreign
        console.say(f"{foreign.message}: {foreign.hint}")
    upscaler = Upscaler(loaded.to(*setup.compute(ranks.device(device), dtype, threads)), settings)
    how = str(sizing) or f"x{loaded.config.scale}"
    pictures, count = counted(len(tasks), "picture"), counted(upscaler.steps, "step")
    console.say(f"{pictures} with {loaded.config.name}, {count}, {how}")
    if others := sum((images.others(source) for source in sources), Counter()):
        counts = ", ".join(f"{count} {what}" for what, count in others.most_common(8))
        console.say(f"left out: {counts}; {images.KINDS} pictures are upscaled")
    folder = target if planning.is_job(sources) else None
    manifest = Manifest(folder) if folder else None
    megapixels = sum(task.megapixels for task in tasks)
    setup.advise(upscaler, dtype, megapixels)
    upscaler = setup.compiled(upscaler, compile, megapixels, manifest, dry_run)
    sha256 = file_digest(file)
    made_by = describe(upscaler, hub.public_name(model), sha256) if provenance else None
    job = Job(upscaler, sha256, sizing, quality, overwrite, strip_metadata, made_by)
    report = Report(tasks, json and not ranks.rank, None if ranks.rank else page)
    if dry_run:
        _foretell(job, tasks, manifest, report, ranks)
    else:
        _work(job, tasks, folder, manifest, report, ranks)


def _foretell(job: "Job", tasks: "list[Task]", manifest: "Manifest | None", report: Report, ranks: Ranks) -> None:
    from dreamsr.engine import estimate, resume

    if ranks.rank:
        return
    judge = resume.Judge(manifest, job.settings, len(manifest.entries) if manifest else 0, job.overwrite)
    verdicts = [(task, judge(task)) for task in tasks]
    makes = [task for task, verdict in verdicts if verdict.action == "make" and not task.problem]
    sizes, bits = [job.made_size(task.input_size) for task in makes], [task.bits for task in makes]
    report.plan(verdicts, estimate.estimate(job.upscaler, sizes, bits))


def _begun(manifest: "Manifest", ranks: Ranks) -> int:
    """Entries of the manifest that were there when all ranks had come."""
    with ranks.joined():
        return ranks.first(lambda: len(manifest.entries))


def _work(
    job: "Job", tasks: "list[Task]", folder: Path | None, manifest: "Manifest | None", report: Report, ranks: Ranks
) -> None:
    from dreamsr.engine.job import run
    from dreamsr.files.atomic import make_folder

    if folder is None and ranks.rank:
        return  # a single picture is rank 0's
    make_folder(tasks[0].target.parent if folder is None else folder)
    since = _begun(manifest, ranks) if manifest else 0
    try:
        report.follow(run(job, ranks.own_first(tasks), manifest, since))
    except KeyboardInterrupt:
        console.error("interrupted; finished pictures are kept", "run the same command again to go on")
        raise typer.Exit(130) from None
    finally:
        report.summary()
    if report.failed and not ranks.rank:
        # the other ranks end well: torchrun stops all of them at the first that does not
        raise typer.Exit(1)
