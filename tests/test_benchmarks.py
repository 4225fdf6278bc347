"""The benchmark command: that it runs, and what it does to its page. No time is asserted."""

import subprocess
import sys
from pathlib import Path

from run import MARK, replaced

ROOT = Path(__file__).resolve().parents[1]


def test_sections_are_replaced_one_by_one() -> None:
    page = replaced(f"# Performance\n\nwords\n\n{MARK}\n", {"A": "## A\n\nold a\n", "B": "## B\n\nold b\n"})
    assert replaced(page, {}) == page
    newer = replaced(page, {"B": "## B\n\nnew b\n", "C": "## C\n\nc\n"})
    assert newer.startswith(f"# Performance\n\nwords\n\n{MARK}\n")
    assert [line for line in newer.splitlines() if line and "#" not in line][2:] == ["old a", "new b", "c"]


def test_every_section_runs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    sections = ("machine", "network", "operations", "peers", "pipeline", "flatness", "training")
    only = [word for name in sections for word in ("--only", name)]
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), str(page), "--quick", "--no-compile", *only]
    subprocess.run(command, check=True, capture_output=True)
    assert page.read_text().count("\n## ") == len(sections)
