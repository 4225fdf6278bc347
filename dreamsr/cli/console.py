"""All output: data on stdout, talk on stderr, and the only use of rich."""

import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import typer
from rich import markup
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from dreamsr.errors import DreamSRError

_talk = _alarm = Console(stderr=True, highlight=False, soft_wrap=True)
_PLAIN_SECONDS = 10.0
_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160))}
_WIDE = 72
"""Columns from which on a bar has room beside name, count and pace."""


def prepare() -> None:
    """Print what the terminal's encoding lacks, as in names of files, with backslashes; nothing on a closed stdout."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quieten() -> None:
    """Say only warnings, failures and errors from now on."""
    global _talk
    _talk = Console(quiet=True, force_terminal=False)


def hush() -> None:
    """Say nothing but errors from now on: another process speaks for this one."""
    quieten()
    _alarm.quiet = True


def visible(text: str) -> str:
    """Control characters, which names of files may have, as backslashes, so that a line is one line."""
    return text.translate(_CONTROLS)


def escape(text: str) -> str:
    """Text as rich is to print it: control characters as backslashes, and nothing taken for markup."""
    return markup.escape(visible(text))


def say(text: str) -> None:
    """Print a remark, unless the program is quiet."""
    _talk.print(escape(text))


def warn(text: str) -> None:
    """Something the user should know; the work goes on."""
    _alarm.print(f"[bold yellow]warning:[/] {escape(text)}")


def error(message: str, hint: str = "") -> None:
    """What went wrong and what to type next, on one line each."""
    _alarm.quiet = False
    _alarm.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        _alarm.print(f"  hint: {escape(hint)}")


def data(text: str) -> None:
    """The result of a command, for other programs too."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        raise  # whoever reads has enough, and typer ends the program
    except OSError as error:
        raise DreamSRError(f"cannot write to standard output: {error.strerror}") from error


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], turn: bool = False) -> None:
    """A table on stdout: drawn on a terminal, tab-separated elsewhere.

    turn: on a terminal, exchange rows and columns if that makes it narrower.
    """
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            data("\t".join(map(visible, row)))
        return
    if turn and len(columns) > len(rows) + 1:
        columns, *rows = zip(columns, *rows, strict=True)
    drawn = Table(*(Column(column, overflow="fold") for column in columns))
    for row in rows:
        drawn.add_row(*map(escape, row))
    Console().print(drawn)


def list_up(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Remarks on files, (kind, file, text), on stderr: a table on a terminal, lines elsewhere."""
    if not _alarm.is_terminal:
        for kind, name, text in rows:
            _alarm.print(escape(f"{kind}: {name}: {text}"))
        return
    drawn = Table("", Column("file", overflow="fold"), Column("what", overflow="fold"), title=title)
    for row in rows:
        drawn.add_row(*map(escape, row))
    _alarm.print(drawn, soft_wrap=False)


class Advance(Protocol):
    """Report one item done."""

    def __call__(self, label: str, text: str, work: float = 1.0, *, remark: bool = False, idle: bool = False) -> None:
        """`label` stands beside the bar; `text` is a line where there is no bar, and everywhere if a `remark`.

        work: its part of the total. idle: it took no time, and says nothing of the time that is left.
        """


@contextmanager
def progress(count: int, unit: str, total: float | None = None, label: str = "") -> Iterator[Advance]:
    """A bar with rate and remaining time on a terminal; plain lines elsewhere.

    total: the work of all `count` items in `unit` (default: 1 each). label: what stands beside the bar at first.
    """
    start, done, worked, left = time.monotonic(), 0, 0.0, float(count) if total is None else total
    with _bar() as bar:
        job = bar.add_task(escape(label), total=count, pace="")

        def advance(label: str, text: str, work: float = 1.0, *, remark: bool = False, idle: bool = False) -> None:
            nonlocal done, worked, left
            done, left, worked = done + 1, max(0.0, left - work), worked + (0.0 if idle else work)
            pace = _pace(worked, left, unit, time.monotonic() - start)
            if text and _talk.is_terminal and remark:
                _talk.print(escape(text))
            elif text and not _talk.is_terminal:
                note = f" ({pace})" if pace and not idle else ""
                _talk.print(escape(f"[{done}/{count}] {text}{note}"))
            bar.update(job, advance=1, description=escape(label), pace=pace)

        yield advance


def _bar() -> Progress:
    """One line of the terminal, however narrow it is: names are cut, and the bar is left out first."""
    plain = Column(no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        *([BarColumn(20, table_column=plain)] if _talk.width >= _WIDE else []),
        MofNCompleteColumn(table_column=plain),
        TextColumn("{task.fields[pace]}", table_column=plain),
        console=_talk,
        disable=not _talk.is_terminal,
        expand=True,
    )


def _pace(worked: float, left: float, unit: str, seconds: float) -> str:
    return f"{worked / seconds:.2f} {unit}/s, {duration(left * seconds / worked)} left" if worked else ""


Board = Callable[[Mapping[str, str]], None]
"""Show the latest values, by name."""


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
    """Seconds as 1:02:03, or as 2:03 under an hour."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
