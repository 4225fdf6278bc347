"""3x3 convolutions, each with what follows it, in the fastest way there is on this device and in this precision."""

import platform
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.core import winograd

_ONES = [1, 1]
_POINTWISE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
N = TypeVar("N", bound=nn.Module)


def fuses() -> bool:
    """Whether oneDNN does in bf16 what follows a convolution: in a torch for x86, on CPUs from AVX-512 on."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return _POINTWISE is not None and x86 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with zero padding and a bias, then SiLU or the sum with another tensor.

    On CPUs: in float32, `core/winograd.py` takes a quarter of the multiplications. In bf16, without gradients, oneDNN
    does what follows before it rounds and stores the result, which saves a pass over memory and a rounding.
    """

    transformed: Tensor | None

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 3, padding=1)
        self.register_buffer("transformed", None, persistent=False)

    def forward(self, x: Tensor, silu: bool = False, plus: Tensor | None = None) -> Tensor:
        """x: (B, channels, H, W); plus: (B, out_channels, H, W), not together with silu."""
        if torch.compiler.is_compiling():  # first of all: a compiler would break its graph at what follows
            return followed(super().forward(x), silu, plus)
        if self._fuses(x):
            return _fused(x, self.weight, self.bias, silu, plus)
        return followed(self._by_winograd(x) if self._faster(x) else super().forward(x), silu, plus)

    def prepare(self) -> None:
        """Transform the weights once for all calls, if at all; they must not change any more."""
        self.transformed = winograd.transform(self.weight) if self._suitable(self.weight) else None

    def _by_winograd(self, x: Tensor) -> Tensor:
        weight = winograd.transform(self.weight) if self.transformed is None else self.transformed
        return winograd.convolution(x, self.weight, weight, self.bias)

    def _faster(self, x: Tensor) -> bool:
        if torch.is_autocast_enabled("cpu") or not (self._suitable(self.weight) and self._suitable(x)):
            return False
        return winograd.fits(*x.shape[2:])

    def _suitable(self, x: Tensor) -> bool:
        wide = min(self.in_channels, self.out_channels) >= winograd.LEAST
        return wide and x.dtype == torch.float32 and x.device.type == "cpu" and winograd.available()

    def _fuses(self, x: Tensor) -> bool:
        in_bf16 = x.dtype == self.weight.dtype == torch.bfloat16 and x.device.type == "cpu"
        return in_bf16 and not torch.is_grad_enabled() and fuses()


def prepared(network: N) -> N:
    """`network`, whose weights do not change any more, and are transformed once where Winograd's way takes them."""
    for module in network.modules():
        if isinstance(module, Conv3x3):
            module.prepare()
    return network


def followed(y: Tensor, silu: bool, plus: Tensor | None) -> Tensor:
    """What follows a convolution, written over its result `y` where nothing needs that again: less memory to touch."""
    if silu:
        return F.silu(y, inplace=not torch.is_grad_enabled())
    return y if plus is None else y.add_(plus)


def _fused(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, plus: Tensor | None) -> Tensor:
    assert _POINTWISE is not None
    shape = _ONES, _ONES, _ONES, 1  # padding, stride, dilation, groups
    made: Tensor = (
        _POINTWISE(x, weight, bias, *shape, "swish" if silu else "none", [], "")
        if plus is None
        else _POINTWISE.binary(x, plus, weight, bias, *shape, "add", 1.0, None, [], None)
    )
    return made
