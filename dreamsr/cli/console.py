"""All output: data on stdout, talk on stderr, and the only use of rich."""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

_talk = Console(stderr=True, highlight=False, soft_wrap=True)
_PLAIN_SECONDS = 10.0


def say(text: str) -> None:
    """A remark."""
    _talk.print(escape(text))


def warn(text: str) -> None:
    """Something the user should know; the work goes on."""
    _talk.print(f"[bold yellow]warning:[/] {escape(text)}")


def error(message: str, hint: str = "") -> None:
    """What went wrong and what to type next, on one line each."""
    _talk.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        _talk.print(f"  hint: {escape(hint)}")


def data(text: str) -> None:
    """The result of a command, for other programs too."""
    sys.stdout.write(text + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: drawn on a terminal, tab-separated elsewhere."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            data("\t".join(row))
        return
    drawn = Table(*columns)
    for row in rows:
        drawn.add_row(*map(escape, row))
    Console().print(drawn)


class Advance(Protocol):
    """Report one item done."""

    def __call__(self, label: str, text: str, remark: bool = False) -> None:
        """`label` stands beside the bar; `text` is a line where there is no bar, and everywhere if a `remark`."""


@contextmanager
def progress(total: int, unit: str) -> Iterator[Advance]:
    """A bar with rate and remaining time on a terminal; plain lines elsewhere."""
    start, done, worked = time.monotonic(), 0, 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        console=_talk,
        disable=not _talk.is_terminal,
    )
    with bar:
        job = bar.add_task("", total=total, pace="")

        def advance(label: str, text: str, remark: bool = False) -> None:
            # what was skipped took no time and says nothing of the time that is left
            nonlocal done, worked
            done, worked = done + 1, worked + (not remark)
            seconds = time.monotonic() - start
            pace = (
                f"{worked / seconds:.2f} {unit}/s, {duration((total - done) * seconds / worked)} left" if worked else ""
            )
            if remark:
                _talk.print(escape(text))
            elif not _talk.is_terminal:
                _talk.print(escape(f"[{done}/{total}] {text} ({pace})"))
            bar.update(job, advance=1, description=escape(label), pace=pace)

        yield advance


class Board(Protocol):
    """Show the latest values."""

    def __call__(self, values: Mapping[str, str]) -> None: ...


@contextmanager
def board() -> Iterator[Board]:
    """A live table of the latest values on a terminal; a plain line every 10 seconds elsewhere."""
    shown = -math.inf

    if not _talk.is_terminal:

        def plain(values: Mapping[str, str]) -> None:
            nonlocal shown
            if time.monotonic() - shown >= _PLAIN_SECONDS:
                shown = time.monotonic()
                _talk.print(escape("  ".join(f"{k} {v}" for k, v in values.items())))

        yield plain
        return
    with Live(console=_talk, refresh_per_second=4) as live:

        def draw(values: Mapping[str, str]) -> None:
            drawn = Table(*values)
            drawn.add_row(*map(escape, values.values()))
            live.update(drawn)

        yield draw


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
