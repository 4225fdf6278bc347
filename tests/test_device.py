"""Which device, and what is said of it."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamsr.engine import device
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
    with pytest.raises(UsageError, match="--threads is 0; expected a whole number from 1 to 1024"):
        device.set_threads(0)


def test_kept_memory_is_asked_for_once_and_harmless() -> None:
    device.keep_memory()
    assert float(torch.ones(1000, 1000).sum()) == 1e6
