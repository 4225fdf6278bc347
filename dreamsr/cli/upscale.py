"""`dreamsr upscale`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamsr.cli import console, options, setup
from dreamsr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dreamsr.engine import job

Format = Literal["auto", "png", "jpg", "webp"]


def upscale(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A picture, or a folder (its tree is kept).")],
    target: Annotated[Path | None, typer.Argument(metavar="OUT", help="A file or a folder.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The same as OUT.")] = None,
    model: options.Model = options.DEFAULT,
    steps: Annotated[int | None, typer.Option(help="Sampling steps (default: the model's)")] = None,
    sampler: options.Sampler = None,
    scale: Annotated[
        float | None, typer.Option("--scale", "-s", help="Output size / input size (default: the model's)")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    tile: options.Tile = None,
    batch_size: options.BatchSize = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", help="Format of the output; auto: as the input's.")
    ] = "auto",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, XMP and DPI; colours keep their ICC profile.")
    ] = False,
    provenance: Annotated[
        bool, typer.Option("--provenance/--no-provenance", help="Note in the outputs how they were made: dreamsr info.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make outputs again that exist.")] = False,
) -> None:
    """Upscale a picture or a folder of pictures.

    Without OUT, a single picture gets name_x4.png beside it. Existing outputs are skipped. A broken
    file is reported and the rest is done. Exit code: 0 all done or skipped, 1 a picture failed,
    2 wrong usage, 130 interrupted.
    """
    from dreamsr.engine import job
    from dreamsr.engine.upscaler import Settings, Upscaler, count_steps
    from dreamsr.files import checkpoint, hub

    if target and output:
        raise UsageError(f"OUT is given twice: {target} and {output}", "leave one out")
    settings = Settings(steps, sampler, seed, tile, batch_size)
    file = hub.resolve(model)
    loaded = checkpoint.load_model(file)
    factor = _check_scale(scale, loaded.config.scale)
    tasks = job.plan(source, target or output, factor, "" if format == "auto" else f".{format}")
    upscaler = Upscaler(loaded.to(*setup.compute(device, dtype, threads)), settings)
    name = file.name if Path(model).exists() else model
    made_by = job.describe(upscaler, name, file, factor) if provenance else None
    console.say(f"{len(tasks)} pictures with {loaded.config.name}, {count_steps(upscaler.steps)}, x{factor:g}")
    try:
        counts = _report(job.run(tasks, upscaler, factor, overwrite, strip_metadata, made_by), len(tasks))
    except KeyboardInterrupt:
        console.error("interrupted; finished pictures are kept", "run the same command again to go on")
        raise typer.Exit(130) from None
    console.say(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if counts["failed"]:
        raise typer.Exit(1)


def _check_scale(scale: float | None, largest: int) -> float:
    if scale is None:
        return float(largest)
    if not 1 <= scale <= largest:
        raise UsageError(f"--scale is {scale:g}; this model makes 1 to {largest}", f"try --scale {largest}")
    return scale


def _report(results: "Iterable[job.Result]", total: int) -> dict[str, int]:
    counts = {"done": 0, "skipped": 0, "failed": 0}
    with console.progress(total, "pictures") as advance:
        for result in results:
            counts[result.status] += 1
            task, (height, width) = result.task, result.size
            text = {
                "done": " | ".join((f"{task.source} -> {task.target} {width}x{height}", *result.remarks)),
                "skipped": f"skipped: {task.target} exists (--overwrite makes it again)",
                "failed": f"failed: {result.message}",
            }[result.status]
            advance(task.source.name, text, remark=result.status != "done" or bool(result.remarks))
    return counts
