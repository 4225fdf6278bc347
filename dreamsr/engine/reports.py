"""What the pages of `eval` and `upscale` show."""

import itertools
import math
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from dreamsr import __version__
from dreamsr.engine import evaluation
from dreamsr.engine.evaluation import Evaluation
from dreamsr.engine.evaluator import Benchmark, Bicubic, Contender
from dreamsr.engine.measure import COLUMNS
from dreamsr.engine.statistics import Means
from dreamsr.engine.work import Result
from dreamsr.errors import ImageError
from dreamsr.files import images
from dreamsr.files.page import LARGEST, Comparison, Page, Plot, Point, Shot, Table
from dreamsr.words import counted

_ENDS = 2
"""How many of the best pictures are shown, and of the worst."""
_FIRST = 4
"""How many pictures of a job are shown."""
_ERROR_WHITE = 64
"""Levels of 255 from which on an error map is white."""


def evaluation_page(benchmark: Benchmark, found: Evaluation) -> Page:
    """Tables, perception against distortion, and the best and worst pictures of the best method."""
    return Page(
        "Evaluation",
        f"{counted(len(found.pictures), 'picture')}, {counted(len(found.methods), 'method')}, dreamsr {__version__}",
        [_titled(table) for table in evaluation.tables(found)],
        _perception_distortion(found.means),
        _best_and_worst(benchmark, found),
        evaluation.remarks(found),
    )


def _titled(table: Table) -> Table:
    corner, *keys = table.header
    arrows = {1: "\N{UPWARDS ARROW}", -1: "\N{DOWNWARDS ARROW}"}
    names = [f"{COLUMNS[key].title} {arrows[COLUMNS[key].better]}" for key in keys]
    return Table(["method", *names], table.rows, corner.capitalize())


def _perception_distortion(means: Mapping[str, Means]) -> Plot | None:
    """LPIPS over PSNR (Blau and Michaeli 2018) where both were measured."""
    x = "psnr_y" if all("psnr_y" in scores for scores in means.values()) else "psnr_rgb"
    points = [
        Point(name, scores[x].value, scores["lpips"].value, _range(scores, x), _range(scores, "lpips"))
        for name, scores in means.items()
        if "lpips" in scores and math.isfinite(scores[x].value)
    ]
    if not points:
        return None
    titles = (f"{COLUMNS[x].title} in dB: more is more faithful", "LPIPS (AlexNet): less looks more alike")
    return Plot("Perception and distortion", *titles, points)


def _range(scores: Means, key: str) -> tuple[float, float]:
    return scores[key].low, scores[key].high


def _best_and_worst(benchmark: Benchmark, found: Evaluation) -> list[Comparison]:
    """The pictures on which the best method by mean LPIPS (else PSNR) does best and worst."""
    means = found.means
    key = next(key for key in ("lpips", "psnr_y", "psnr_rgb") if key in found.rows[0].scores)
    sign = COLUMNS[key].better
    own = [contender for contender in benchmark.contenders if not isinstance(contender, Bicubic)]
    method = max(own, key=lambda contender: sign * means[contender.name][key].value)
    scores = {row.picture: row.scores[key] for row in found.rows if row.method == method.name}
    order = sorted(scores, key=lambda name: -sign * scores[name])
    ends = dict.fromkeys(order[-_ENDS:], "worst") | dict.fromkeys(order[:_ENDS], "best")
    return [
        _against_original(
            benchmark,
            method,
            name,
            f"{name}: {COLUMNS[key].title} {scores[name]:.{COLUMNS[key].digits}f}, among the {end}",
        )
        for name, end in sorted(ends.items(), key=lambda item: order.index(item[0]))
    ]


def _against_original(benchmark: Benchmark, method: Contender, name: str, title: str) -> Comparison:
    """A picture beside bicubic or the original, made again, where it errs most."""
    case = benchmark.case(name)
    sr, hr = method(case)[0], case.hr
    error = (sr - hr).abs().mean(0, keepdim=True)
    enlarged = [] if case.lr is None else [Shot("bicubic", Bicubic()(case)[0])]
    white = Shot(f"error, white: {_ERROR_WHITE} levels or more", (error * 255 / _ERROR_WHITE - 1).expand(3, -1, -1))
    part = _worst_part(error)
    shots = [Shot(s.label, s.picture[part]) for s in (*enlarged, Shot("original", hr), white)]
    return Comparison(title, shots[0], Shot(method.name, sr[part]), shots[1:])


def _worst_part(error: Tensor) -> tuple[slice, slice, slice]:
    """Where (1, H, W) has the largest mean over as much as a page shows."""
    height, width = (min(LARGEST, n) for n in error.shape[-2:])
    sums = F.avg_pool2d(error, (height, width), stride=16)[0]
    top, left = (16 * i for i in divmod(int(sums.argmax()), sums.shape[1]))
    return slice(None), slice(top, top + height), slice(left, left + width)


def job_page(results: Sequence[Result], summary: str) -> Page:
    """What became of the pictures of a job, and the first of them before and after."""
    header = ["input", "output", "size", "status", "seconds", "LR-PSNR", "remarks"]
    table = Table(header, [_line(result) for result in results], "Files", words=True)
    return Page("Upscaled pictures", f"{summary}; dreamsr {__version__}", [table], None, _firsts(results))


def _line(result: Result) -> list[str]:
    height, width = result.size
    size = f"{width}x{height}" if result.status == "done" else ""
    remarks = "; ".join(filter(None, [result.message, *result.warnings]))
    names = [str(result.task.source), str(result.task.target)]
    agreement = "" if result.agreement is None else f"{result.agreement:.1f}"
    return [*names, size, result.status, f"{result.seconds:.2f}", agreement, remarks]


def _firsts(results: Sequence[Result]) -> list[Comparison]:
    """Of those that can be read again: others were taken away meanwhile, or have more pixels than are read."""
    done = (result for result in results if result.status == "done")
    return list(itertools.islice(filter(None, map(_before_and_after, done)), _FIRST))


def _before_and_after(result: Result) -> Comparison | None:
    """The middle of a picture, enlarged by bicubic and as it was written; None where it cannot be read."""
    try:
        after, before = (images.read(path).color for path in (result.task.target, result.task.source))
    except ImageError:
        return None
    bicubic, made = images.halves(before, after, LARGEST)
    return Comparison(result.task.target.name, Shot("bicubic", bicubic), Shot("dreamsr", made))
