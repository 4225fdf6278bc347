"""The program as people run it: `main` in this process or in another one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from skimage import data

from dreamsr.cli import console
from dreamsr.cli.app import main
from dreamsr.files import images
from dreamsr.files.images import Picture

# a job of a shell without job control ignores SIGINT, and so would its children
PROGRAM = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dreamsr.cli.app import main; main()",
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dreamsr"]


class Program:
    """Call `program("upscale", ...)`: exit code, stdout and stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        if words[0] in ("upscale", "train", "eval") and "--device" not in words:
            words += ["--device", "cpu"]
        self.monkeypatch.setattr(sys, "argv", ["dreamsr", *words])
        for name in ("_talk", "_alarm"):
            self.monkeypatch.setattr(console, name, Console(stderr=True, highlight=False, soft_wrap=True))
        self.capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self.capfd.readouterr()
        return code, out, err


def load(path: Path | str) -> Image.Image:
    """A file as Pillow sees it, closed again."""
    with Image.open(path) as image:
        image.load()
        return image


def visible(folder: str | Path) -> list[str]:
    """The files of a folder, without what dreamsr keeps there for itself."""
    files = (p.relative_to(folder) for p in Path(folder).rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in files if not p.name.startswith("."))


def _cat() -> torch.Tensor:
    return images.to_unit(torch.from_numpy(data.chelsea()[:20, :30].copy()).permute(2, 0, 1))


def small(path: Path, color: torch.Tensor | None = None) -> Path:
    images.write(path, Picture(_cat() if color is None else color))
    return path


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens inside, the process does not outlive it."""
    try:
        yield
    finally:
        process.kill()
