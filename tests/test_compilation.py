"""When torch.compile is worth its price, and that it changes nothing but the last bits."""

import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import photo
from programs import PROGRAM

from dreamsr.engine import compilation
from dreamsr.engine.compilation import PAYS, worthwhile
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import hub
from dreamsr.files.checkpoint import Model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BF16 = torch.bfloat16


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for whatever device."""
    monkeypatch.setattr(compilation, "unavailable", lambda _: None)


@pytest.mark.usefixtures("compiler")
def test_a_small_job_is_not_compiled() -> None:
    assert not worthwhile("auto", CUDA, BF16, PAYS - 1)
    assert worthwhile("auto", CUDA, BF16, PAYS)
    for device in (CPU, CUDA):
        assert worthwhile("on", device, BF16, 0)
        assert not worthwhile("off", device, BF16, 1e9)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", [BF16, torch.float32])
def test_a_cpu_gains_nothing(dtype: torch.dtype) -> None:
    """Nor does one with AMX, as it was thought to before its convolutions were fused with what follows them."""
    assert not worthwhile("auto", CPU, dtype, 1e9)
    assert worthwhile("auto", CPU, dtype, 0, recorded=True)
    assert worthwhile("auto", CUDA, dtype, 1e9)


@pytest.mark.usefixtures("compiler")
def test_8_bits_are_not_compiled() -> None:
    assert not worthwhile("auto", CPU, torch.int8, 1e6)
    assert not worthwhile("auto", CPU, torch.int8, 1e6, recorded=True)
    with pytest.raises(UsageError, match="--compile on: convolutions in 8 bits are compiled already"):
        worthwhile("on", CPU, torch.int8, 1.0)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not worthwhile("auto", CPU, BF16, 1e9, recorded=True)  # on another machine
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert not worthwhile("auto", CUDA, BF16, 1e9)
    with pytest.raises(UsageError, match="--compile on: there is no C\\+\\+ compiler"):
        worthwhile("on", CPU, BF16, 1e9)


@pytest.mark.parametrize("static", [False, True])
def test_both_parts_are_compiled_for_the_shapes_that_come(
    static: bool, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def compiling(part: object, dynamic: bool) -> object:
        asked.append(dynamic)
        return part

    monkeypatch.setattr(torch, "compile", compiling)
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"})
    network, (x, angle) = tiny_model.network, (torch.rand(1, 3, 32, 32), torch.tensor([0.5]))
    made = compilation.compiled(network, static)
    assert asked == [not static] * 2
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(hub.cache_folder() / "compiled")
    features = made.encode(x, angle)
    assert torch.equal(features, network.encode(x, angle))
    assert torch.equal(made(x, angle, features), network(x, angle, features))
    assert network in [*made.modules()]


@pytest.mark.parametrize(
    ("device", "triton", "there", "reason"),
    [
        (CPU, False, "g++", None),
        (CPU, False, "mine++", None),
        (CPU, True, "gcc", "there is no C++ compiler"),
        (CUDA, True, "gcc", None),
        (CUDA, True, "mine", None),
        (CUDA, True, "g++", "there is no C compiler"),
        (CUDA, False, "gcc", "there is no triton package"),
        (torch.device("mps"), True, "g++", "it is not used on mps"),
    ],
)
def test_what_cannot_be_compiled(
    device: torch.device, triton: bool, there: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if triton and name == "triton" else None)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    monkeypatch.setenv("CC", "mine")
    monkeypatch.setenv("CXX", "mine++")
    assert compilation.unavailable(device) == reason


def test_what_is_compiled_first_is_timed(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that fits into one tile."""
    times = iter((3.0, 5.0))
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(Upscaler, "__call__", lambda _, pictures: shapes.extend(x.shape for x in pictures))
    upscaler = Upscaler(tiny_model, Settings(tile=240))
    assert compilation.warm_up(upscaler) == 2.0
    assert shapes == [(3, 240 // 4 // 2, 240 // 4 // 3)]


@pytest.mark.parametrize(("error", "words"), [(RuntimeError("no\nmore"), "here: no$"), (KeyError(), "here: KeyError$")])
def test_what_a_compiler_fails_at_is_one_line(
    error: Exception, words: str, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(Upscaler, "__call__", failing)
    with pytest.raises(DreamSRError, match=words) as caught:
        compilation.warm_up(Upscaler(tiny_model))
    assert caught.value.hint == "use --compile off"


@pytest.mark.skipif(shutil.which("false") is None, reason="there is no program that fails")
def test_a_compiler_that_fails_is_one_line(photos: Path, tmp_path: Path) -> None:
    tiny = ["batch=2", "crop=32", "model.network.widths=[8]", "model.network.blocks=1", "steps=1"]
    command = [*PROGRAM, "train", "--data", str(photos), "--out", "run", "--compile", "on", *tiny]
    environment = {**os.environ, "CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "error: the network cannot be compiled here: " in done.stderr
    assert "use --compile off" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch.jit
def test_compiled_code_gives_the_same_picture(tiny_model: Model) -> None:
    if reason := compilation.unavailable(CPU):
        pytest.skip(reason)
    pictures = [photo("chelsea")[:, 50:90, 60:120], photo("rocket")[:, 100:117, 200:263]]
    plain = Upscaler(tiny_model, Settings(steps=2))
    fast = Upscaler(tiny_model, plain.settings, compilation.compiled(tiny_model.network, static=False))
    for a, b in zip(plain(pictures), fast(pictures), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
