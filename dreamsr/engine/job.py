"""A folder of pictures upscaled: a bounded pipeline of decode, network and encode that shares its work with others."""

import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from dreamsr.core.resize import bicubic
from dreamsr.engine.finish import agreement, finished
from dreamsr.engine.memory import Frugal
from dreamsr.engine.planning import Task
from dreamsr.engine.upscaler import Enlarged
from dreamsr.engine.work import Job, Result, Work, failure
from dreamsr.engine.worker import Worker
from dreamsr.errors import DreamSRError
from dreamsr.files import locks
from dreamsr.files.images import Picture
from dreamsr.files.manifest import Manifest

_BAG_BATCHES = 4
"""Full batches of tiles that a bag of small pictures may fill: the last one of them may be part empty."""
_BAG_LENGTH = 64
"""Pictures in a bag at most."""
_AHEAD_PIXELS = 64_000_000
"""Pixels that may wait between two stages of the pipeline, at 12 bytes each."""
_POLL_SECONDS = 0.2
LOW_AGREEMENT = 40.0
"""PSNR between a picture, reduced again, and its input below which there is a warning."""

T = TypeVar("T")


def run(
    job: Job, tasks: Sequence[Task], manifest: Manifest | None = None, since: int | None = None
) -> Iterator[Result]:
    """Do every task, several small pictures at a time; a broken file is a failed result, not an end.

    Processes that run the same tasks on one manifest share them; each of them ends when all tasks are done.
    since: entries of the manifest that were there when the first of them began (default: now).
    Raises DiskFullError, or DreamSRError when the manifest cannot be written; what is finished stays.
    """
    _sweep(tasks, manifest)
    begun = since if since is not None else len(manifest.entries) if manifest else 0
    worker, upscale = Worker(job, manifest, begun), Frugal(job.upscaler)
    pending = {task.output: task for task in tasks}
    threads, ahead = _beside(job)
    # what decodes and encodes must not ask for all cores again
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        while pending:
            before = len(pending)
            for result in _round(worker, upscale, pool, ahead, list(pending.values())):
                news = [*filter(None, [result]), *worker.news(pending)]
                yield from (r for r in news if pending.pop(r.task.output, None))
            if len(pending) == before:
                time.sleep(_POLL_SECONDS)  # others are at all that is left
    finally:
        pool.shutdown(cancel_futures=True)
        worker.release_all()
        _sweep(tasks, manifest)  # of processes that were killed meanwhile


def _sweep(tasks: Sequence[Task], manifest: Manifest | None) -> None:
    for folder in {task.target.parent for task in tasks}:
        locks.sweep(folder, None if manifest else tasks[0].target)


def _round(
    worker: Worker, upscale: Frugal, pool: ThreadPoolExecutor, ahead: int, tasks: list[Task]
) -> Iterator[Result | None]:
    """The result of every task, or None where another process is at it."""
    opened = _window(((pool.submit(worker.open, task), math.prod(task.input_size)) for task in tasks), ahead)
    enlarged = (work for bag in _bags(opened, worker.job) for work in _enlarge(bag, worker.job, upscale))
    return _window(((pool.submit(worker.close, work), math.prod(work.task.size)) for work in enlarged), ahead)


def _beside(job: Job) -> tuple[int, int]:
    """Threads that decode and encode, and how many pictures they may be ahead or behind.

    On a CPU the network needs the cores. A GPU would wait: it makes a whole bag at a time.
    """
    on_cpu = job.upscaler.model.device.type == "cpu"
    return (2, 4) if on_cpu else (min(8, os.cpu_count() or 1), 2 * _BAG_LENGTH)


def _enlarge(bag: list[Work], job: Job, upscale: Frugal) -> Iterator[Work]:
    """The bag with its pictures enlarged."""
    good = [work.picture for work in bag if work.picture]
    sizes = [job.made_size(picture.size) for picture in good]
    start = time.perf_counter()
    try:
        outputs, remark = upscale([picture.color for picture in good], sizes) if good else ([], "")
    except DreamSRError as error:
        yield from (_failed(work, error) if work.picture else work for work in bag)
        return
    seconds, total = time.perf_counter() - start, sum(map(math.prod, sizes))
    enlarged = iter(zip(outputs, sizes, strict=True))
    for work in bag:
        if work.picture:
            made, size = next(enlarged)
            share = seconds * math.prod(size) / total
            done = _assemble(replace(work, seconds=work.seconds + share), made, job)
            yield replace(done, picture=done.picture and _remarked(done.picture, remark))
            remark = ""
        else:
            yield work


def _failed(work: Work, error: DreamSRError) -> Work:
    return replace(work, picture=None, result=failure(work.task, error))


def _remarked(picture: Picture, remark: str) -> Picture:
    return replace(picture, remarks=(*picture.remarks, remark)) if remark else picture


def _assemble(work: Work, made: Enlarged, job: Job) -> Work:
    assert work.picture
    source, size = work.picture, job.output_size(work.picture.size)
    try:
        whole = finished(source, made.color, size)
    except DreamSRError as error:
        return _failed(work, error)
    found = agreement(made.color, source, job.upscaler.model.config)
    low = found is not None and found < LOW_AGREEMENT
    return replace(
        work,
        picture=_remarked(whole, f"reduced again, it is {found:.1f} dB from its input" if low else ""),
        before=source if work.task.sheet else None,
        deviation=None if made.deviation is None else bicubic(made.deviation[None, None], size)[0, 0],
        agreement=found,
    )


def _window(futures: Iterable[tuple[Future[T], int]], ahead: int) -> Iterator[T]:
    """Results in order, while futures (with the pixels they hold) run a little ahead of the consumer."""
    waiting: deque[tuple[Future[T], int]] = deque()
    for item in futures:
        waiting.append(item)
        while len(waiting) > ahead or sum(pixels for _, pixels in waiting) > _AHEAD_PIXELS:
            yield waiting.popleft()[0].result()
    for future, _ in waiting:
        yield future.result()


def _bags(opened: Iterable[Work], job: Job) -> Iterator[list[Work]]:
    """Consecutive works, at least one, whose tiles fill up to _BAG_BATCHES batches together."""
    upscaler, tiles = job.upscaler, 0
    bag: list[Work] = []
    for work in opened:
        count = upscaler.tiles(job.made_size(work.picture.size)) if work.picture else 0
        if bag and (tiles + count > _BAG_BATCHES * upscaler.tiling.batch or len(bag) == _BAG_LENGTH):
            yield bag
            bag, tiles = [], 0
        bag.append(work)
        tiles += count
    if bag:
        yield bag
