"""What happens to everyday pictures before somebody wants them larger: blur, reduction, noise, JPEG.

Every picture of a batch has a fate of its own; all of it runs on the pictures' device.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.config import PhotoConfig
from dreamsr.core.resize import bicubic
from dreamsr.core.size import Size
from dreamsr.data.jpeg import UNIT, jpeg

Draw = Callable[[], Tensor]
"""Gives (B,) numbers in [0, 1), others at every call."""
SHARP = 0.01
"""Standard deviation, in pixels, of the blur of a picture that is not blurred."""


def photo(hr: Tensor, size: Size, config: PhotoConfig, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [-1, 1] to (B, 3, *size) at the 256 levels of an 8-bit file; generator: of hr's device."""

    def draw() -> Tensor:
        return torch.rand(len(hr), generator=generator, device=hr.device)

    x = blurred(hr, config, hr.shape[-1] / size[1], draw)
    levels = ((_reduced(x, size, draw) + 1) * 127.5).clamp(0, 255)
    for noise in (poisson_noise, gaussian_noise):
        levels = levels + noise(levels, config, generator, draw)
    return compressed(levels.round().clamp(0, 255), config, draw) / 127.5 - 1


def blurred(x: Tensor, config: PhotoConfig, scale: float, draw: Draw) -> Tensor:
    """Convolved with Gaussians of random widths and direction; `scale`: pixels of x in one of the reduced picture."""
    happens, is_round = draw() < config.blur_share, draw() < config.round_share
    first, second = (torch.where(happens, _between(config.blur, draw()) * scale, 0).clamp(min=SHARP) for _ in range(2))
    kernels = gaussians(first, torch.where(is_round, first, second), math.pi * draw(), scale * config.blur[1])
    return _convolved(x, kernels)


def gaussians(first: Tensor, second: Tensor, angle: Tensor, largest: float) -> Tensor:
    """Kernels (B, n, n) of sum 1: deviations along two axes in pixels, (B,) each; n holds 3 times the `largest`."""
    radius = math.ceil(3 * largest)
    place = torch.arange(-radius, radius + 1, device=first.device, dtype=torch.float32)
    y, x = place[:, None], place[None, :]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along = ((cos * x + sin * y) / first[:, None, None]).square()
    across = ((cos * y - sin * x) / second[:, None, None]).square()
    return torch.softmax(-(along + across).flatten(1) / 2, 1).reshape(along.shape)


def gaussian_noise(levels: Tensor, config: PhotoConfig, generator: torch.Generator, draw: Draw) -> Tensor:
    """What to add to levels 0 to 255: in every channel, or the same in all; of single pixels, or smooth."""
    deviation = torch.where(draw() < config.gauss_share, _between(config.gauss, draw()), 0)
    noise = _smoothed(torch.randn(levels.shape, generator=generator, device=levels.device), config, draw)
    grey = (draw() < config.grey_share)[:, None, None, None]
    return torch.where(grey, noise[:, :1], noise) * deviation[:, None, None, None]


def poisson_noise(levels: Tensor, config: PhotoConfig, generator: torch.Generator, draw: Draw) -> Tensor:
    """What to add to levels 0 to 255 where light is counted: its variance grows with the level.

    Drawn from a normal distribution of that variance, as good as Poisson's for hundreds of counts. How many numbers
    it draws does not depend on the picture, so rounding on another machine changes nothing that is drawn afterwards.
    """
    white = _between(config.poisson, draw())[:, None, None, None]
    grey = (draw() < config.grey_share)[:, None, None, None]
    light = torch.where(grey, levels.mean(1, keepdim=True), levels)
    normal = torch.randn(levels.shape, generator=generator, device=levels.device)
    noise = torch.where(grey, normal[:, :1], normal) * white * (light / 255).sqrt()
    return torch.where((draw() < config.poisson_share)[:, None, None, None], noise, 0)


def compressed(levels: Tensor, config: PhotoConfig, draw: Draw) -> Tensor:
    """JPEG of whole levels 0 to 255, whose blocks begin anywhere, since crops do."""
    top, left = ((UNIT * draw()).long() for _ in range(2))
    height, width = levels.shape[-2:]
    around = _window(levels, -top, -left, (height + UNIT, width + UNIT))
    coded = jpeg(around, _between(config.jpeg, draw()).round(), draw() < config.subsampled_share)
    happens = (draw() < config.jpeg_share)[:, None, None, None]
    return torch.where(happens, _window(coded, top, left, (height, width)), levels)


def _reduced(x: Tensor, size: Size, draw: Draw) -> Tensor:
    """By bicubic or bilinear interpolation or means of areas, which programs use one as often as another."""
    linear = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    ways = torch.stack([bicubic(x, size), linear, F.adaptive_avg_pool2d(x, size)])
    return ways[(len(ways) * draw()).long(), torch.arange(len(x), device=x.device)]


def _smoothed(noise: Tensor, config: PhotoConfig, draw: Draw) -> Tensor:
    """White noise, a share of it smoothed and of the same deviation as before."""
    width = torch.where(draw() < config.grain_share, _between(config.grain, draw()), 0).clamp(min=SHARP)
    kernels = gaussians(width, width, width, config.grain[1])
    return _convolved(noise, kernels / kernels.square().sum((1, 2), keepdim=True).sqrt())


def _convolved(x: Tensor, kernels: Tensor) -> Tensor:
    """(B, 3, H, W), every picture with its kernel of (B, n, n), n odd; beyond the border its last pixels."""
    count, _, height, width = x.shape
    padded = F.pad(x, (kernels.shape[-1] // 2,) * 4, mode="replicate").flatten(0, 1)[None]
    weights = kernels.repeat_interleave(3, 0)[:, None]
    return F.conv2d(padded, weights, groups=3 * count).reshape(count, 3, height, width)


def _between(ends: tuple[float, ...], share: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * share


def _window(x: Tensor, top: Tensor, left: Tensor, size: Size) -> Tensor:
    """(B, C, *size) that begins at (top, left) of every picture, (B,) each; beyond the border its last pixels."""
    rows, columns = (
        (start[:, None] + torch.arange(n, device=x.device)).clamp(0, length - 1)
        for start, n, length in ((top, size[0], x.shape[2]), (left, size[1], x.shape[3]))
    )
    index = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
