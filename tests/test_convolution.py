"""Convolutions with what follows them."""

import copy

import pytest
import torch
from conftest import photo
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core import convolution
from dreamsr.core.convolution import Conv3x3
from dreamsr.data.degrade import degrade
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub

here = pytest.mark.skipif(not convolution.fuses(), reason="this CPU or build of torch fuses nothing in bf16")
FUSES = convolution.fuses


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def conv() -> Conv3x3:
    """Of 48 to 64 channels, in bf16."""
    conv = Conv3x3(48, 64)
    conv.load_state_dict({"weight": drawn(64, 48, 3, 3, seed=1) / 20, "bias": drawn(64, seed=2)})
    return conv.to(torch.bfloat16).requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    return drawn(3, 48, 9, 14).bfloat16().contiguous(memory_format=torch.channels_last)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of every call that is fused."""
    fused, batches = convolution._fused, []

    def counted(x: Tensor, *rest: object) -> Tensor:
        batches.append(len(x))
        return fused(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(convolution, "_fused", counted)
    return batches


@here
@pytest.mark.parametrize("follows", ["nothing", "silu", "plus"])
@torch.no_grad()
def test_a_fused_convolution_is_rounded_once(conv: Conv3x3, x: Tensor, calls: list[int], follows: str) -> None:
    other = drawn(3, 64, 9, 14, seed=3).bfloat16()
    plus, kept = (other, other.clone()) if follows == "plus" else (None, None)
    made = conv(x, silu=follows == "silu", plus=plus)
    exact = F.conv2d(x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(), padding=1)
    exact = F.silu(exact) if follows == "silu" else exact if plus is None else exact + plus.double()
    assert calls == [3]
    assert made.dtype == torch.bfloat16
    assert made.is_contiguous(memory_format=torch.channels_last)
    # half of the last of 8 bits, and what a sum of 432 products in float32 is off
    torch.testing.assert_close(made.double(), exact, rtol=2**-8, atol=1e-5)
    if plus is not None and kept is not None:
        assert torch.equal(plus, kept)


@here
@torch.no_grad()
def test_what_is_beside_a_picture_does_not_change_it(conv: Conv3x3, x: Tensor, calls: list[int]) -> None:
    together = conv(x, silu=True)
    assert torch.equal(torch.cat([conv(one, silu=True) for one in x.split(1)]), together)
    assert calls == [3, 1, 1, 1]


@pytest.mark.parametrize("there", [True, False])
def test_where_nothing_is_fused(
    conv: Conv3x3, x: Tensor, calls: list[int], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients, in other precisions, under autocast, on other devices and CPUs: the result is torch's own."""
    monkeypatch.setattr(convolution, "fuses", lambda: there)
    plain = F.silu(F.conv2d(x, conv.weight, conv.bias, padding=1))
    assert torch.equal(conv(x, silu=True), plain)
    whole = copy.deepcopy(conv).float()
    with torch.no_grad():
        assert torch.equal(whole(x.float()), F.conv2d(x.float(), whole.weight, whole.bias, padding=1))
        assert copy.deepcopy(conv).to("meta")(x.to("meta"), silu=True).shape == plain.shape
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(whole(x.float(), silu=True), plain)
        if not there:
            assert torch.equal(conv(x, silu=True), plain)
    assert calls == []


def test_it_needs_a_torch_for_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert not FUSES()
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert FUSES() == bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    monkeypatch.setattr(convolution, "_POINTWISE", None)
    assert not FUSES()


def test_what_is_added_has_gradients(conv: Conv3x3) -> None:
    x, plus = drawn(1, 48, 5, 5).bfloat16().requires_grad_(), torch.zeros(1, 64, 5, 5, dtype=torch.bfloat16)
    plus.requires_grad_()
    conv(x, plus=plus).sum().backward()
    assert plus.grad is not None
    assert bool((plus.grad == 1).all())
    assert x.grad is not None
    assert bool(x.grad.any())


@here
@torch.no_grad()
def test_a_compiler_sees_one_graph(conv: Conv3x3, x: Tensor, calls: list[int]) -> None:
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, silu=True), conv(x, silu=True), rtol=2**-7, atol=2**-7)
    assert calls == [3]


@here
@pytest.mark.parametrize("name", ["bicubic-x4", "photo-x4"])
def test_pictures_are_nearer_to_those_of_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer roundings: at one step, where no sampling multiplies them."""
    lr = degrade(photo("chelsea")[None, :, 60:252, 80:272], 4)[0]
    model = checkpoint.load_model(hub.resolve(name))
    fused, exact = (Upscaler(model.to("cpu", t), Settings(steps=1)) for t in (torch.bfloat16, torch.float32))
    (one,), (true,) = fused([lr]), exact([lr])
    monkeypatch.setattr(convolution, "fuses", lambda: False)
    (plain,) = fused([lr])
    errors = [float((made - true).square().mean().sqrt()) * 127.5 for made in (one, plain)]
    assert 0 < errors[0] < errors[1] < 1
