"""DREAM against plain diffusion, small: trains ten models, measures them, draws what was found.

    python scripts/split_by_photo.py PHOTOS runs/data
    python benchmarks/dream.py train --data runs/data --out runs/dream

What is done already is not done again.
"""

import argparse
import sys
from pathlib import Path

from dream_runs import TRIALS, follow

from dreamsr.engine.device import keep_memory, set_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["train"])
    parser.add_argument("--data", type=Path, default=Path("runs/data"), help="photos: train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs/dream"), help="folder of the runs")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    set_threads(options.threads)
    keep_memory()
    for trial in TRIALS:
        print(trial.name, file=sys.stderr, flush=True)
        follow(trial, options.data, options.out)


if __name__ == "__main__":
    main()
