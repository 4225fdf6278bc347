"""The two ends of the pipeline, run in threads: claim, judge and decode; encode, note and release."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dreamsr.engine.outputs import LOSSY
from dreamsr.engine.planning import Task
from dreamsr.engine.resume import Judge, Verdict
from dreamsr.engine.work import Job, Result, Work, failure
from dreamsr.errors import DiskFullError, DreamSRError
from dreamsr.files import images, locks, uncertainty
from dreamsr.files.images import Picture
from dreamsr.files.manifest import Entry, Manifest, file_digest

_SHEET_SIDE = 512
"""Longest side of the two halves of a comparison, in pixels of the output."""


class Worker:
    """One process's part in a job. A task that it has claimed is its own until `close`."""

    def __init__(self, job: Job, manifest: Manifest | None, since: int) -> None:
        self.job, self.manifest = job, manifest
        self.judge = Judge(manifest, job.settings, since, job.overwrite)
        self._claims: dict[Task, list[locks.Claim]] = {}
        self._own: set[str] = set()
        self._seen = since

    def open(self, task: Task) -> Work:
        """Claim a task, judge whether it is to be made, and decode its picture; what goes wrong becomes its result."""
        start = time.perf_counter()
        entry = None
        try:
            # what the manifest knows costs no lock; an output that it does not know may be one that another
            # process is about to note, so that only the owner of the claim can judge it
            verdict = self.judge(task)
            result = self._known(task, verdict) if verdict.entry and verdict.entry.status != "begun" else None
            if result or not self._claim(task):
                return Work(task, result)
            verdict = self.judge(task)
            if result := self._known(task, verdict):
                return Work(task, result)
            entry = self._entry(task)
            if task.problem:
                raise DreamSRError(task.problem)
            picture = self._read(task)
        except DreamSRError as error:
            return Work(task, failure(task, error), entry=entry)
        return Work(task, picture=picture, reason=verdict.reason, entry=entry, seconds=time.perf_counter() - start)

    def _read(self, task: Task) -> Picture:
        """The picture as the network should see it, with the metadata that its output gets."""
        picture, made_by = images.bled(images.read(task.source)), self.job.provenance
        kept = picture.metadata.stripped() if self.job.strip_metadata else picture.metadata
        factor = self.job.factor(picture.size)
        quality = self.job.quality if task.target.suffix.lower() in LOSSY else None
        stripped = self.job.strip_metadata or None
        noted = made_by and replace(made_by, source=task.source.name, scale=factor, quality=quality, stripped=stripped)
        return replace(picture, metadata=replace(kept, provenance=noted))

    def close(self, work: Work) -> Result | None:
        """Write the picture, note what became of it, and let go of it."""
        try:
            result, entry = self._write(work, work.picture) if work.picture else (work.result, work.entry)
            if result and entry:
                self._note(entry, result)
            return result
        finally:
            self._release(work.task)

    def news(self, pending: Mapping[str, Task]) -> Iterator[Result]:
        """Results of pending tasks that other processes have finished since the last call."""
        if self.manifest is None:
            return
        self.manifest.refresh()
        fresh = self.manifest.entries[self._seen :]
        self._seen += len(fresh)
        for entry in fresh:
            if entry.output not in self._own and entry.settings == self.judge.settings and entry.output in pending:
                yield _elsewhere(pending[entry.output], entry)

    def release_all(self) -> None:
        """Let go of what was interrupted, after the threads have ended."""
        for task in list(self._claims):
            self._release(task)

    def _known(self, task: Task, verdict: Verdict) -> Result | None:
        """The result of what need not be made."""
        if verdict.action == "make":
            return None
        if verdict.action == "settled" and verdict.entry:
            return _elsewhere(task, verdict.entry)
        made = verdict.entry
        return Result(task, "skipped", verdict.reason, (made.height, made.width) if made else (0, 0))

    def _write(self, work: Work, picture: Picture) -> tuple[Result, Entry | None]:
        start, entry = time.perf_counter(), work.entry

        def begun(part: Path) -> None:
            nonlocal entry
            entry = entry and self._begin(entry, work.task, picture, part)

        try:
            if work.task.sheet and work.before:
                halves = images.halves(work.before.color, picture.color, _SHEET_SIDE)
                images.write_sheet(work.task.sheet, [[x] for x in halves])
            if work.task.maps and work.deviation is not None:
                uncertainty.write(*work.task.maps, work.deviation)
            lost = images.write(work.task.target, picture, self.job.quality, begun)
        except DiskFullError:
            raise
        except DreamSRError as error:
            return failure(work.task, error), work.entry
        seconds = work.seconds + time.perf_counter() - start
        warnings = (*work.task.remarks, *picture.remarks, *lost)
        return Result(work.task, "done", work.reason, picture.size, seconds, warnings, work.agreement), entry

    def _entry(self, task: Task) -> Entry | None:
        if self.manifest is None:
            return None
        upscaler = self.job.upscaler
        entry = Entry(
            task.output,
            task.input,
            "failed",
            self.judge.settings,
            self.job.model,
            upscaler.settings.seed,
            upscaler.compiled,
        )
        try:
            status, sha256 = task.source.stat(), file_digest(task.source)
        except OSError:
            return entry  # decoding will say what is wrong
        return replace(entry, input_sha256=sha256, input_bytes=status.st_size, input_mtime_ns=status.st_mtime_ns)

    def _begin(self, entry: Entry, task: Task, picture: Picture, part: Path) -> Entry:
        """Note what is about to become the output: should the process be killed then, it is known for what it is."""
        assert self.manifest
        known = replace(
            entry,
            status="begun",
            output_bytes=part.stat().st_size,
            output_sha256=file_digest(part),
            width=picture.size[1],
            height=picture.size[0],
            beside=tuple(path.name for path in task.files[1:]),
        )
        self.manifest.append(known)
        return known

    def _note(self, entry: Entry, result: Result) -> None:
        assert self.manifest
        self._own.add(entry.output)
        self.manifest.append(
            replace(
                entry,
                status="done" if result.status == "done" else "failed",
                seconds=round(result.seconds, 3),
                message=result.message,
                warnings=result.warnings,
                agreement=result.agreement,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )

    def _claim(self, task: Task) -> bool:
        claims = self._claims.setdefault(task, [])
        for path in task.files:
            lock = locks.claim(path)
            if lock is None:
                self._release(task)
                return False
            claims.append(lock)
        if self.manifest:
            self.manifest.refresh()
        return True

    def _release(self, task: Task) -> None:
        for lock in self._claims.pop(task, []):
            locks.release(lock)


def _elsewhere(task: Task, entry: Entry) -> Result:
    size = (entry.height, entry.width)
    warnings = tuple(entry.warnings)
    status: Literal["done", "failed"] = "done" if entry.status == "done" else "failed"
    return Result(task, status, entry.message, size, entry.seconds, warnings, entry.agreement, elsewhere=True)
