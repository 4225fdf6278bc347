"""Jobs that survive: what a kill, a full disk, a second process or a broken file leave behind."""

import errno
import io
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import photo
from PIL import Image
from programs import PROGRAM, TORCHRUN, Program, killed, load, small, visible
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from dreamsr.cli import console
from dreamsr.core.size import Size
from dreamsr.engine.device import Tiling
from dreamsr.engine.estimate import _VALUES_A_TILE_PIXEL, Estimate, estimate
from dreamsr.engine.finish import finished
from dreamsr.engine.outputs import Sizing
from dreamsr.engine.planning import Task
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import WHOLE, Upscaler
from dreamsr.engine.work import Job, describe
from dreamsr.engine.worker import Worker
from dreamsr.errors import DiskFullError, DreamSRError
from dreamsr.files import decode, images, locks
from dreamsr.files.checkpoint import Model
from dreamsr.files.images import Picture
from dreamsr.files.manifest import Entry, Manifest, file_digest

OWN = {".dreamsr.jsonl"}


def entries(folder: Path | str = "out") -> list[dict[str, Any]]:
    """What the manifest tells of what has ended."""
    lines = map(json.loads, (Path(folder) / ".dreamsr.jsonl").read_text().splitlines())
    return [entry for entry in lines if entry["status"] != "begun"]


def contents(folder: Path | str) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in visible(folder)}


def hidden(folder: Path | str) -> set[str]:
    """What dreamsr keeps for itself, but for the lock of the manifest, which some platforms remove."""
    return {path.name for path in Path(folder).rglob(".*")} - {".dreamsr.lock"}


def fill(folder: Path, count: int, side: int = 40) -> None:
    for i in range(count):
        small(folder / f"{i:02}.png", photo("coffee")[:, i : i + side, : side + 10])


def start(*words: object, command: list[str] = PROGRAM, **options: Any) -> "subprocess.Popen[str]":
    line = [*command, *map(str, words), "--device", "cpu"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    with killed(process):
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_no_picture(value: float) -> None:
    color = torch.zeros(3, 8, 8)
    color[1, 2, 3] = value
    with pytest.raises(DreamSRError, match="not finite"):
        finished(Picture(torch.zeros(3, 4, 4)), color, (8, 8))


# resume


def test_a_second_run_does_nothing_and_says_so_in_a_line(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 3)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert program(*job)[0] == 0
    before = {name: os.stat(f"out/{name}").st_mtime_ns for name in visible("out")}
    code, _, err = program(*job)
    assert code == 0
    assert "3 skipped" in err
    assert len(err.splitlines()) == 3
    assert {name: os.stat(f"out/{name}").st_mtime_ns for name in visible("out")} == before
    assert hidden("out") == OWN


def test_what_is_done_is_not_even_decoded(
    program: Program, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.jpg"):
        small(tmp_path / "in" / name)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "-f", "webp")
    program(*job)

    def never(path: Path) -> Picture:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(images, "read", never)
    code, _, err = program(*job)
    assert code == 0
    assert "2 skipped" in err


def test_what_changed_is_made_again(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 3)
    program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    first = contents("out")
    small(tmp_path / "in" / "01.png", photo("rocket")[:, :20, :30])
    os.utime(tmp_path / "in" / "02.png")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 0
    assert "out/01.png 120x80; made again: the input changed" in err
    assert "1 done, 2 skipped, 1 made again: the input changed" in err
    second = contents("out")
    assert [second[name] == first[name] for name in sorted(first)] == [True, False, True]
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--seed", 1)
    assert "3 made again: the settings changed" in err
    assert not any(contents("out")[name] == second[name] for name in second)
    program("upscale", "in", "fresh", "-m", tiny_file, "--steps", 1, "--seed", 1)
    assert contents("out") == contents("fresh")


def test_all_that_decides_the_bytes_makes_a_job_another_one(tiny_model: Model) -> None:
    """But not --overwrite, which decides nothing of them."""

    def job(model: Model = tiny_model, scale: int | None = None, **settings: Any) -> Job:
        return Job(Upscaler(model, Settings(**{"steps": 2, **settings})), "m", Sizing(scale))

    sampling, made_by = tiny_model.config.sampling, describe(Upscaler(tiny_model), "m", "")
    louder = replace(tiny_model.config, sampling=replace(sampling, noise_scale=1.1))
    given: dict[str, Any] = {"steps": 3, "seed": 1, "fidelity": 0.5, "samples": 2, "consistency": 1.0}
    given |= {"tile": 512, "batch": 3, "grid": "karras", "sampler": "ddpm"}
    others = [
        *(job(**{key: value}) for key, value in given.items()),
        job(replace(tiny_model, config=louder)),
        job(tiny_model.to("cpu", torch.bfloat16)),
        job(scale=2),
        replace(job(), model="n"),
        replace(job(), quality=90),
        replace(job(), strip_metadata=True),
        replace(job(), provenance=made_by),
        replace(job(), upscaler=replace(job().upscaler, network=tiny_model.network)),
    ]
    assert len({found.settings for found in (job(), *others)}) == 1 + len(others)
    assert replace(job(), overwrite=True).settings == job().settings


def test_the_manifest_tells_what_was_done(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "sub" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    start = time.perf_counter()
    program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--seed", 5, "-f", "webp")
    passed = time.perf_counter() - start
    b, a = sorted(entries(), key=lambda entry: str(entry["input"]))
    assert (a["output"], a["input"], a["status"], a["seed"]) == ("sub/a.webp", "sub/a.png", "done", 5)
    assert (a["width"], a["height"], a["output_bytes"]) == (120, 80, os.stat("out/sub/a.webp").st_size)
    assert a["input_bytes"] == os.stat("in/sub/a.png").st_size
    assert 0 < a["seconds"] <= passed
    assert a["beside"] == []
    assert (b["output"], b["status"]) == ("b.webp", "failed")
    assert "not a PNG" in b["message"]
    assert a["model"] == b["model"]
    assert all(len(entry["input_sha256"]) == 64 for entry in (a, b))
    assert str(tmp_path) not in Path("out/.dreamsr.jsonl").read_text().replace(b["message"], "")


def test_a_repaired_file_is_done_by_the_next_run(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    code, _, err = program(*job)
    assert code == 1
    assert err.count("in/bad.png") == 2  # as it happens, and in the summary
    assert re.search(r"^failed: in/bad.png: ", err, re.MULTILINE)
    small(tmp_path / "in" / "bad.png")
    code, _, err = program(*job)
    assert code == 0
    assert "1 done, 2 skipped" in err


# interruptions


@pytest.mark.parametrize("moments", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_at_any_moment_and_go_on(moments: int, program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 24, 90)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 4)
    assert program("upscale", "in", "whole", *job[3:])[0] == 0
    whole, out, dice = contents("whole"), tmp_path / "out", random.Random(moments)
    kills_at_work = 0
    for _ in range(moments):
        if set(visible(out)) == set(whole):
            shutil.rmtree(out)
        before = len(visible(out))
        with start(*job, cwd=tmp_path) as process, killed(process):
            deadline = time.monotonic() + 120
            while process.poll() is None and len(visible(out)) == before:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(dice.random())
            process.kill()
        found = contents(out)
        assert found == {name: whole[name] for name in found}
        kills_at_work += 0 < len(found) < len(whole)
    assert kills_at_work
    code, _, err = program(*job)
    assert code == 0, err
    assert contents(out) == whole
    assert hidden(out) == OWN
    assert f"{len(whole)} skipped" in program(*job)[2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("suffix", [".png", ".bmp"])  # BMP has no room for provenance, and one size for all
@pytest.mark.parametrize("earlier", [False, True])
def test_a_kill_between_a_file_and_its_note(
    earlier: bool, suffix: str, program: Program, tiny_file: Path, tmp_path: Path
) -> None:
    small(tmp_path / "in" / f"a{suffix}")
    job = ("upscale", "in", "out", "-m", str(tiny_file), "--steps", "1", "--device", "cpu")
    if earlier:
        assert program(*job, "--seed", 1)[0] == 0
    code = (
        "import os, signal, sys; from dreamsr.cli.app import main; from dreamsr.files import atomic\n"
        "def killed(path, target):\n"
        "    os.rename(path, target); os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic.Path.replace = killed\n"
        f"sys.argv = ['dreamsr', *{job}]; main()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert visible("out") == [f"a{suffix}"]
    assert [entry["seed"] for entry in entries()] == ([1] if earlier else [])
    killed, (_, _, err) = contents("out"), program(*job)
    assert "1 skipped" in err
    assert "exists" not in err
    assert contents("out") == killed
    assert "1 made again: the settings changed" in program(*job, "--seed", 1)[2]
    assert contents("out") != killed
    assert [entry["seed"] for entry in entries()] == ([1, 1] if earlier else [1])
    assert hidden("out") == OWN


def test_what_could_not_take_its_name_is_not_noted_as_written(
    program: Program, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    small(tmp_path / "in" / "a.png")
    monkeypatch.setattr(Path, "replace", refuse)
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 1
    assert "out/a.png cannot be written: Permission denied" in err.replace(os.sep, "/")
    (entry,) = entries()
    assert (entry["status"], entry["output_bytes"], entry["output_sha256"]) == ("failed", 0, "")
    assert hidden("out") == OWN


def test_what_a_killed_process_left_is_no_input_and_no_output(
    program: Program, tiny_file: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "in", 1)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    program(*job)
    (tmp_path / "out" / ".dreamsr-0123456789abcdef-99.part").write_bytes(b"half")
    assert program("upscale", "out", "again", "-m", tiny_file, "--steps", 1, "-s", 1)[0] == 0
    assert visible("again") == ["00.png"]
    assert program(*job)[0] == 0
    assert hidden("out") == OWN


def test_ctrl_c_ends_with_a_summary(tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 60, 100)
    process = start("upscale", "in", "out", "-m", tiny_file, "--steps", 8, "--json", cwd=tmp_path)
    with killed(process):
        assert process.stdout
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert first["status"] == "done"
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert 0 < summary["done"] < 60
    assert summary["done"] + summary["not_done"] == 60
    assert hidden(tmp_path / "out") == OWN
    assert {entry["output"] for entry in entries(tmp_path / "out")} == set(visible(tmp_path / "out"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit to the size of files")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".bmp", ".tiff"])
def test_a_file_too_large_for_the_disk(suffix: str, program: Program, tiny_file: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, side in (("a", 8), ("b", 200), ("c", 8)):
        small(tmp_path / "in" / f"{name}{suffix}", torch.rand(3, side, side, generator=generator) * 2 - 1)
    job = ("upscale", "in", "out", "-m", str(tiny_file), "--steps", "1", "--device", "cpu")
    code = (
        "import resource, sys; from dreamsr.cli.app import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"sys.argv = {['dreamsr', *job]}\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"out/b{suffix} cannot be written: File too large" in done.stderr
    assert "2 done, 1 failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert visible("out") == [f"a{suffix}", f"c{suffix}"]
    assert hidden("out") == OWN
    assert program(*job)[0] == 0
    assert load(f"out/b{suffix}").size == (800, 800)


def test_a_full_disk_ends_the_job(
    program: Program, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that follows would fit either: hours of work are not spent on it."""
    fill(tmp_path / "in", 12)
    write = images.write

    def full(path: Path, *rest: Any) -> tuple[str, ...]:
        if path.name == "02.png":
            raise DiskFullError("out/02.png cannot be written: No space left on device", "free some space")
        return write(path, *rest)

    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    monkeypatch.setattr(images, "write", full)
    code, _, err = program(*job)
    assert code == 1
    assert "error: out/02.png cannot be written: No space left on device" in err
    assert "not done" in err
    assert {"00.png", "01.png"} <= set(visible("out")) < {f"{i:02}.png" for i in range(12)}
    assert hidden("out") == OWN
    monkeypatch.setattr(images, "write", write)
    assert program(*job)[0] == 0
    assert len(visible("out")) == 12


def test_an_output_folder_that_cannot_be_made(
    program: Program, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 2)
    mkdir = Path.mkdir

    def forbidden(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "out":
            raise PermissionError(13, "Permission denied")
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", forbidden)
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 1
    assert "error: the folder out cannot be made: Permission denied" in err
    long = "x" * 300
    code, _, err = program("upscale", "in", long, "-m", tiny_file, "--steps", 1)
    assert code == 2
    assert f"{long} cannot be a folder: File name too long" in err


def test_a_file_where_a_folder_should_be_costs_its_pictures_alone(
    program: Program, tiny_file: Path, tmp_path: Path
) -> None:
    small(tmp_path / "in" / "sub" / "a.png")
    small(tmp_path / "in" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 1
    assert "1 done, 1 failed" in err
    assert f"failed: {Path('out/sub/a.png')} cannot be written" in err
    assert visible("out") == ["b.png", "sub"]


def test_whoever_reads_the_json_may_stop_reading(tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 6)
    with (
        start("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--json", cwd=tmp_path) as process,
        killed(process),
    ):
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 1
    assert "Traceback" not in err
    assert hidden(tmp_path / "out") == OWN


# sharing


def test_two_processes_share_a_folder(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 16, 60)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 4, "--json")
    ends = [finish(process) for process in [start(*job, cwd=tmp_path) for _ in range(2)]]
    others = 0
    for code, out, err in ends:
        assert code == 0, err
        *files, last = map(json.loads, out.splitlines())
        others += last["summary"]["elsewhere"] + last["summary"]["skipped"]
        assert len({file["output"] for file in files}) == 16
        assert last["summary"]["files"] == 16
        assert last["summary"]["failed"] == last["summary"]["not_done"] == 0
    assert others == 16  # each was done by one, and reported by the other, as skipped if that one began later
    assert Counter(entry["output"] for entry in entries()) == Counter({f"{i:02}.png": 1 for i in range(16)})
    assert hidden("out") == OWN
    program("upscale", "in", "alone", *job[3:])
    assert contents("out") == contents("alone")


def test_what_another_process_has_written_but_not_noted_is_not_taken_for_foreign(
    tiny_model: Model, tmp_path: Path
) -> None:
    source, target = small(tmp_path / "in" / "a.png"), tmp_path / "out" / "a.png"
    task = Task(source, target, "a.png", "a.png", (20, 30), (80, 120))
    job = Job(Upscaler(tiny_model, Settings(steps=1)), "m", Sizing())
    worker = Worker(job, Manifest(tmp_path / "out"), 0)
    claim = locks.claim(target)
    assert claim
    shutil.copy(source, target)
    made = Entry("a.png", "a.png", "done", job.settings, "m", 0)
    status, digest = source.stat(), file_digest(target)
    made = replace(made, input_bytes=status.st_size, input_mtime_ns=status.st_mtime_ns)
    made = replace(made, output_bytes=status.st_size, output_sha256=digest)
    for begun in (None, replace(made, status="begun")):
        if begun:
            Manifest(tmp_path / "out").append(begun)
            assert worker.manifest
            worker.manifest.refresh()
        work = worker.open(task)
        assert (work.picture, work.result) == (None, None)
    Manifest(tmp_path / "out").append(made)
    locks.release(claim)
    result = worker.open(task).result
    assert result
    assert (result.status, result.elsewhere) == ("done", True)
    worker.release_all()


def test_a_process_takes_over_from_one_that_was_killed(tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 16, 80)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 4)
    victim, heir = (start(*job, cwd=tmp_path) for _ in range(2))
    with killed(victim), killed(heir):
        deadline = time.monotonic() + 120
        while not visible(tmp_path / "out"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        victim.kill()
        victim.communicate()
        code, _, err = finish(heir)
    assert code == 0, err
    assert len(visible(tmp_path / "out")) == 16
    assert all(load(tmp_path / "out" / name).size == (360, 320) for name in visible(tmp_path / "out"))
    # locks of files that the victim held and the heir finished are gone, those in between at the next start
    assert not {name for name in hidden(tmp_path / "out") if name.endswith(".part")}


def test_torchrun_splits_a_folder(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 9, 60)
    (tmp_path / "in" / "04.png").write_bytes(b"no picture")
    options = ("-m", tiny_file, "--steps", 4, "--json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code, out, err = finish(start("upscale", "in", "out", *options, command=TORCHRUN, cwd=tmp_path, env=environment))
    assert code == 1, err
    *files, last = map(json.loads, out.splitlines())
    assert sorted(file["output"] for file in files) == [str(Path("out") / f"{i:02}.png") for i in range(9)]
    assert {k: last["summary"][k] for k in ("done", "failed", "not_done")} == {"done": 8, "failed": 1, "not_done": 0}
    assert err.count("8 done, 1 failed") == 1
    assert err.count("pictures with tiny") == 1
    assert Counter(entry["output"] for entry in entries()) == Counter({f"{i:02}.png": 1 for i in range(9)})
    assert hidden("out") == OWN
    torch.set_num_threads(1)
    program("upscale", "in", "alone", *options)
    assert contents("out") == contents("alone")


def test_torchrun_makes_a_single_picture_once(tiny_file: Path, tmp_path: Path) -> None:
    """The other ranks have nothing to do, and nobody waits for them."""
    small(tmp_path / "a.png")
    job = ("upscale", "a.png", "-m", tiny_file, "--steps", 1, "--device", "cpu")
    code, _, err = finish(start(*job, command=TORCHRUN, cwd=tmp_path))
    assert code == 0, err
    assert err.count("1 done") == 1
    assert visible(tmp_path) == sorted(["a.png", "a_x4.png", tiny_file.name])


@pytest.mark.slow
def test_torchrun_makes_again_what_is_to_be_overwritten_once(tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 4)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--overwrite")
    for times in (1, 2):
        code, _, err = finish(start(*job, command=TORCHRUN, cwd=tmp_path))
        assert code == 0, err
        assert Counter(e["output"] for e in entries(tmp_path / "out")) == Counter(
            {f"{i:02}.png": times for i in range(4)}
        )


# what people and programs are told


def test_time_is_counted_in_tiles_where_all_have_one_shape(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamsr.engine.estimate._seconds", lambda *_: 2.0)  # of the picture of the middle size
    thumbnails, photo = [(100, 128)] * 3, (600, 600)
    upscaler = Upscaler(tiny_model, Settings(tile=416))
    assert estimate(upscaler, [*thumbnails, photo]).seconds == 2 * (3 + 600 * 600 / 12800)
    monkeypatch.setattr("dreamsr.engine.upscaler.tiling", lambda _: Tiling(416, 4, True))
    assert upscaler.tiles(photo) == 4
    assert estimate(upscaler, [*thumbnails, photo]).seconds == 2 * (3 + 4)
    assert estimate(upscaler, []) == Estimate(0, 0.0, 0)


def test_time_is_the_best_of_three_calls_of_a_batch(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a picture of at most 1024 pixels a side."""
    times = iter((0.0, 5.0, 10.0, 12.0, 20.0, 24.0))
    asked: list[object] = []

    def called(_: Upscaler, pictures: list[Tensor], sizes: list[Size]) -> list[Tensor]:
        asked.append(([x.shape for x in pictures], sizes))
        return pictures

    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(Upscaler, "__call__", called)
    found = estimate(Upscaler(tiny_model, Settings(batch=4)), [(98, 2048)])
    assert found.seconds == 2 / 4 * 2048 / 1024
    assert asked == [([(3, 25, 256)] * 4, [(98, 1024)] * 4)] * 3


def test_memory_is_that_of_the_largest_picture_and_a_batch_of_its_tiles(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamsr.engine.estimate._seconds", lambda *_: 1.0)

    def taken(*sizes: Size, batch: int = 1, dtype: torch.dtype = torch.float32) -> int:
        upscaler = Upscaler(tiny_model.to("cpu", dtype), Settings(tile=416, batch=batch))
        return estimate(upscaler, sizes).bytes

    tile = (416, 416)
    held = 416 * 416 * _VALUES_A_TILE_PIXEL
    assert taken(tile, batch=4) - taken(tile) == 3 * held * 4
    assert taken(tile) - taken(tile, dtype=torch.bfloat16) == held * 2
    assert taken((400, 400), tile, (30, 30)) == taken(tile)
    # what is solved in one piece ends at WHOLE; of the rest there are four float32 of output and 3 bytes twice
    assert taken((2 * WHOLE, WHOLE)) - taken((WHOLE, WHOLE)) == WHOLE**2 * (4 * 4 + 2 * 3)


def test_a_dry_run_tells_and_writes_nothing(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--tile", 416)
    program(*job)
    images.write(tmp_path / "in" / "sub" / "c.png", Picture(torch.zeros(3, 100, 200)))
    (tmp_path / "in" / "d.png").write_bytes(b"no picture")
    small(tmp_path / "in" / "01.png")
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}
    code, out, err = program(*job, "--dry-run")
    assert code == 0
    rows = {row[0]: row[1:] for row in (line.split("\t") for line in out.splitlines())}
    assert rows[str(Path("in/00.png"))][2] == "skip"
    assert rows[str(Path("in/01.png"))][1:] == ["120x80", "again", "the input changed"]
    assert rows[str(Path("in/d.png"))][1:3] == ["", "fail"]
    assert rows[str(Path("in/sub/c.png"))] == [str(Path("out/sub/c.png")), "800x400", "new", ""]
    # tiles of up to 416 advance by at most 416 - 2 * 48 = 320 pixels: 1 for 120x80, and 3 for 800x400
    assert "2 of 4 to do: 0.33 MP in 4 tiles, about 0:0" in err
    assert "an estimate" in err
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")} == before
    code, out, _ = program("upscale", "in", "new", *job[3:], "--dry-run", "--json")
    *files, last = map(json.loads, out.splitlines())
    assert [file["status"] for file in files] == ["new", "new", "fail", "new"]
    assert [file["width"] for file in files if file["status"] == "fail"] == [None]
    assert (last["summary"]["to_do"], last["summary"]["tiles"]) == (3, 5)
    assert not Path("new").exists()


def test_json_is_an_object_a_file_and_a_summary(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    images.write(tmp_path / "in" / "clear.png", Picture(torch.zeros(3, 9, 9), torch.zeros(1, 9, 9)))
    code, out, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "-f", "jpg", "--json")
    assert code == 1
    *files, last = map(json.loads, out.splitlines())
    by_name = {Path(file["input"]).name: file for file in files}
    assert {name: file["status"] for name, file in by_name.items()} == {
        "00.png": "done",
        "01.png": "done",
        "bad.png": "failed",
        "clear.png": "done",
    }
    assert by_name["clear.png"]["output"] == str(Path("out") / "clear.png")
    first, second = by_name["clear.png"]["warnings"]
    assert first == "written as PNG: JPEG has no transparency"
    # random weights do not agree with anything
    assert second == f"reduced again, it is {by_name['clear.png']['psnr_lr']:.1f} dB from its input"
    assert (by_name["00.png"]["width"], by_name["00.png"]["height"]) == (200, 160)
    assert (last["summary"]["done"], last["summary"]["failed"], last["summary"]["files"]) == (3, 1, 4)
    assert re.search(r"^warning: in/clear.png: written as PNG", err, re.MULTILINE)
    code, out, _ = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "-f", "jpg", "--json")
    *files, _ = map(json.loads, out.splitlines())
    assert Counter(file["status"] for file in files) == {"skipped": 3, "failed": 1}
    assert [file["width"] for file in files] == [200, 200, None, 36]
    assert re.search(r"^failed: in/bad.png: is not a", err, re.MULTILINE)


def test_the_summary_repeats_all_failures_and_some_warnings(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    """Random weights agree with no input, so that every picture has a warning."""
    for i in range(25):
        small(tmp_path / "in" / f"{i:02d}.png", torch.rand(3, 4, 5) * 2 - 1)
        (tmp_path / "in" / f"bad{i:02d}.png").write_bytes(b"words")
    _, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert len(re.findall(r"^failed: in/bad\d\d.png: ", err, re.MULTILINE)) == 25
    assert len(re.findall(r"^warning: in/", err, re.MULTILINE)) == 20
    assert "warning: and 5 more warnings; all of them are in the manifest" in err
    assert sum(len(entry["warnings"]) for entry in entries(tmp_path / "out")) == 25


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("-s", 4), (120, 80)),
        (("-s", 2), (60, 40)),
        (("-s", 1.5), (45, 30)),
        (("-s", 3.3), (99, 66)),
        (("-s", 1), (30, 20)),
        (("--max-side", 50), (50, 33)),
        (("--width", 60), (60, 40)),
        (("--height", 30), (45, 30)),
        (("--width", 90, "--height", 30), (45, 30)),
    ],
)
def test_sizes(words: tuple[object, ...], size: tuple[int, int], program: Program, tiny_file: Path) -> None:
    small(Path("a.png"))
    assert program("upscale", "a.png", "out.png", "-m", tiny_file, "--steps", 1, *words)[0] == 0
    assert load("out.png").size == size


def test_a_size_beyond_the_model_fails_for_that_file(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "small.png", torch.zeros(3, 5, 5))
    small(tmp_path / "in" / "wide.png", torch.zeros(3, 5, 30))
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--width", 100)
    assert code == 1
    assert "in/small.png is 5x5 would need" not in err
    assert "in/small.png: 5x5 would need x20 for --width 100; this model makes up to x4" in err
    assert load("out/wide.png").size == (100, 17)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--scale 2 --width 90", "--scale and --width exclude each other"),
        ("--max-side 0", "--max-side is 0"),
        ("--quality 101", "--quality is 101"),
        ("--quality 80 --format png", "--quality does not apply to png"),
        ("--suffix a/b", "--suffix is 'a/b'"),
    ],
)
def test_wrong_options_need_no_torch(words: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    code = (
        "import sys\nfrom dreamsr.cli.app import main\n"
        f"sys.argv = ['dreamsr', 'upscale', 'in', 'out', *{words.split()}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert message in done.stderr


def test_quality_and_formats(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "a.png", photo("chelsea")[:, :60, :60])
    sizes = []
    for quality in (20, 90):
        words = ("upscale", "a.png", f"{quality}.jpg", "-m", tiny_file, "--steps", 1, "--quality", quality)
        assert program(*words)[0] == 0
        sizes.append(os.stat(f"{quality}.jpg").st_size)
    assert sizes[0] < sizes[1] / 2
    for name, kind in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF"), ("bmp", "BMP")):
        assert program("upscale", "a.png", "out/", "-f", name, "-m", tiny_file, "--steps", 1)[0] == 0
        assert load(f"out/a.{name}").format == kind
    assert hidden("out") == set()


def test_compare_draws_before_and_after(program: Program, tiny_file: Path, tmp_path: Path) -> None:
    small(tmp_path / "in" / "a.png")
    small(tmp_path / "in" / "large.png", photo("chelsea")[:, :200, :180])
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert program(*job, "--compare")[0] == 0
    assert visible("out") == ["a.png", "a_compare.png", "large.png", "large_compare.png"]
    with load("out/a_compare.png") as sheet, load("out/a.png") as made:
        assert sheet.size == (2 * (120 + 4), 80 + 4)
        assert sheet.crop((124, 0, 244, 80)).tobytes() == made.tobytes()
        enlarged = load(tmp_path / "in" / "a.png").resize((120, 80), Image.Resampling.BICUBIC)
        assert sheet.crop((0, 0, 120, 80)).tobytes() == enlarged.tobytes()
    with load("out/large_compare.png") as sheet, load("out/large.png") as made:
        assert sheet.size == (2 * (512 + 4), 512 + 4)
        assert sheet.crop((516, 0, 1028, 512)).tobytes() == made.crop((104, 144, 616, 656)).tobytes()
    assert "2 skipped" in program(*job, "--compare")[2]
    Path("out/a_compare.png").unlink()
    assert "1 made again: a_compare.png is missing" in program(*job, "--compare")[2]
    again = (*job, "--seed", 1)
    assert "2 done" in program(*again)[2]  # with sheets of the seed before beside them
    assert "1 made again: a_compare.png is not of this picture" in program(*again, "--compare")[2]
    with load("out/a_compare.png") as sheet, load("out/a.png") as made:
        assert sheet.crop((124, 0, 244, 80)).tobytes() == made.tobytes()
    assert "2 skipped" in program(*again, "--compare")[2]
    manifest = Path("out/.dreamsr.jsonl")  # of a version that did not note them
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({k: v for k, v in x.items() if k != "beside"}) + "\n" for x in lines))
    assert "2 skipped" in program(*again, "--compare")[2]


def test_a_name_that_is_too_long_with_its_companions_costs_itself_alone(program: Program, tiny_file: Path) -> None:
    small(Path("in", f"{'n' * 245}.png"))
    small(Path("in", "z.png"))
    job = ("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert program(*job)[0] == 0
    code, _, err = program(*job, "--compare")
    assert code == 1
    assert "1 done, 1 failed" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("place", ["in", "out", "model"])
def test_paths_that_no_system_takes_are_one_line(place: str, program: Program, tiny_file: Path) -> None:
    small(Path("in/a.png"))
    names = {"in": "in", "out": "out", "model": str(tiny_file), place: f"{'n' * 300}/{place}"}
    code, out, err = program("upscale", names["in"], names["out"], "-m", names["model"])
    assert code in (1, 2)
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines() if not line.startswith("  hint")] == ["error"]


def test_links_that_lead_to_themselves(program: Program, tiny_file: Path) -> None:
    small(Path("in/a.png"))
    Path("loop").symlink_to("loop")
    code, _, err = program("upscale", "in", "loop", "-m", tiny_file, "--steps", 1)
    assert code in (1, 2)
    assert "Traceback" not in err
    Path("out").mkdir()
    Path("out/a.png").symlink_to("a.png")
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1)
    assert code == 0, err
    assert load("out/a.png").size == (120, 80)


def test_a_report_takes_the_place_of_no_picture(program: Program, tiny_file: Path) -> None:
    before = small(Path("in/a.png")).read_bytes()
    small(Path("in/b.png"))
    job = ("upscale", "--report", "in/a.png", "in/b.png", "out", "-m", tiny_file, "--steps", 1)
    code, _, err = program(*job)
    assert code == 2
    assert "a page would be written to in/a.png; expected a name that ends with .html" in err
    assert Path("in/a.png").read_bytes() == before
    Path("page.html").mkdir()
    code, out, _ = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--json", "--report", "page.html")
    assert code == 1
    assert json.loads(out.splitlines()[-1])["summary"]["done"] == 2


def test_a_report_shows_what_can_be_read_again(
    program: Program, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, side in (("a", 20), ("b", 10)):
        small(Path(f"in/{name}.png"), torch.zeros(3, side, side))
    monkeypatch.setattr(decode, "MAX_PIXELS", 2500)  # an output of 80x80 has more, all else less
    code, _, err = program("upscale", "in", "out", "-m", tiny_file, "--steps", 1, "--report", "page.html")
    assert code == 0, err
    page = Path("page.html").read_text()
    assert "2 done" in page
    assert page.count("data:image/jpeg") == 2


def test_a_pipe_gets_plain_lines(tiny_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 3)
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    code, out, err = finish(start("upscale", "in", "out", "-m", tiny_file, "--steps", 1, cwd=tmp_path, env=environment))
    assert (code, out) == (0, "")
    assert "\x1b" not in err
    assert "\r" not in err
    assert len(re.findall(r"^\[\d/3\] ", err, re.MULTILINE)) == 3
    last = r"^\[3/3\] in.02.png -> out.02.png 200x160; LR-PSNR .* \([\d.]+ MP/s, 0:00 left\)$"
    assert re.search(last, err, re.MULTILINE)


def test_what_took_no_time_says_nothing_of_the_pace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = iter((0.0, 1.0, 2.0))
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(console, "_talk", Console(stderr=True, highlight=False, soft_wrap=True))
    monkeypatch.setattr(console, "_bar", lambda: Progress(disable=True))
    with console.progress(3, "MP", 3.0) as advance:
        advance("a", "a is skipped", 1.0, idle=True)
        advance("b", "b is done", 1.0)
    assert capfd.readouterr().err == "[1/3] a is skipped\n[2/3] b is done (0.50 MP/s, 0:02 left)\n"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_bar_fits_into_one_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        console, "_talk", Console(file=screen, force_terminal=True, width=width, no_color=True, soft_wrap=True)
    )
    name = "a folder with a long name/and a picture with a longer one \u65e5\u672c\u8a9e.png"
    with console.progress(12345, "MP", 1e6, name) as advance:
        advance(name, "a line", 4.0)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").splitlines()
    assert any("1/12345" in line for line in lines) or width == 20
    assert max(cell_len(line) for line in lines) <= width
    assert "a line" not in screen.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "_alarm", Console(file=screen, force_terminal=True, width=40))
    console.warn("careful")
    console.list_up("to look at", [("failed", "in/a.png", "it is not a picture at all, whatever its name may say")])
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", screen.getvalue())
    assert max(cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in screen.getvalue().splitlines()) <= 40
    assert "failed" in screen.getvalue()


def test_nobody_but_rank_0_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "_talk", Console(file=screen))
    monkeypatch.setattr(console, "_alarm", Console(file=screen))
    console.hush()
    console.say("progress")
    console.warn("careful")
    assert not screen.getvalue()
    console.error("this rank cannot go on")
    assert "this rank cannot go on" in screen.getvalue()
