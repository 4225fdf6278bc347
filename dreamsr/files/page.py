"""Reports as one self-contained HTML page: tables, a plot, pictures to compare; nothing is loaded from elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dreamsr.files.atomic import atomic
from dreamsr.files.images import data_uri

LARGEST = 432
"""Side of the largest picture that a page should hold, in pixels: cut a part out of larger ones."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 70, 20, 460, 300
"""The frame of a plot in its picture."""


@dataclass(frozen=True)
class Table:
    """Text in rows; the first column names them."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: bool = False
    """Cells are text, not numbers with intervals."""


@dataclass(frozen=True)
class Point:
    """A point with the ends of its intervals."""

    label: str
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """Points in a plane."""

    title: str
    x_title: str
    y_title: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Shot:
    """A picture (3, H, W) in [-1, 1] and its name."""

    label: str
    picture: Tensor


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one size under a slider, and others of that size beside them."""

    title: str
    before: Shot
    after: Shot
    others: Sequence[Shot] = ()


@dataclass(frozen=True)
class Page:
    """What a report shows, from top to bottom."""

    title: str
    summary: str
    tables: Sequence[Table] = ()
    plot: Plot | None = None
    comparisons: Sequence[Comparison] = ()
    remarks: Sequence[str] = ()


def write(path: Path, page: Page) -> None:
    """Write `page` whole or not at all; raises DreamSRError where that is impossible."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dreamsr"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"uri": data_uri}
    template = environment.get_template("report.html")
    text = template.render(page=page, axes=page.plot and _axes(page.plot))
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # a name may be no UTF-8


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[str]:
        """Three to ten round values."""
        step = 10 ** math.floor(math.log10(self.high - self.low))
        step *= next(
            factor for factor in (1, 0.5, 0.2) if (self.high - self.low) / (step * factor) >= 4 or factor == 0.2
        )
        digits = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [f"{i * step:.{digits}f}" for i in range(first, last + 1)]


def _axes(plot: Plot) -> tuple[_Axis, _Axis]:
    xs = [x for point in plot.points for x in (point.x, *point.x_range)]
    ys = [y for point in plot.points for y in (point.y, *point.y_range)]
    return _axis(xs, _LEFT, _LEFT + _WIDTH), _axis(ys, _TOP + _HEIGHT, _TOP)


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    known = [value for value in values if math.isfinite(value)]
    margin = 0.06 * (max(known) - min(known)) or 0.5
    return _Axis(min(known) - margin, max(known) + margin, start, end)
