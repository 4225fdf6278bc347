"""What `dreamsr upscale` says of its files: lines and a summary for people, JSON for programs."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamsr.cli import console
from dreamsr.words import counted

if TYPE_CHECKING:
    from dreamsr.engine.estimate import Estimate
    from dreamsr.engine.planning import Task
    from dreamsr.engine.resume import Verdict
    from dreamsr.engine.work import Result


_MOST = 20
"""Warnings that the summary says again."""


class Report:
    """Shows results as they come; `as_json` puts one object a file on stdout, and one of the whole.

    page: where an HTML page is written at the end.
    """

    def __init__(self, tasks: "Sequence[Task]", as_json: bool = False, page: Path | None = None) -> None:
        self._tasks, self._json, self._page = tasks, as_json, page
        self._results: list[Result] = []
        self._start = time.monotonic()

    @property
    def failed(self) -> bool:
        return any(result.status == "failed" for result in self._results)

    def follow(self, results: "Iterable[Result]") -> None:
        """Show every result as it comes."""
        waiting = {task.output: task for task in self._tasks}
        total = sum(task.megapixels for task in self._tasks)
        with console.progress(len(self._tasks), "MP", total, self._tasks[0].input) as advance:
            for result in results:
                self._results.append(result)
                del waiting[result.task.output]
                current = next(iter(waiting.values()), result.task).input
                idle = result.status != "done"
                remark = result.status != "done" or bool(result.warnings)
                advance(current, _line(result), result.task.megapixels, remark=remark, idle=idle)
                if self._json:
                    console.data(json.dumps(_document(result)))

    def summary(self) -> None:
        """Counts, speed, and once more every failure and the first warnings."""
        seconds, results = time.monotonic() - self._start, self._results
        self._list_remarks()
        counts = {status: sum(r.status == status for r in results) for status in ("done", "skipped", "failed")}
        missing, elsewhere = len(self._tasks) - len(results), sum(r.elsewhere for r in results)
        done = [r for r in results if r.status == "done"]
        megapixels = sum(r.size[0] * r.size[1] for r in done) / 1e6
        reasons = Counter(r.message for r in done if r.message and not r.elsewhere)
        again = [f"{count} made again: {reason}" for reason, count in reasons.items()]
        again += [f"{elsewhere} of them by other processes"] if elsewhere else []
        speed = [f"{megapixels:.2f} MP in {console.duration(seconds)}"] if megapixels else []
        left = [f"{missing} not done"] if missing else []
        all_in_all = ", ".join([*(f"{n} {status}" for status, n in counts.items() if n), *left, *again, *speed])
        console.say(all_in_all)
        if self._json:
            whole = {
                **counts,
                "files": len(self._tasks),
                "elsewhere": elsewhere,
                "not_done": missing,
                "seconds": round(seconds, 3),
                "megapixels": round(megapixels, 3),
            }
            console.data(json.dumps({"summary": whole}))
        if self._page:
            self._write(self._page, all_in_all)

    def _list_remarks(self) -> None:
        by_name = [(str(result.task.source), result) for result in self._results]
        # in most cases the message of a failure begins with the name
        failures = [
            ("failed", name, re.sub(f"^{re.escape(name)}:? ", "", result.message))
            for name, result in by_name
            if result.status == "failed"
        ]
        warnings = [("warning", name, text) for name, result in by_name for text in result.warnings]
        if failures or warnings:
            console.list_up("to look at", [*failures, *warnings[:_MOST]])
        if (more := len(warnings) - _MOST) > 0:
            console.warn(f"and {counted(more, 'more warning')}; all of them are in the manifest")

    def _write(self, path: Path, summary: str) -> None:
        from dreamsr.engine import reports
        from dreamsr.files import page

        page.write(path, reports.job_page(self._results, summary))
        console.say(f"report: {path}")

    def plan(self, verdicts: "Sequence[tuple[Task, Verdict]]", estimate: "Estimate") -> None:
        """What would be done, and what it would take."""
        documents = [_planned(task, verdict) for task, verdict in verdicts]
        todo = [document for document in documents if document["status"] in ("new", "again")]
        whole = {
            "files": len(documents),
            "to_do": len(todo),
            "megapixels": round(sum(d["width"] * d["height"] for d in todo) / 1e6, 3),
            "tiles": estimate.tiles,
            "seconds": round(estimate.seconds, 1),
            "bytes": estimate.bytes,
        }
        if self._json:
            for document in [*documents, {"summary": whole}]:
                console.data(json.dumps(document))
        else:
            rows = [[d["input"], d["output"], _size(d), d["status"], d["message"]] for d in documents]
            console.table(["input", "output", "size", "status", "why"], rows)
        console.say(
            f"{len(todo)} of {len(documents)} to do: {whole['megapixels']:.2f} MP in {counted(estimate.tiles, 'tile')}"
            f", about {console.duration(estimate.seconds)} (an estimate: tiles measured now), "
            f"{estimate.bytes / 2**20:.0f} MiB for the largest picture besides the network"
        )
        console.say("nothing was written")


def _line(result: "Result") -> str:
    """One line; nothing for what was done by an earlier run."""
    task, (height, width) = result.task, result.size
    if result.status == "failed":
        return f"failed: {result.message}"
    if result.status == "skipped":
        return f"skipped: {task.target} {result.message} (--overwrite makes it again)" if result.message else ""
    notes = [f"made again: {result.message}"] if result.message else []
    notes += ["by another process"] if result.elsewhere else []
    notes += [] if result.agreement is None else [f"LR-PSNR {result.agreement:.1f} dB"]
    return "; ".join([f"{task.source} -> {task.target} {width}x{height}", *notes, *result.warnings])


def _document(result: "Result") -> dict[str, Any]:
    return {
        "input": str(result.task.source),
        "output": str(result.task.target),
        "status": result.status,
        "message": result.message,
        "width": result.size[1] or None,
        "height": result.size[0] or None,
        "seconds": round(result.seconds, 3),
        "psnr_lr": result.agreement,
        "warnings": list(result.warnings),
    }


def _size(document: dict[str, Any]) -> str:
    return f"{document['width']}x{document['height']}" if document["width"] else ""


def _planned(task: "Task", verdict: "Verdict") -> dict[str, Any]:
    makes = verdict.action == "make"
    status = "skip" if not makes else "fail" if task.problem else "again" if verdict.reason else "new"
    return {
        "input": str(task.source),
        "output": str(task.target),
        "status": status,
        "message": task.problem if makes and task.problem else verdict.reason,
        "width": task.size[1] or None,
        "height": task.size[0] or None,
        "warnings": list(task.remarks),
    }
