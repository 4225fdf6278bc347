"""Which device, and what is said of it."""

import ctypes
import importlib.util
import os
import platform
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamsr.core import int8
from dreamsr.engine import compilation, device
from dreamsr.errors import UsageError

CPU = torch.device("cpu")


def test_named_precisions() -> None:
    assert device.choose_dtype(CPU, "fp32") == torch.float32
    assert device.choose_dtype(CPU, "bf16") == torch.bfloat16
    with pytest.raises(UsageError, match="dtype 'int4' is unknown"):
        device.choose_dtype(CPU, "int4")


@pytest.mark.parametrize(
    ("amx", "avx", "expected"),
    [(True, True, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_bf16_where_the_hardware_multiplies_it(
    amx: bool, avx: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert device.choose_dtype(CPU, "auto") == expected
    assert device.choose_dtype(torch.device("mps"), "auto") == torch.float32


@pytest.mark.parametrize(
    ("capability", "bf16", "reason"),
    [((6, 1), False, "this GPU is too old"), ((7, 0), False, None), ((8, 0), True, None)],
)
def test_what_a_gpu_of_some_age_can_do(
    capability: tuple[int, int], bf16: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/gcc")
    assert device.has_bf16(torch.device("cuda")) == bf16
    assert compilation.unavailable(torch.device("cuda")) == reason


@pytest.mark.parametrize(
    ("machine", "operators", "there"),
    [
        ("x86_64", {"qconv_pointwise": None}, True),
        ("AMD64", {"qconv_pointwise": None}, True),
        ("arm64", {"qconv_pointwise": None}, False),
        ("x86_64", {}, False),
    ],
)
def test_where_there_is_int8(
    machine: str, operators: dict[str, None], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops, "onednn", SimpleNamespace(**operators))
    for vnni in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda vnni=vnni: vnni)
        assert (int8.available(), int8.fast()) == (there, there and vnni)
        assert int8.largest_weight() == (127 if there and vnni else 63)
    if there:
        assert device.choose_dtype(CPU, "int8") == torch.int8
    for wrong in (torch.device("cuda"), *([] if there else [CPU])):
        with pytest.raises(UsageError, match="int8 is for CPUs with a torch for x86"):
            device.choose_dtype(wrong, "int8")


@pytest.mark.parametrize(
    ("there", "broken", "chosen"),
    [("cuda mps", "", "cuda"), ("cuda mps", "cuda", "mps"), ("mps", "", "mps"), ("mps", "mps", "cpu"), ("", "", "cpu")],
)
def test_the_first_that_works_is_chosen(there: str, broken: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    monkeypatch.setattr(device, "trouble", lambda kind: "broken" if kind == broken else None)
    assert device.choose_device("auto").type == chosen


@pytest.mark.parametrize(
    ("usable", "built", "driver", "words"),
    [
        (True, "13.0", True, None),
        (False, "13.0", True, "built for CUDA 13.0, but finds no usable GPU"),
        (False, None, True, "there is an NVIDIA driver, but this torch is built without CUDA"),
        (False, None, False, None),
    ],
)
def test_it_is_said_when_cuda_was_to_be_expected(
    usable: bool, built: str | None, driver: bool, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(device, "trouble", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi" if driver else None)
    reason = device.why_no_cuda()
    assert (reason is None) if words is None else (reason is not None and words in reason)


def test_a_gpu_that_this_torch_is_not_built_for_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(*_: Any, device: Any) -> Tensor:
        if torch.device(device).type == "cuda":
            raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nmore")
        return torch.zeros(1)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose_device("auto") == CPU
    assert device.why_no_cuda() == "CUDA error: no kernel image is available for execution on the device"
    with pytest.raises(UsageError, match="device 'cuda:1' cannot be used: CUDA error: no kernel image"):
        device.choose_device("cuda:1")


def test_a_device_that_is_not_there_is_not_replaced_by_another() -> None:
    with pytest.raises(UsageError, match="device 'toaster' cannot be used") as raised:
        device.choose_device("toaster")
    assert "--device cpu" in raised.value.hint
    assert device.trouble("cpu") is None


def test_description_names_device_threads_and_precision() -> None:
    threads = "1 thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} threads"
    assert device.describe(CPU, torch.bfloat16) == f"CPU, {threads}, bf16"


def test_tiles_suit_the_device() -> None:
    """A CPU takes one large tile of any shape, a GPU batches of one shape."""
    assert device.tiling(CPU) == device.Tiling(1472, 1, static=False)
    assert device.tiling(torch.device("cuda")).static


def test_threads() -> None:
    device.set_threads(1)
    assert torch.get_num_threads() == 1
    device.set_threads(None)
    assert torch.get_num_threads() == 1
    for wrong in (0, 1025):
        with pytest.raises(UsageError, match=f"--threads is {wrong}; expected a whole number from 1 to 1024"):
            device.set_threads(wrong)


def test_kept_memory_is_asked_for_once_and_harmless() -> None:
    device.keep_memory()
    assert float(torch.ones(1000, 1000).sum()) == 1e6


@pytest.mark.skipif(os.name != "posix", reason="has no glibc")
@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (2**31 - 1, {-3: 2**30, -1: 2**31 - 1}),  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD
        (2**25, {-3: 2**25, -1: 2**31 - 1}),
        (2**17, {}),
        (None, {}),
    ],
)
def test_what_glibc_takes_is_asked_for(most: int | None, kept: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, int] = {}

    def mallopt(parameter: int, value: int) -> int:
        taken = most is not None and (parameter != -3 or value <= most)
        if taken:
            asked[parameter] = value
        return int(taken)

    library = SimpleNamespace() if most is None else SimpleNamespace(mallopt=mallopt)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    device.keep_memory()
    assert asked == kept


def test_single_precision_is_that_of_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    device.exact_floats()
    assert not torch.backends.cudnn.allow_tf32
