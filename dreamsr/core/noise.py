"""Normal noise as a function of where a pixel is, not of when it was drawn.

Every value is Box-Muller on an integer hash of (seed, sample, step, channel, y, x), so it does
not depend on batches, tiles, order or the number of devices.
"""

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def normal(
    key: tuple[int, int, int],
    size: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal float32 (3, *size) at absolute pixel `origin` = (y, x), which may be negative.

    key: (seed, sample, step).
    """
    (y0, x0), (height, width) = origin, size
    pairs = torch.arange(x0 >> 1, ((x0 + width - 1) >> 1) + 1, device=device, dtype=torch.int32)
    rows = torch.arange(y0, y0 + height, device=device, dtype=torch.int32)
    planes = torch.arange(3, device=device, dtype=torch.int32)
    h = _hash(planes ^ _signed(_hash_key(key)))
    h = _hash(h[:, None] ^ rows)
    h = _hash(h[..., None] ^ pairs)
    # two normals from two hashes: cosine for even x, sine for odd x
    radius = _uniform(h).add_(2**-24).log_().mul_(-2).sqrt_()
    angle = _uniform(_hash(h ^ 0x68BC21EB)).mul_(2 * math.pi)
    both = torch.stack([angle.cos(), angle.sin()], dim=-1).mul_(radius[..., None]).flatten(-2)
    return both[..., x0 & 1 : (x0 & 1) + width]


def _uniform(h: Tensor) -> Tensor:
    """The upper 24 bits of int32 hashes as float32 in [0, 1)."""
    return _shift(h, 8).to(torch.float32).mul_(2**-24)


def _hash(h: Tensor) -> Tensor:
    """A bijection of 32-bit integers in which every input bit flips each output bit half the time.

    Multiply-xorshift with the constants 0x7feb352d and 0x846ca68b; int32 arithmetic wraps.
    """
    h = _shift(h, 16).bitwise_xor_(h).mul_(_signed(0x7FEB352D))
    h = _shift(h, 15).bitwise_xor_(h).mul_(_signed(0x846CA68B))
    return _shift(h, 16).bitwise_xor_(h)


def _shift(h: Tensor, bits: int) -> Tensor:
    """Logical right shift of int32."""
    return (h >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _hash_key(key: tuple[int, int, int]) -> int:
    state = 0x9E3779B9
    for part in key:
        for word in (part & _MASK, part >> 32 & _MASK):
            state = _hash_int(state ^ word)
            state = (state + 0x9E3779B9) & _MASK
    return state


def _hash_int(h: int) -> int:
    h = (h ^ h >> 16) * 0x7FEB352D & _MASK
    h = (h ^ h >> 15) * 0x846CA68B & _MASK
    return h ^ h >> 16


def _signed(h: int) -> int:
    return h - (1 << 32) if h >= 1 << 31 else h
