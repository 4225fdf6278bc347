"""Measure dreamsr on this machine: python benchmarks/run.py [--quick] [--only NAME] [OUT.md]"""

import argparse
import sys
import time
from pathlib import Path

from sections import SECTIONS, Plan, picture
from timing import to_markdown

from dreamsr.engine.device import keep_memory
from dreamsr.files.atomic import atomic

MARK = "<!-- measured: what follows is written by make bench -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [section.__name__ for section in SECTIONS]
    parser.add_argument("out", type=Path, nargs="?", help="Markdown file whose measured part is replaced")
    parser.add_argument("--only", choices=names, action="append", help="sections to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, measures nothing")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--picture", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_memory()
    if given.picture:
        print(picture(given.picture))
        return
    plan = Plan(given.quick, not given.no_compile)
    parts = []
    for section in SECTIONS:
        if section.__name__ in (given.only or names):
            start = time.perf_counter()
            parts.append(to_markdown(section(plan)))
            print(f"{section.__name__}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            print(parts[-1], flush=True)
    if given.out:
        head = given.out.read_text().partition(MARK)[0] if given.out.exists() else "# Performance\n\n"
        with atomic(given.out) as temporary:
            temporary.write_text(head + "\n".join([MARK + "\n", *parts]))


if __name__ == "__main__":
    main()
