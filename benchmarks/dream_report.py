"""The measured part of docs/dream.md: its tables and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import dream_figures
import pages
from dream_cost import Cost
from dream_discrepancy import Gap
from dream_findings import Group, difference, speedup, values
from dream_runs import EQUAL_TIME, HALF, LAST, POINTS
from dream_scores import FEW, MEASURES, MOST, WATCHED, Score

from dreamsr.engine.measure import COLUMNS
from dreamsr.engine.statistics import Mean
from dreamsr.words import counted

MARK = "<!-- measured: python benchmarks/dream.py --only report -->"
DIGITS = {"psnr_y": 2, "ssim_y": 3, "lpips": 3, "psnr_lr": 1}
TITLES = [COLUMNS[key].title for key in MEASURES]
PLAIN, LONGER = ("plain", LAST), ("plain", EQUAL_TIME)
DREAM = ("p = 1", LAST)
EXPONENTS = ("p = 0", "p = 0.5", "p = 1", "p = 2", "p = 3", "plain")


def write(page: Path, scores: Sequence[Score], gaps: Sequence[Gap], costs: Sequence[Cost]) -> None:
    """Replace what lies between the marks of the page, and the figures beside it."""
    seconds = {cost.method: cost.seconds for cost in costs}
    figures = page.parent / "figures"
    dream_figures.training(scores, seconds, figures / "dream-training.svg")
    dream_figures.sampling(scores, figures / "dream-steps.svg")
    dream_figures.discrepancy(gaps, figures / "dream-discrepancy.svg")
    parts = [cost(seconds), differences(scores), convergence(scores, seconds), fewer_steps(scores), exponents(scores)]
    parts.append(discrepancy(gaps))
    pages.replace(page, MARK, "\n\n".join(parts))


def cost(seconds: Mapping[str, float]) -> str:
    ratio = seconds["p = 1"] / seconds["plain"]
    return (
        f"A step of training takes {1000 * seconds['plain']:.1f} ms without DREAM, {1000 * seconds['p = 1']:.1f} ms "
        f"with it: {ratio:.2f} times as long."
    )


def differences(scores: Sequence[Score]) -> str:
    """p = 1 less plain, at equal steps and at equal time of training."""
    lines = [
        [name, str(steps), *_differences(scores, Group(*DREAM, steps), Group(*plain, steps))]
        for name, plain, counts in (("equal steps", PLAIN, FEW), ("equal time", LONGER, (*FEW, MOST)))
        for steps in counts
    ]
    text = f"p = 1 after {LAST} steps of training, less plain after {LAST} (equal steps) or {EQUAL_TIME} (equal time):"
    return f"{text}\n\n" + pages.table(["training", "sampling steps", *TITLES], lines)


def convergence(scores: Sequence[Score], seconds: Mapping[str, float]) -> str:
    """How much sooner p = 1 is as good as plain at the end."""
    ratio = seconds["plain"] / seconds["p = 1"]
    curve = [Group(DREAM[0], trained, WATCHED) for trained in POINTS]
    found = [speedup(scores, curve, Group(*PLAIN, WATCHED), key) for key in MEASURES]
    lines = [
        ["steps", *(_interval(factor, 1) for factor in found)],
        ["time", *(_interval(_scaled(factor, ratio), 1) for factor in found)],
    ]
    text = f"How many times less training p = 1 needs to be as good as plain after {LAST} steps (0: it never is), in "
    text += f"{WATCHED} steps of sampling:"
    return f"{text}\n\n" + pages.table(["training, in", *TITLES], lines)


def _scaled(known: Mean, factor: float) -> Mean:
    return Mean(factor * known.value, factor * known.low, factor * known.high, known.count)


def fewer_steps(scores: Sequence[Score]) -> str:
    """p = 1 in few steps of sampling less plain in many."""
    lines = [[str(steps), *_differences(scores, Group(*DREAM, steps), Group(*LONGER, MOST))] for steps in (*FEW, MOST)]
    text = f"p = 1 in few steps of sampling, less plain ({EQUAL_TIME} steps of training) in {MOST}:"
    return f"{text}\n\n" + pages.table(["sampling steps of p = 1", *TITLES], lines)


def exponents(scores: Sequence[Score]) -> str:
    """All exponents at the first seed."""
    first = [score for score in scores if score.seed == 0]
    lines = [[method, *(_means(first, Group(method, HALF, steps)) for steps in FEW)] for method in EXPONENTS]
    text = f"The exponents, seed 0, {HALF} steps of training; {' / '.join(TITLES)}:"
    return f"{text}\n\n" + pages.table(["", *(counted(steps, "step") for steps in FEW)], lines)


def discrepancy(gaps: Sequence[Gap]) -> str:
    """Errors at some levels, means over seeds."""
    lambdas = sorted({gap.lam for gap in gaps})[::17]
    lines = [
        [method, *(_errors([gap for gap in gaps if (gap.method, gap.lam) == (method, lam)]) for lam in lambdas)]
        for method in (PLAIN[0], DREAM[0])
    ]
    text = "Error of the estimate in levels of 8 bits, at u_t made from the picture / at u_t as sampling makes it:"
    return f"{text}\n\n" + pages.table(["", *(f"lambda = {lam:g}" for lam in lambdas)], lines)


def _errors(gaps: Sequence[Gap]) -> str:
    return f"{mean(gap.training for gap in gaps):.1f} / {mean(gap.sampling for gap in gaps):.1f}"


def _means(scores: Sequence[Score], group: Group) -> str:
    return " / ".join(f"{values(scores, group, key).mean():.{DIGITS[key]}f}" for key in MEASURES)


def _differences(scores: Sequence[Score], group: Group, reference: Group) -> list[str]:
    return [_interval(difference(scores, group, reference, key), DIGITS[key], "+") for key in MEASURES]


def _interval(known: Mean, digits: int, sign: str = "") -> str:
    return f"{known.value:{sign}.{digits}f} ({known.low:{sign}.{digits}f}..{known.high:{sign}.{digits}f})"
