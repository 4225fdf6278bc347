"""What becomes what: every output of a job with its name and size, before anything is touched."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dreamsr.core.size import Size
from dreamsr.engine.outputs import LOSSY, Naming, Sizing
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import images
from dreamsr.files.images import Header
from dreamsr.files.paths import own_name, real

_BESIDE = ("compare", "uncertainty", "uncertainty_preview")
_READERS = 8
"""Threads that read headers: most of the time they wait for the disk."""


@dataclass(frozen=True)
class Task:
    """One file to make."""

    source: Path
    target: Path
    input: str
    """The source's name in the manifest: relative to the input folder, of several with the folder's own name."""
    output: str
    """The target's, relative to the output folder."""
    input_size: Size = (0, 0)
    size: Size = (0, 0)
    """(height, width) of the output"""
    bits: int = 24
    """Of a pixel of the input, as colour, which the output has, too, where its format can."""
    problem: str = ""
    """Why it cannot be made, as far as the header tells."""
    remarks: tuple[str, ...] = ()
    sheet: Path | None = None
    """Where before and after are to be drawn."""
    maps: tuple[Path, Path] | None = None
    """Where the deviation of the samples is to be written, as numbers and in colours."""

    @property
    def files(self) -> list[Path]:
        """All that is written for this task, the picture first."""
        return [self.target, *filter(None, [self.sheet]), *(self.maps or ())]

    @property
    def megapixels(self) -> float:
        """Of the output; 0 if it cannot be made."""
        return 0.0 if self.problem else self.size[0] * self.size[1] / 1e6


def plan(
    sources: Sequence[Path], out: Path | None, sizing: Sizing, largest: int, naming: Naming | None = None
) -> list[Task]:
    """Every picture of `sources` with its output; raises UsageError before anything is touched.

    A folder keeps its tree in `out`, below its own name if it is one of several sources. Without `out`,
    `name_x4.png` is made beside a single picture.
    largest: the scale of the model.
    """
    naming = naming or Naming()
    named = [pair for source in sources for pair in _named(source, len(sources) == 1)]
    folder = _check_out(sources, out, named) if is_job(sources) else _single_folder(sources[0], out, naming)
    place = _Place(folder, out)
    with ThreadPoolExecutor(_READERS) as pool:
        tasks = list(pool.map(lambda pair: _task(pair[0], pair[1], place, sizing, largest, naming), named))
    same = _ignores_case(folder)
    tasks = _accompanied(_told_apart(tasks, same), naming, same)
    _check(tasks, same)
    if naming.quality and not any(t.target.suffix.lower() in LOSSY for t in tasks):
        raise UsageError(
            "--quality does not apply: no output is JPEG, WebP or AVIF", "give --format jpg, webp or avif with it"
        )
    return tasks


def foreign(out: Path) -> UsageError | None:
    """What is wrong with an output that is there and shows no sign of dreamsr: the second of two originals, say."""
    if not out.is_file() or images.is_ours(out):
        return None
    return UsageError(
        f"{out} exists, and nothing in it tells that dreamsr made it",
        f"a folder as the last argument takes any number of pictures; -o {out} --overwrite replaces it all the same",
    )


def is_job(sources: Sequence[Path]) -> bool:
    """Whether outputs go to a folder that keeps a manifest: all but those of a single picture."""
    return len(sources) > 1 or sources[0].is_dir()


@dataclass(frozen=True)
class _Place:
    """The output folder, and OUT as it was given."""

    folder: Path
    out: Path | None

    @property
    def exact(self) -> Path | None:
        """The output file, where the user named it."""
        return self.out if self.out and self.out != self.folder else None


def _named(source: Path, alone: bool) -> list[tuple[Path, Path]]:
    """The pictures of a source, and what they are called in the job."""
    if not source.is_dir():
        return [(path, Path(path.name)) for path in images.find(source)]
    top = Path() if alone else Path(own_name(source))
    return [(path, top / path.relative_to(source)) for path in images.find(source)]


def _task(path: Path, name: Path, place: _Place, sizing: Sizing, largest: int, naming: Naming) -> Task:
    header, size, problem = _look(path, sizing, largest)
    suffix = place.exact.suffix if place.exact else naming.dotted or _own_suffix(path, place)
    free = naming.format == "auto" and not place.exact
    misfit = _obstacle(header, suffix, size, free) if header else ""
    remarks: tuple[str, ...] = ()
    if header and misfit and place.exact:
        better = "PNG" if _obstacle(header, ".webp", size, free) else "PNG or WebP"
        problem = problem or f"{place.exact}: {misfit}, which this picture needs; write {better}"
    elif misfit:
        suffix, remarks = ".png", (f"written as PNG: {misfit}",)
    mark = naming.suffix if naming.suffix is not None else _mark(place, sizing, size, largest)
    target = place.exact or (place.folder / name).with_name(f"{name.stem}{mark}{suffix}")
    return Task(
        path,
        target,
        name.as_posix(),
        target.relative_to(place.folder).as_posix(),
        header.size if header else (0, 0),
        size,
        (4 if header.alpha else 3) * header.depth if header else 0,
        problem,
        remarks,
    )


def _told_apart(tasks: list[Task], ignores_case: bool) -> list[Task]:
    """`a.heic` becomes `a.heic.jpg`, not `a.jpg`, where that is what another input becomes."""
    makers = Counter(_key(task.target, ignores_case) for task in tasks)

    def named(task: Task) -> Task:
        converted = task.source.suffix.lower() != task.target.suffix.lower()
        return _renamed(task) if converted and makers[_key(task.target, ignores_case)] > 1 else task

    return [named(task) for task in tasks]


def _renamed(task: Task) -> Task:
    """With the whole name of its input, suffix included, in that of its output."""
    name = task.source.name + task.target.name.removeprefix(task.source.stem)
    return replace(task, target=task.target.with_name(name), output=Path(task.output).with_name(name).as_posix())


def _accompanied(tasks: list[Task], naming: Naming, ignores_case: bool) -> list[Task]:
    """With the places of sheet and maps; `a.jpg_compare.png` beside `a.jpg` where there is an `a.png`, too."""
    stems = Counter(_key(task.target.with_suffix(""), ignores_case) for task in tasks)

    def beside(task: Task) -> Task:
        alone = stems[_key(task.target.with_suffix(""), ignores_case)] == 1
        stem = task.target.stem if alone else task.target.name
        sheet, numbers, colours = (task.target.with_name(f"{stem}_{what}.png") for what in _BESIDE)
        maps = (numbers, colours) if naming.uncertainty else None
        return replace(task, sheet=sheet if naming.compare else None, maps=maps)

    return [beside(task) for task in tasks]


def _look(path: Path, sizing: Sizing, largest: int) -> tuple[Header | None, Size, str]:
    """(header, output size, why it cannot be made)"""
    try:
        header = images.probe(path)
    except DreamSRError as error:
        return None, (0, 0), str(error)
    try:
        return header, sizing.output(header.size, largest), ""
    except DreamSRError as error:
        return header, (0, 0), "; ".join(filter(None, (f"{path}: {error}", error.hint)))


def _obstacle(header: Header, suffix: str, size: Size, free: bool) -> str:
    """Why the format does not do; one that was asked for, not chosen freely, may reduce 16 bits to 8."""
    return images.obstacle(suffix, size, header.alpha, header.depth if free else 8)


def _own_suffix(path: Path, place: _Place) -> str:
    """The input's where that can be written; JPEG of HEIC."""
    suffix = path.suffix.lower()
    if not place.out or suffix not in images.SUFFIXES:
        return ".png"
    return path.suffix if suffix in images.FORMATS else ".jpg"


def _mark(place: _Place, sizing: Sizing, size: Size, largest: int) -> str:
    """What tells an output from the input that it lies beside."""
    if place.out:
        return ""
    by_scale = str(sizing) == "" or sizing.scale is not None
    return f"_x{sizing.scale or largest:g}" if by_scale else f"_{size[1]}x{size[0]}"


def _check_out(sources: Sequence[Path], out: Path | None, found: Sequence[object]) -> Path:
    given = " ".join(map(str, sources))
    if out is None:
        what = f"{given} is a folder" if len(sources) == 1 else f"{len(sources)} inputs are given"
        raise UsageError(f"{what}; say where to write", f"dreamsr upscale {given} OUT")
    _check_folder(out)
    for source in sources:
        if source.is_dir() and real(out).is_relative_to(real(source)):
            where = "is the input folder, too" if real(out) == real(source) else f"lies inside {source}"
            raise UsageError(f"{out} {where}", "give an output folder outside of the input folder")
    if not found:
        raise UsageError(f"no {images.KINDS} picture in {given}")
    return out


def _single_folder(source: Path, out: Path | None, naming: Naming) -> Path:
    """The folder that a single picture is written to; `out` itself unless it names a file."""
    folder = source.parent if out is None else out if out.is_dir() or not out.suffix else out.parent
    _check_folder(folder)
    if out is None or folder == out:
        return folder
    if out.suffix.lower() not in images.FORMATS:
        raise UsageError(f"{out} has no suffix that is written", f"use one of {', '.join(images.FORMATS)}")
    if naming.dotted and images.FORMATS[out.suffix.lower()] != images.FORMATS[naming.dotted]:
        raise UsageError(f"{out} does not end with {naming.dotted}, as --format asks", "leave --format out")
    if naming.suffix is not None:
        raise UsageError(f"--suffix is given, and {out} is a whole name already", "leave --suffix out")
    return folder


def _check_folder(out: Path) -> None:
    try:
        blocked = next((p for p in (out, *out.parents) if p.exists() and not p.is_dir()), None)
    except OSError as error:
        raise UsageError(f"{out} cannot be a folder: {error.strerror}") from error
    if blocked:
        hint = "give another OUT: of several arguments, the last"
        raise UsageError(f"{blocked} is a file; expected a folder for the output", hint)


def _key(path: Path, ignores_case: bool) -> str:
    """Equal for paths of one file."""
    return unicodedata.normalize("NFC", str(path)).casefold() if ignores_case else str(path)


def _check(tasks: Sequence[Task], ignores_case: bool) -> None:
    originals = {_key(real(task.source), ignores_case) for task in tasks}
    makers: dict[str, tuple[Path, Path]] = {}
    for source, target in [(task.source, target) for task in tasks for target in task.files]:
        if _key(real(target), ignores_case) in originals:
            raise UsageError(f"{target} would overwrite an original", "give another OUT, or --suffix _x4")
        if found := makers.get(_key(target, ignores_case)):
            other, same = found
            names = str(target) if same == target else f"{same} and {target}, one and the same file here"
            raise UsageError(f"{other} and {source} would both become {names}", "rename one of them")
        makers[_key(target, ignores_case)] = (source, target)


def _ignores_case(folder: Path) -> bool:
    """Whether the file system of a folder, which may not exist yet, takes A and a for the same name."""
    place = real(folder)
    named = (p for p in (place, *place.parents) if p.exists() and p.name.swapcase() != p.name)
    existing = next(named, None)
    if existing is None:
        return False
    other = existing.with_name(existing.name.swapcase())
    return other.exists() and other.samefile(existing)
