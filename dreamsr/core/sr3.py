"""SR3UNet: the UNet of SR3 (arXiv 2104.07636) in the topology that DREAM's face experiments use.

GroupNorm and attention mix the whole field, so the network runs at the size it is trained at.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import SR3Config


class Attention(nn.Module):
    """x + conv(softmax(q k^T / sqrt(C)) v): one head over all pixels of norm(x); (B, C, H, W)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return out


class Block(nn.Module):
    """A residual block whose middle is shifted by the level; dropout before its second convolution alone."""

    def __init__(self, config: SR3Config, width_in: int, width: int, attends: bool) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.level = nn.Linear(config.channels, width)
        self.norm2 = nn.GroupNorm(config.groups, width)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.attention = Attention(width, config.groups) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, width_in, H, W); embedding: (B, channels), or (1, channels) for all; returns (B, width, H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.level(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = self.attention(h + self.skip(x))
        return out


class SR3UNet(nn.Module):
    """Predicts from (u_t, level) and the anchor, which is its first three channels; (B, 3, size, size) in [-1, 1]."""

    granularity = 1

    def __init__(self, config: SR3Config) -> None:
        super().__init__()
        self.config = config
        n, last = config.channels, len(config.multipliers) - 1
        levels = [(n * m, config.size >> i in config.attention) for i, m in enumerate(config.multipliers)]
        self.embed = nn.Sequential(nn.Linear(n, 4 * n), nn.SiLU(), nn.Linear(4 * n, n))
        downs: list[nn.Module] = [nn.Conv2d(6, n, 3, padding=1)]
        widths = [n]  # of the outputs of `downs`, which `ups` takes back from the end
        for i, (width, attends) in enumerate(levels):
            for _ in range(config.blocks):
                downs.append(Block(config, widths[-1], width, attends))
                widths.append(width)
            if i < last:
                downs.append(_shrink(width))
                widths.append(width)
        width = widths[-1]
        ups: list[nn.Module] = []
        self.mid = nn.ModuleList(Block(config, width, width, attends) for attends in (True, False))
        for i, (wider, attends) in reversed(list(enumerate(levels))):
            for _ in range(config.blocks + 1):
                ups.append(Block(config, width + widths.pop(), wider, attends))
                width = wider
            if i > 0:
                ups.append(_grow(width))
        self.downs, self.ups = nn.ModuleList(downs), nn.ModuleList(ups)
        self.leave = nn.Sequential(nn.GroupNorm(config.groups, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))
        self.apply(_orthogonal)

    @property
    def fixed_size(self) -> int:
        """The side of the pictures it takes."""
        return self.config.size

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        """The anchor itself: nothing can be computed beforehand, and the scale is not looked at."""
        return anchor

    def forward(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        """u, features: (B, 3, size, size); angle: (B,) or (1,), 2/pi atan2(sigma, alpha)."""
        for stage in self.stages(u, angle, features):
            x = stage
        out: Tensor = self.leave(x)
        return out

    def stages(self, u: Tensor, angle: Tensor, features: Tensor) -> Iterator[Tensor]:
        """What every layer makes of the arguments of `forward`, down and up again: (B, its width, h, w)."""
        embedding = self._embed(torch.cos(math.pi / 2 * angle.float()))
        x = torch.cat([features, u], dim=1)
        skips: list[Tensor] = []
        for layer in self.downs:
            x = layer(x, embedding) if isinstance(layer, Block) else layer(x)
            skips.append(x)
            yield x
        for layer in self.mid:
            x = layer(x, embedding)
            yield x
        for layer in self.ups:
            x = layer(torch.cat([x, skips.pop()], dim=1), embedding) if isinstance(layer, Block) else layer(x)
            yield x

    def _embed(self, alpha: Tensor) -> Tensor:
        """Sinusoids of alpha = sqrt(alpha_bar), then a small MLP: (B,) float32 to (B, channels)."""
        half = self.config.channels // 2
        frequencies = 1e-4 ** (torch.arange(half, device=alpha.device) / half)
        phase = alpha[:, None] * frequencies
        waves = torch.cat([phase.sin(), phase.cos()], dim=1)
        embedding: Tensor = self.embed(waves.to(next(self.embed.parameters()).dtype))
        return embedding


def _shrink(width: int) -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(width, width, 3, stride=2, padding=1)))


def _grow(width: int) -> nn.Module:
    return nn.Sequential(OrderedDict(up=nn.Upsample(scale_factor=2), conv=nn.Conv2d(width, width, 3, padding=1)))


def _orthogonal(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
