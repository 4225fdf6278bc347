"""Convolutions with fewer multiplications."""

import copy

import pytest
import torch
from conftest import photo
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.core import winograd
from dreamsr.core.convolution import Conv3x3, prepared
from dreamsr.data.degrade import degrade
from dreamsr.engine.schedule import Settings
from dreamsr.engine.upscaler import Upscaler
from dreamsr.files import checkpoint, hub

SHAPES = [
    (1, 64, 80, 8, 8),
    (2, 96, 64, 13, 22),
    (1, 64, 64, 8, 10),
    (3, 64, 64, 1, 15),
    (1, 64, 64, 70, 130),
    (1, 64, 64, 6, 268),
    (70, 64, 64, 9, 7),
]
"""(B, C, K, H, W): tiles that fit, and do not in both directions and in one, one row, several pieces of a picture, rows
that are more than a piece, and several pictures a piece."""


AVAILABLE = winograd.available


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in builds of torch where it is not the faster way, and not used."""
    monkeypatch.setattr(winograd, "available", lambda: True)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolution(channels: int, out_channels: int) -> Conv3x3:
    conv = Conv3x3(channels, out_channels)
    weight, bias = drawn(out_channels, channels, 3, 3, seed=1) / channels**0.5, drawn(out_channels, seed=2)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv


def error(x: Tensor, exact: Tensor) -> float:
    """The largest, in units of the deviation."""
    return float((x.detach().double() - exact.detach()).abs().max() / exact.detach().std())


def test_the_transforms_are_an_identity() -> None:
    """Every output of a tile is the sum of products of the 3x3 inputs at it: for all 36 x 9 pairs of basis vectors."""
    d, g = torch.eye(36), torch.eye(9)
    made = winograd.OUTPUT @ (winograd.INPUT @ d)[:, :, None].mul((winograd.WEIGHT @ g)[:, None, :]).flatten(1)
    direct = F.conv2d(d.view(36, 1, 6, 6), g.view(9, 1, 3, 3))  # (36, 9, 4, 4)
    torch.testing.assert_close(made.view(16, 36, 9), direct.permute(2, 3, 0, 1).reshape(16, 36, 9), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_those_of_a_direct_convolution(
    shape: tuple[int, ...], memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # pieces are as large as there are threads
    count, channels, out_channels, height, width = shape
    conv = convolution(channels, out_channels)
    x = drawn(count, channels, height, width).to(memory_format=memory_format).requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in conv.parameters())
    exact_x = x.detach().double().requires_grad_()
    exact = F.conv2d(exact_x, weight, bias, padding=1)
    towards = drawn(*exact.shape, seed=3)
    y = conv(x).mul_(1)  # blocks write over it, too
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert error(y, exact) < 1e-4
    inputs, exact_inputs = (x, *conv.parameters()), (exact_x, weight, bias)
    gradients = torch.autograd.grad(y, inputs, towards), torch.autograd.grad(exact, exact_inputs, towards.double())
    for gradient, exact_gradient in zip(*gradients, strict=True):
        assert error(gradient, exact_gradient) < 1e-4


def test_what_is_beside_a_picture_does_not_change_it() -> None:
    conv, x = convolution(64, 64), drawn(40, 64, 8, 8)
    together = conv(x)
    for i in (0, 17, 39):
        assert torch.equal(conv(x[i : i + 1]), together[i : i + 1])


def test_it_does_not_depend_on_the_default_device() -> None:
    conv, x = convolution(64, 64), drawn(1, 64, 8, 8)
    y = conv(x)
    with torch.device("meta"):
        assert torch.equal(conv(x), y)


def test_it_does_not_depend_on_the_default_precision() -> None:
    conv, x = convolution(64, 64), drawn(1, 64, 8, 8)
    y = conv(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(conv(x), y)
    finally:
        torch.set_default_dtype(torch.float32)


def test_second_derivatives_are_refused() -> None:
    """They would be wrong: the weights at the points, which gradients are made with, are constants."""
    conv, x = convolution(64, 64), drawn(1, 64, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(conv(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def direct(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, padding=1)


def test_where_it_is_used() -> None:
    """Where it is not, the result is the direct one, bit for bit."""
    wide, x = convolution(64, 64).requires_grad_(False), drawn(1, 64, 8, 8)
    assert not torch.equal(wide(x), direct(wide, x))
    for small in (x[:, :, :4, :], drawn(1, 64, 4, 12)):
        assert torch.equal(wide(small), direct(wide, small))
    narrow = convolution(63, 64)
    assert torch.equal(narrow(x[:, :63]), direct(narrow, x[:, :63]))
    for dtype in (torch.bfloat16, torch.float64):
        other = copy.deepcopy(wide).to(dtype)
        assert torch.equal(other(x.to(dtype)), direct(other, x.to(dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(wide(x), direct(wide, x))
    assert prepared(copy.deepcopy(wide).to("meta"))(x.to("meta")).shape == x.shape


@pytest.mark.parametrize(
    ("mkl", "threads", "there"), [(True, 1, True), (True, 12, True), (True, 13, False), (False, 1, False)]
)
def test_where_it_is_available(mkl: bool, threads: int, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert AVAILABLE() == there


def test_it_is_left_to_the_compiler_what_is_compiled() -> None:
    program = torch.export.export(convolution(64, 64), (drawn(1, 64, 8, 8),))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.conv2d.default"]


def test_a_compiler_sees_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "available", AVAILABLE)
    conv, x = convolution(64, 64), drawn(1, 64, 8, 8)
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), F.conv2d(x, conv.weight, conv.bias, padding=1))


def test_weights_are_transformed_once_where_they_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint.load_model(hub.resolve("photo-x4"))
    fast, coarse = model.to("cpu"), model.to("cpu", torch.bfloat16)
    again = fast.to("cpu", torch.bfloat16)  # what was transformed is not carried along
    counts = [
        sum(isinstance(m, Conv3x3) and m.transformed is not None for m in network.modules())
        for network in (model.network, fast.network, coarse.network, again.network)
    ]
    assert counts == [0, 2 * 6 + 2 * 10, 0, 0]
    assert prepared(convolution(63, 64)).transformed is None
    assert fast.network.state_dict().keys() == model.network.state_dict().keys()
    conv = convolution(64, 64).requires_grad_(False)
    x = drawn(1, 64, 8, 8)
    transforms: list[Tensor] = []
    fixed, before = prepared(copy.deepcopy(conv)), conv(x)
    conv.weight.mul_(2)
    assert error(conv(x), direct(conv, x)) < 1e-4
    monkeypatch.setattr(winograd, "transform", transforms.append)
    assert torch.equal(fixed(x), before)
    assert not transforms


def test_weights_are_not_transformed_where_that_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "available", lambda: False)
    assert prepared(convolution(64, 64)).transformed is None


@pytest.mark.parametrize("name", ["bicubic-x4", "photo-x4"])
def test_pictures_are_those_of_direct_convolutions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lr = degrade(photo("chelsea")[None, :, 60:252, 80:272], 4)[0]
    upscaler = Upscaler(checkpoint.load_model(hub.resolve(name)).to("cpu"), Settings(steps=4))
    faster = upscaler([lr])[0]
    monkeypatch.setattr(winograd, "available", lambda: False)
    levels = (upscaler([lr])[0] - faster).abs() * 127.5
    assert 0 < float(levels.max()) < 0.02
