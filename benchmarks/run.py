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
        print(*picture(given.picture))
        return
    plan = Plan(given.quick, not given.no_compile)
    parts: dict[str, str] = {}
    for section in SECTIONS:
        if section.__name__ in (given.only or names):
            start = time.perf_counter()
            table = section(plan)
            parts[table.title] = to_markdown(table)
            print(f"{section.__name__}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            print(parts[table.title], flush=True)
    if given.out:
        before = given.out.read_text() if given.out.exists() else "# Performance\n\n"
        with atomic(given.out) as temporary:
            temporary.write_text(replaced(before, parts))


def replaced(document: str, parts: dict[str, str]) -> str:
    """The document with these sections in the place of the old ones of their titles."""
    head, _, measured = document.partition(MARK)
    old = {text.partition("\n")[0]: text.rstrip("\n") + "\n" for text in measured.split("\n## ")[1:]}
    sections = {title: f"## {text}" for title, text in old.items()} | parts
    return head + "\n".join([MARK + "\n", *sections.values()])


if __name__ == "__main__":
    main()
