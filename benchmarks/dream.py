"""DREAM against plain diffusion, small: trains ten models, measures them, writes figures and tables of docs/dream.md.

    python scripts/split_by_photo.py PHOTOS runs/data
    python benchmarks/dream.py --pictures Set14

Trainings go on where they stopped, and what is measured already is not measured again. LPIPS needs its weights
($DREAMSR_LPIPS_WEIGHTS). The page is written from docs/figures/dream-*.csv: python benchmarks/dream.py --only report
"""

import argparse
import sys
from pathlib import Path

import dream_report
import records
from dream_cost import Cost, seconds_a_step
from dream_discrepancy import Gap, gaps
from dream_runs import TRIALS, follow
from dream_scores import Score, measured

from dreamsr.engine.device import keep_memory, set_threads
from dreamsr.engine.measure import Measure, load_lpips
from dreamsr.errors import DreamSRError, UsageError

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "docs" / "figures"
SCORES, GAPS, COSTS = (FOUND / f"dream-{name}.csv" for name in ("scores", "discrepancy", "cost"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(STAGES), action="append", help="stages to run (default: all)")
    parser.add_argument("--data", type=Path, default=Path("runs/data"), help="photos: train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs/dream"), help="folder of the runs")
    parser.add_argument("--pictures", type=Path, default=Path("Set14"), help="originals to measure on")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    set_threads(options.threads)
    keep_memory()
    for stage in options.only or STAGES:
        STAGES[stage](options)


def train(options: argparse.Namespace) -> None:
    for trial in TRIALS:
        say(trial.name)
        follow(trial, options.data, options.out)


def measure(options: argparse.Namespace) -> None:
    scores, lpips = records.read(Score, SCORES), load_lpips(None)
    if lpips is None:
        raise UsageError(
            "the study measures LPIPS, whose weights were not found", "name them by $DREAMSR_LPIPS_WEIGHTS"
        )
    for some in measured(options.out, options.pictures, Measure(lpips=lpips, colors=("y",)), scores):
        scores += some
        records.write(SCORES, scores)
        say(f"{some[0].method} {some[0].seed}: {some[0].trained} steps of training, {some[0].steps} of sampling")


def probe(options: argparse.Namespace) -> None:
    records.write(GAPS, list(gaps(options.out, options.data / "val")))


def cost(options: argparse.Namespace) -> None:
    records.write(COSTS, seconds_a_step(options.data / "val"))


def report(options: argparse.Namespace) -> None:
    scores, gaps, costs = records.read(Score, SCORES), records.read(Gap, GAPS), records.read(Cost, COSTS)
    dream_report.write(ROOT / "docs" / "dream.md", scores, gaps, costs)


STAGES = {stage.__name__: stage for stage in (train, measure, probe, cost, report)}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except DreamSRError as error:
        raise SystemExit(f"error: {error}") from None
