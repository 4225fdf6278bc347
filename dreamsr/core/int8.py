"""Convolutions of whole numbers: in 8 bits a CPU multiplies two to four times as many as in fp32.

Weights have a scale for every output channel; an input has one for each picture of a call, from its smallest to its
largest value; sums are exact. Only the convolutions inside of a network, which take nearly all the time, are replaced:
its first and last layers, norms and sums stay in float32.
"""

import math
import platform
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from dreamsr.core.convolution import followed

LEAST = 64
"""Least number of channels, in and out, of a convolution that is replaced."""
_LARGEST_INPUT, _LEAST_SCALE = 255, 1e-30
N = TypeVar("N", bound=nn.Module)


def available() -> bool:
    """Whether this build of torch has convolutions in 8 bits, which are oneDNN's, for x86."""
    return platform.machine().lower() in ("x86_64", "amd64") and hasattr(torch.ops.onednn, "qconv_pointwise")


def fast() -> bool:
    """Whether int8 takes half of the time of fp32 here: where torch knows that the CPU has AVX512's VNNI."""
    return available() and bool(torch.cpu._is_vnni_supported())


def largest_weight() -> int:
    """Largest magnitude of a weight in whole numbers: 127 (8 bits) with AVX512's VNNI, else 63 (7 bits).

    Without these instructions two products of a weight and an input are added in 16 bits, which 7 bits never overflow.
    """
    return 127 if fast() else 63


class Int8Conv2d(nn.Module):
    """Takes the place of a convolution with zero padding: (B, C, H, W) in float32, fastest in channels last."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight, limit = conv.weight.detach().float(), largest_weight()
        scales = (weight.abs().amax((1, 2, 3)) / limit).clamp_min(torch.finfo(torch.float32).tiny)
        whole = (weight / scales[:, None, None, None]).round().to(torch.int8)
        self.shape = [list(pair) for pair in (conv.stride, conv.padding, conv.dilation)]
        self.packed = torch.ops.onednn.qconv_prepack(whole, scales, 1.0, 0, *self.shape, 1, None)
        self.scales, self.zeros = scales, torch.zeros(len(scales), dtype=torch.int64)
        self.bias = None if conv.bias is None else conv.bias.detach().float()

    def forward(self, x: Tensor, silu: bool = False, plus: Tensor | None = None) -> Tensor:
        # what is beside a picture does not change it
        made = self._convolved(x) if len(x) == 1 else torch.cat([self._convolved(one) for one in x.split(1)])
        return followed(made, silu, plus)

    def _convolved(self, x: Tensor) -> Tensor:
        low, high = (float(end) for end in torch.aminmax(x.permute(0, 2, 3, 1)))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / _LARGEST_INPUT, _LEAST_SCALE)  # in this order, which keeps NaN
        if not math.isfinite(scale):
            return self._convolved(torch.zeros_like(x)) + math.nan
        zero = math.floor(-low / scale)
        # truncated after half is added: rounded, in two passes over memory
        whole = torch.add(x.new_tensor(zero + 0.5), x, alpha=1 / scale).to(torch.uint8)
        made: Tensor = torch.ops.onednn.qconv_pointwise(
            *(whole, scale, zero, self.packed, self.scales, self.zeros, self.bias, *self.shape, 1),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        return made


def quantized(network: N) -> N:
    """`network`, in float32, changed to have its inner convolutions in 8 bits."""
    for module, name, conv in list(_replaceable(network)):
        setattr(module, name, Int8Conv2d(conv))
    return network


def is_quantized(network: nn.Module) -> bool:
    """Whether `quantized` has changed it."""
    return any(isinstance(module, Int8Conv2d) for module in network.modules())


def suits(network: nn.Module) -> bool:
    """Whether `quantized` would replace any of its convolutions."""
    return any(True for _ in _replaceable(network))


def _replaceable(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Conv2d]]:
    """(module, name in it, convolution) of the wide ones in inner modules: the network's own are its first and last."""
    for module in network.modules():
        for name, conv in module.named_children() if module is not network else ():
            if isinstance(conv, nn.Conv2d) and min(conv.in_channels, conv.out_channels) >= LEAST:
                yield module, name, conv
