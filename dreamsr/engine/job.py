"""A folder of pictures upscaled: what becomes what, and a pipeline of decode, network and encode."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from dreamsr import __version__
from dreamsr.engine.upscaler import Upscaler, output_size
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import images
from dreamsr.files.checkpoint import DTYPES
from dreamsr.files.images import Picture, Provenance
from dreamsr.files.provenance import digest

_BAG_BATCHES = 4
"""Full batches of tiles that a bag of small pictures may fill: the last one of them may be part empty."""
_AHEAD = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """One file to make."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """What became of a task; `message` says why it was not done."""

    task: Task
    status: Literal["done", "skipped", "failed"]
    message: str = ""
    size: tuple[int, int] = (0, 0)
    """(height, width) of the output"""
    remarks: tuple[str, ...] = ()
    """What could not be kept of the input, a few words each."""


def plan(source: Path, out: Path | None, scale: float, suffix: str = "") -> list[Task]:
    """Every input with its output; raises UsageError before anything is touched.

    A folder keeps its tree in `out`. Without `out`, `name_x4.png` is made beside a single picture.
    `suffix` (".png") replaces the input's own.
    """
    sources = images.find(source)
    if source.is_dir():
        tasks = _plan_folder(source, out, sources, suffix)
    else:
        tasks = [Task(source, _single_target(source, out, scale, suffix))]
    _check(tasks)
    return tasks


def _plan_folder(source: Path, out: Path | None, sources: list[Path], suffix: str) -> list[Task]:
    if out is None:
        raise UsageError(f"{source} is a folder; say where to write", f"dreamsr upscale {source} OUT")
    _check_folder(out)
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out} lies inside {source}", "give an output folder outside of the input folder")
    if not sources:
        raise UsageError(f"no {images.KINDS} picture in {source}")
    targets = (out / path.relative_to(source) for path in sources)
    return [Task(p, t.with_suffix(suffix or t.suffix)) for p, t in zip(sources, targets, strict=True)]


def _single_target(source: Path, out: Path | None, scale: float, suffix: str) -> Path:
    if out is None:
        return source.with_name(f"{source.stem}_x{scale:g}{suffix or '.png'}")
    if out.is_dir() or not out.suffix:
        _check_folder(out)
        own = source.suffix if source.suffix.lower() in images.SUFFIXES else ".png"
        return (out / source.name).with_suffix(suffix or own)
    if out.suffix.lower() not in images.SUFFIXES:
        raise UsageError(f"{out} has no known suffix", f"use one of {', '.join(images.SUFFIXES)}")
    if suffix and images.FORMATS[out.suffix.lower()] != images.FORMATS[suffix]:
        raise UsageError(f"{out} does not end with {suffix}, as --format asks", "leave --format out")
    _check_folder(out.parent)
    return out


def _check_folder(out: Path) -> None:
    if blocked := next((p for p in (out, *out.parents) if p.exists() and not p.is_dir()), None):
        raise UsageError(f"{blocked} is a file; expected a folder for the output")


def _check(tasks: list[Task]) -> None:
    makers: dict[Path, Path] = {}
    originals = {task.source.resolve() for task in tasks}
    for task in tasks:
        if other := makers.get(task.target):
            raise UsageError(f"{other} and {task.source} would both become {task.target}", "rename one of them")
        if task.target.resolve() in originals:
            raise UsageError(f"{task.target} would overwrite an original", "give another OUT")
        makers[task.target] = task.source


def run(
    tasks: Iterable[Task],
    upscaler: Upscaler,
    scale: float,
    overwrite: bool = False,
    strip_metadata: bool = False,
    provenance: Provenance | None = None,
) -> Iterator[Result]:
    """Do every task, several small pictures at a time; a broken file is a failed result, not an end.

    `provenance` is written into every output, with the name of its input.
    """
    decode = partial(_decode, strip_metadata=strip_metadata, provenance=provenance)
    todo: list[Task] = []
    for task in tasks:
        if task.target.exists() and not overwrite:
            yield Result(task, "skipped", "exists")
        else:
            todo.append(task)
    with ThreadPoolExecutor(2) as pool:
        decoded = _ahead(pool, lambda t: (t, _attempt(decode, t.source)), todo)
        writing: deque[Future[Result]] = deque()
        for bag in _bags(decoded, upscaler):
            writing.extend(pool.submit(_finish, *work) for work in _upscale(bag, upscaler, scale))
            while len(writing) > _AHEAD:
                yield writing.popleft().result()
        for future in writing:
            yield future.result()


def describe(upscaler: Upscaler, name: str, file: Path, scale: float) -> Provenance:
    """How `upscaler` makes pictures; `file` is that of its model, called `name`."""
    config, network = upscaler.model.config.sampling, upscaler.model.network
    dtype = next(network.parameters()).dtype
    return Provenance(
        software=f"dreamsr {__version__}",
        model=name,
        model_sha256=digest(file),
        sampler=upscaler.settings.sampler or config.sampler,
        grid=f"{config.grid} {config.lambda_start:g} {config.lambda_end:g}",
        steps=upscaler.steps,
        seed=upscaler.settings.seed,
        scale=scale,
        tile=upscaler.tiling.tile,
        dtype=next(name for name, known in DTYPES.items() if known == dtype),
    )


def _decode(path: Path, strip_metadata: bool, provenance: Provenance | None) -> Picture:
    picture = images.bled(images.read(path))
    kept = picture.metadata.stripped() if strip_metadata else picture.metadata
    return replace(picture, metadata=replace(kept, provenance=provenance and replace(provenance, source=path.name)))


Decoded = tuple[Task, Picture | DreamSRError]


def _upscale(bag: list[Decoded], upscaler: Upscaler, scale: float) -> list[tuple[Task, Picture | DreamSRError]]:
    """The bag with its pictures enlarged."""
    good = [(task, item) for task, item in bag if isinstance(item, Picture)]
    outputs = iter(upscaler([picture.color for _, picture in good]) if good else [])
    return [
        (task, _assemble(item, next(outputs).cpu(), scale) if isinstance(item, Picture) else item) for task, item in bag
    ]


def _assemble(source: Picture, color: Tensor, scale: float) -> Picture | DreamSRError:
    if not bool(torch.isfinite(color).all()):
        return DreamSRError("the network gave values that are not finite", "try --dtype fp32")
    return images.resize(images.enlarged(source, color), output_size(source.size, scale))


def _finish(task: Task, item: Picture | DreamSRError) -> Result:
    lost = item if isinstance(item, DreamSRError) else _attempt(partial(images.write, picture=item), task.target)
    if isinstance(lost, DreamSRError):
        return Result(task, "failed", "; ".join(filter(None, (lost.message, lost.hint))))
    assert isinstance(item, Picture)
    return Result(task, "done", size=item.size, remarks=(*item.remarks, *lost))


def _attempt(function: Callable[[Path], T], path: Path) -> T | DreamSRError:
    try:
        return function(path)
    except DreamSRError as error:
        return error


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Task], T], items: Iterable[Task]) -> Iterator[T]:
    """Results in order, a few of them computed ahead of the consumer."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _bags(decoded: Iterable[Decoded], upscaler: Upscaler) -> Iterator[list[Decoded]]:
    """Consecutive pictures, at least one, whose tiles fill up to _BAG_BATCHES batches together."""
    bag: list[Decoded] = []
    tiles = 0
    for task, item in decoded:
        count = upscaler.tiles(item.size) if isinstance(item, Picture) else 0
        if bag and tiles + count > _BAG_BATCHES * upscaler.tiling.batch:
            yield bag
            bag, tiles = [], 0
        bag.append((task, item))
        tiles += count
    if bag:
        yield bag
