"""3x3 convolutions with a quarter of the multiplications: F(4x4, 3x3) of Winograd (Lavin and Gray, arXiv 1509.09308).

A tile of 4x4 outputs sees 6x6 inputs. Both are polynomials whose product is taken at six points an axis (0, 1, -1, 2,
-2, infinity), so that the sums over channels, nearly all the work, are 36 products of matrices a tile, not 144. What
goes to the points and back is a matrix product, too. In float32 the result is a direct convolution's within 1e-4 of its
deviation.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEAST = 64
"""Least number of channels, in and out, for which this is faster than a direct convolution, on CPUs with AVX2."""
MOST_THREADS = 12
"""Threads up to which this is used: they share the 36 products of a piece nearly evenly. More were not measured."""
_TILES = 64
"""Tiles that are transformed at a time, a thread: about what a core's cache holds."""
_FEW = 4
"""Least number of tiles in a picture: with fewer, the last bits of its matrix products depend on how many there are."""

_TO_POINTS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT_TO_POINTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_FROM_POINTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_AT_ONES = 7
"""The point (1, 1), whose value is added to every output of a tile."""


def _both_axes(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    one = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    return torch.kron(one, one).float()


INPUT, WEIGHT, OUTPUT = _both_axes(_TO_POINTS), _both_axes(_WEIGHT_TO_POINTS), _both_axes(_FROM_POINTS)


def available() -> bool:
    """Whether it is the faster way here: with MKL, as on x86 CPUs, and as many threads as 36 products keep busy."""
    return bool(torch.backends.mkl.is_available()) and torch.get_num_threads() <= MOST_THREADS


def fits(height: int, width: int) -> bool:
    """Whether a picture of this size has tiles enough."""
    return _tiles(height) * _tiles(width) >= _FEW


def transform(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) to the values at the points, (36, C, K), which lie in memory as (K, 36, C)."""
    nine = weight.detach().permute(0, 2, 3, 1).flatten(1, 2)
    return (WEIGHT @ nine).permute(1, 2, 0)


def convolution(x: Tensor, weight: Tensor, transformed: Tensor, bias: Tensor | None) -> Tensor:
    """`convolve` with gradients of x, weight (K, C, 3, 3) and bias; `transformed`, made of the weight, has none."""
    convolved: Tensor = _Convolution.apply(x, weight, transformed, bias)  # type: ignore[no-untyped-call]
    return convolved


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, transformed, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
        x, weight = ctx.saved_tensors
        turned = transform(weight.transpose(0, 1).flip(2, 3))
        of_x = convolve(gradient, turned, gradient.new_zeros(x.shape[1]))
        return of_x, weight_gradient(x, gradient), None, gradient.sum((0, 2, 3))


def convolve(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """(B, C, H, W) with weights at the points (36, C, K) and a bias (K,) to (B, K, H, W), channels last."""
    count, _, height, width = x.shape
    rows, columns, channels = _tiles(height), _tiles(width), transformed.shape[2]
    size = count, channels, 4 * rows, 4 * columns
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for pictures, top, bottom in _pieces(count, rows, columns):
        at_points = INPUT @ _windows(x[pictures], top, bottom, columns)
        products = torch.bmm(at_points.transpose(0, 1), transformed)
        products[_AT_ONES] += bias
        tiles = (OUTPUT @ products.transpose(0, 1)).view(-1, bottom - top, columns, 4, 4, channels)
        _by_tiles(y[pictures, :, 4 * top : 4 * bottom]).copy_(tiles)
    if y.shape[2:] == x.shape[2:]:
        return y
    # a single picture without its last rows is contiguous as it is, and a view may not be written over
    return y[:, :, :height, :width].clone(memory_format=torch.channels_last)


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Of the weights, (K, C, 3, 3), from inputs (B, C, H, W) and the gradient of outputs (B, K, H, W)."""
    count, channels, height, width = x.shape
    rows, columns, out_channels = _tiles(height), _tiles(width), gradient.shape[1]
    if height % 4 or width % 4:
        gradient = F.pad(gradient, (0, 4 * columns - width, 0, 4 * rows - height))
    at_points = x.new_zeros(36, out_channels, channels)
    for pictures, top, bottom in _pieces(count, rows, columns):
        inputs = INPUT @ _windows(x[pictures], top, bottom, columns)
        outputs = OUTPUT.mT @ _by_tiles(gradient[pictures, :, 4 * top : 4 * bottom]).reshape(-1, 16, out_channels)
        at_points.baddbmm_(outputs.permute(1, 2, 0), inputs.transpose(0, 1))
    return (WEIGHT.mT @ at_points.flatten(1)).view(3, 3, out_channels, channels).permute(2, 3, 0, 1)


def _by_tiles(x: Tensor) -> Tensor:
    """(B, C, 4 rows, 4 columns) seen as (B, rows, columns, 4, 4, C)."""
    tiles: Tensor = x.unflatten(3, (-1, 4)).unflatten(2, (-1, 4))
    return tiles.permute(0, 2, 4, 3, 5, 1)


def _tiles(length: int) -> int:
    return -(-length // 4)


def _pieces(count: int, rows: int, columns: int) -> Iterator[tuple[slice, int, int]]:
    """Which pictures, and their first and last row of tiles: several pictures, or some rows of one."""
    tiles = _TILES * torch.get_num_threads()
    together, most = max(1, tiles // (rows * columns)), max(1, tiles // columns)
    for first in range(0, count, together):
        for top in range(0, rows, most):
            yield slice(first, first + together), top, min(top + most, rows)


def _windows(x: Tensor, top: int, bottom: int, columns: int) -> Tensor:
    """What rows of tiles see of pictures (B, C, H, W), zeros around them: (tiles, 36, C)."""
    channels, height, width = x.shape[1:]
    first, last = 4 * top - 1, 4 * bottom + 1
    part = x[:, :, max(first, 0) : last].permute(0, 2, 3, 1)
    part = F.pad(part, (0, 0, 1, 4 * columns + 1 - width, max(-first, 0), max(last - height, 0)))
    return part.unfold(1, 6, 4).unfold(2, 6, 4).permute(0, 1, 2, 4, 5, 3).reshape(-1, 36, channels)
