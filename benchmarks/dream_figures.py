"""The figures of the study, on white so that they can be read in light and in dark."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from dream_discrepancy import Gap
from dream_findings import Array, Group, values
from dream_runs import EQUAL_TIME, LAST, POINTS
from dream_scores import FEW, MOST, WATCHED, Score

from dreamsr.words import counted

COLORS = {"plain": "#c44e00", "p = 1": "#0060b0"}
LABELS = {"psnr_y": "PSNR-Y in dB", "lpips": "LPIPS (lower is better)"}
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "dreamsr", "axes.grid": True, "grid.alpha": 0.3})


def training(scores: Sequence[Score], seconds: Mapping[str, float], path: Path) -> None:
    """Quality against the time of training."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for key, ax in zip(LABELS, axes, strict=True):
        for method in COLORS:
            points = (*POINTS, EQUAL_TIME) if method == "plain" else POINTS
            curves = np.stack([values(scores, Group(method, n, WATCHED), key).mean(1) for n in points])
            _plot(ax, [n * seconds[method] for n in points], curves, method)
        ax.set_xscale("log")
        ax.set_ylabel(LABELS[key])
    axes[0].legend(fontsize=9)
    figure.supxlabel(f"seconds of training (sampled in {counted(WATCHED, 'step')})", fontsize=10)
    _save(figure, path)


def sampling(scores: Sequence[Score], path: Path) -> None:
    """Quality against the steps of sampling, after equal times of training."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = (*FEW, MOST)
    for key, ax in zip(LABELS, axes, strict=True):
        for method, trained in (("plain", EQUAL_TIME), ("p = 1", LAST)):
            curves = np.stack([values(scores, Group(method, trained, n), key).mean(1) for n in counts])
            _plot(ax, counts, curves, method)
        ax.set_xscale("log")
        ax.set_xticks(counts, list(map(str, counts)))
        ax.minorticks_off()
        ax.set_ylabel(LABELS[key])
    axes[0].legend(fontsize=9)
    figure.supxlabel("steps of sampling", fontsize=10)
    _save(figure, path)


def discrepancy(gaps: Sequence[Gap], path: Path) -> None:
    """Errors of the estimate on the way from noise to picture: means over seeds, and bands that hold all seeds."""
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for (method, color), (kind, style) in product(COLORS.items(), (("sampling", "-"), ("training", "--"))):
        mine = sorted((gap.seed, gap.lam, getattr(gap, kind)) for gap in gaps if gap.method == method)
        lambdas = sorted({lam for _, lam, _ in mine})
        table = np.array([error for _, _, error in mine]).reshape(-1, len(lambdas))
        ax.plot(lambdas, table.mean(0), style, color=color, label=f"{method}, {kind}")
        ax.fill_between(lambdas, table.min(0), table.max(0), color=color, alpha=0.2, linewidth=0)
    ax.set_xlabel("lambda = log(alpha / sigma): noise on the left, picture on the right")
    ax.set_ylabel("error of the estimate, levels of 8 bits")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=9)
    _save(figure, path)


def _plot(ax: Any, x: Sequence[float], curves: Array, method: str) -> None:
    """A thin line a seed, curves (len(x), seeds), and their mean."""
    ax.plot(x, curves, color=COLORS[method], linewidth=0.5)
    ax.plot(x, curves.mean(1), color=COLORS[method], marker="o", markersize=4, label=method)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
