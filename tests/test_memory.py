"""Devices that run out of memory, and pictures that are larger than memory."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import photo
from programs import Program
from torch import Tensor

from dreamsr.core.denoiser import Network
from dreamsr.engine import job, planning
from dreamsr.engine.estimate import estimate
from dreamsr.engine.evaluator import Case, Sampled
from dreamsr.engine.memory import Frugal
from dreamsr.engine.outputs import Sizing
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.engine.work import Job
from dreamsr.errors import DreamSRError
from dreamsr.files import checkpoint, hub, images
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture
from dreamsr.files.manifest import Manifest

FULL = torch.OutOfMemoryError("out of memory")


@dataclass(frozen=True)
class Limited:
    """A network on a device that holds no more than `pixels` at a time."""

    network: Network
    pixels: int
    error: RuntimeError = FULL

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        if anchor.numel() // 3 > self.pixels:
            raise self.error
        return self.network.encode(anchor, scale)

    def __call__(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        return self.network(u, angle, features)


def limited(model: Model, pixels: int) -> Upscaler:
    return Upscaler(model, Settings(steps=2, tile=512, batch=4), Limited(model.network, pixels))


@pytest.mark.parametrize("words", ["MPS backend out of memory (MPS allocated: 1 GB)", "CUBLAS_STATUS_ALLOC_FAILED"])
def test_memory_that_runs_out_in_words_alone(words: str, tiny_model: Model) -> None:
    scarce = Limited(tiny_model.network, 256 * 256, RuntimeError(f"{words} when calling something"))
    frugal = Frugal(replace(limited(tiny_model, 0), network=scarce))
    assert "ran out of memory" in frugal([photo("chelsea")[:, 50:150, 60:180]])[1]


def test_other_errors_are_errors(tiny_model: Model) -> None:
    broken = Limited(tiny_model.network, 0, RuntimeError("a size does not fit"))
    with pytest.raises(RuntimeError, match="a size does not fit"):
        Frugal(Upscaler(tiny_model, Settings(steps=2), broken))([photo("chelsea")[:, :20, :20]])


def test_less_memory_makes_the_same_picture(tiny_model: Model) -> None:
    """Batch, then tile are halved until it fits; that is remembered, and said once."""
    pictures = [photo("chelsea")[:, 50:150, 60:180], photo("rocket")[:, 100:117, 200:263]]
    frugal = Frugal(limited(tiny_model, 256 * 256))
    outputs, remark = frugal(pictures)
    assert remark == "the device ran out of memory; from here on tiles of 256, 1 at a time"
    assert frugal(pictures)[1] == ""
    plenty = replace(frugal.upscaler, settings=Settings(steps=2, tile=512), network=None)
    for a, b in zip(outputs, plenty(pictures), strict=True):
        assert float((a.color - b).abs().max()) <= 2 / 255


def test_a_job_says_once_that_memory_ran_out(tiny_model: Model, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        images.write(tmp_path / "in" / f"{name}.png", Picture(photo("chelsea")[:, :60, :70]))
    tasks = planning.plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4)
    results = list(job.run(Job(limited(tiny_model, 256 * 256), "", Sizing()), tasks, Manifest(tmp_path / "out")))
    assert [result.status for result in results] == ["done"] * 3
    assert ["out of memory" in " ".join(result.warnings) for result in results] == [True, False, False]


def test_evaluation_goes_on_with_less(tiny_model: Model) -> None:
    hr = photo("chelsea")[:, :300, :420]
    case = Case("a", Path("a.png"), (300, 420), hr, photo("chelsea")[:, 100:175, 60:165])
    made = [Sampled("", upscaler)(case)[0] for upscaler in (limited(tiny_model, 256 * 256), limited(tiny_model, 10**6))]
    assert float((made[0] - made[1]).abs().max()) <= 2 / 255


def test_too_little_memory_fails_the_picture(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(DreamSRError, match="too little memory even for the smallest tiles"):
        Frugal(limited(tiny_model, 100))([photo("chelsea")[:, :60, :70]])
    images.write(tmp_path / "in.png", Picture(photo("chelsea")[:, :60, :70]))
    tasks = planning.plan([tmp_path / "in.png"], tmp_path / "out.png", Sizing(), 4)
    (result,) = job.run(Job(limited(tiny_model, 100), "", Sizing()), tasks)
    assert result.status == "failed"
    assert not (tmp_path / "out.png").exists()


PEAK = """
import resource, sys
from dreamsr.cli.app import main
try:
    main()
finally:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(kilobytes / (2**20 if sys.platform != "darwin" else 2**30))
"""


PEAKS = """
import sys, torch
from pathlib import Path
from dreamsr.engine.device import keep_memory
from dreamsr.engine.upscaler import Upscaler
from dreamsr.engine.schedule import Settings
from dreamsr.files import checkpoint, hub
keep_memory()
upscaler = Upscaler(checkpoint.load_model(hub.resolve("photo-x4")).to("cpu"), Settings(steps=2))
for side in (64, int(sys.argv[1])):
    upscaler([torch.zeros(3, side // 4, side // 4)])
    status = Path("/proc/self/status").read_text()  # what `resource` knows begins with the parent's
    print(int(status.split("VmHWM:")[1].split()[0]) * 2**10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process as Linux tells it")
@pytest.mark.parametrize("side", [1024, 1600])
def test_the_memory_that_is_foretold_is_taken(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile, and four of them, in fp32; roughly, as allocators keep what was freed and processors differ."""
    done = subprocess.run([sys.executable, "-c", PEAKS, str(side)], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    model = checkpoint.load_model(hub.resolve("photo-x4")).to("cpu")
    monkeypatch.setattr("dreamsr.engine.estimate._seconds", lambda *_: 1.0)
    foretold = estimate(Upscaler(model, Settings(steps=2)), [(side, side)]).bytes
    assert 0.5 < foretold / (after - before) < 2


def test_deep_pictures_with_transparency_are_foretold_to_take_more(program: Program, tiny_file: Path) -> None:
    def foretold(picture: Picture) -> int:
        images.write(Path("a.png"), picture)
        _, out, _ = program("upscale", "a.png", "-m", tiny_file, "--steps", 1, "--dry-run", "--json")
        taken: int = json.loads(out.splitlines()[-1])["summary"]["bytes"]
        return taken

    color, alpha = torch.zeros(3, 25, 40), torch.zeros(1, 25, 40)
    plain, deep = foretold(Picture(color)), foretold(Picture(color, alpha, depth=16))
    # 3 and 8 bytes a pixel, as they are and encoded
    assert deep - plain == 100 * 160 * 2 * (8 - 3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_a_hundred_megapixels_in_less_than_four_gibibytes(tmp_path: Path) -> None:
    """The bundled model, 2500x2500 in."""
    large = photo("astronaut").repeat(1, 5, 5)[:, :2500, :2500]
    images.write(tmp_path / "in.png", Picture(large))
    command = [sys.executable, "-c", PEAK, "upscale", "in.png", "out.jpg", "--steps", "1", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4
    assert images.probe(tmp_path / "out.jpg").size == (10_000, 10_000)
