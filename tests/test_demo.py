"""What `make demo` does, as a user sees it."""

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def test_the_demo_writes_pictures_and_figures(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        small, large = (Image.open(tmp_path / "out" / part / f"{name}.png") for part in ("lr", "sr"))
        with small, large:
            assert large.size == (4 * small.size[0], 4 * small.size[1])
        row = re.search(rf"^{name} +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE)
        assert row, done.stdout
        assert float(row[2]) > float(row[1]) - 0.5
    assert re.search(r"[\d.]+ s, start-up included", done.stdout)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == (3 * (384 + 4), 3 * 384 + 300 + 4 * 4)
