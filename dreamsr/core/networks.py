"""PatchUNet: a UNet on patches of the picture, made of local operations alone.

Convolutions and per-pixel normalisation see a bounded neighbourhood, so a picture can be cut into
tiles with a halo. All that the network knows of the input is the anchor at output size.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamsr.config import NetworkConfig
from dreamsr.core.convolution import Conv3x3

EMBEDDING = 128
FREQUENCIES = 8


def channel_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance over the channels of every pixel, then scale and shift (C,); (B, C, H, W)."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), scale, shift, 1e-5).permute(0, 3, 1, 2)


def film_norm(x: Tensor, film: Tensor) -> Tensor:
    """(1 + scale) norm(x) + shift, where film holds (scale, shift): (B, 2 C), or (1, 2 C) for all of x.

    One row, as at every sampling step, is a plain affine norm: one pass over memory, not three.
    """
    scale, shift = film.to(x.dtype).chunk(2, dim=1)
    if len(film) == 1:
        return channel_norm(x, 1 + scale[0], shift[0])
    return channel_norm(x) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]


class Block(nn.Module):
    """x + conv(silu(conv(film_norm(x)))); scale and shift are learned or come from the level."""

    def __init__(self, width: int, modulated: bool) -> None:
        super().__init__()
        self.conv1 = Conv3x3(width, width)
        self.conv2 = Conv3x3(width, width)
        _zero(self.conv2)
        size = 2 * width
        self.film = nn.Linear(EMBEDDING, size) if modulated else nn.Parameter(torch.zeros(1, size))
        if isinstance(self.film, nn.Linear):
            nn.init.zeros_(self.film.bias)
            nn.init.uniform_(self.film.weight, -0.035, 0.035)  # of deviation 0.02; on meta, normal_ loads the compiler

    def forward(self, x: Tensor, given: Tensor | float) -> Tensor:
        """x: (B, width, H, W); given: the embedded level (B, EMBEDDING), or (1, EMBEDDING) for all.

        In the encoder: what is added to the learned scale and shift, (B, 2 width), (1, 2 width) or 0.
        """
        film = self.film(given) if isinstance(self.film, nn.Linear) else self.film + given
        made: Tensor = self.conv2(self.conv1(film_norm(x, film), silu=True), plus=x)
        return made


class Embedding(nn.Module):
    """Sinusoids of a bounded number (the angle of the level, 1 / scale), then a small MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B,) in [0, 1], float32; returns (B, EMBEDDING)."""
        k = torch.arange(1, FREQUENCIES + 1, device=x.device, dtype=torch.float32)
        phase = math.pi * x.float()[:, None] * k
        waves = torch.cat([phase.sin(), phase.cos()], dim=1)
        embedded: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return embedded


class PatchUNet(nn.Module):
    """Predicts from (u_t, level) and the encoded anchor; all pictures are (B, 3, H, W) in [-1, 1].

    H and W may be any size: they are extended to a multiple of `granularity` and cut back.
    """

    fixed_size = None

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths = config.widths, config.depths
        pixels = 3 * config.patch**2
        self.level = Embedding()
        self.scale = _scale_films(config) if config.scale_embedding else None
        self.enter_anchor = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(Block(widths[0], False) for _ in range(config.encoder_blocks))
        self.enter = Conv3x3(pixels, widths[0])
        self.down = nn.ModuleList(_stage(w, n) for w, n in zip(widths, depths, strict=True))
        self.up = nn.ModuleList(_stage(w, n) for w, n in zip(widths[:-1], depths, strict=False))
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.leave = nn.Conv2d(widths[0], pixels, 3, padding=1)
        _zero(self.leave)

    @property
    def granularity(self) -> int:
        """Output pixels to which sizes and tile origins are aligned."""
        return granularity(self.config)

    def encode(self, anchor: Tensor, scale: Tensor) -> Tensor:
        """Features of the anchor (B, 3, H, W), computed once a picture: (B, C, h, w).

        scale: (B,), or (1,) for all: output size / input size, at least 1.
        """
        blocks = self.config.encoder_blocks
        films = [0.0] * blocks if self.scale is None else self.scale(1 / scale).chunk(blocks, dim=1)
        x: Tensor = self.enter_anchor(self._patches(anchor))
        for block, film in zip(self.encoder, films, strict=True):
            x = block(x, film)
        return x

    def forward(self, u: Tensor, angle: Tensor, features: Tensor) -> Tensor:
        """u: (B, 3, H, W); angle: (B,) or (1,), 2/pi atan2(sigma, alpha); features: from `encode`."""
        for stage in self.stages(u, angle, features):
            x = stage
        out = F.pixel_shuffle(self.leave(F.silu(channel_norm(x))), self.config.patch)
        return out[..., : u.shape[-2], : u.shape[-1]]

    def stages(self, u: Tensor, angle: Tensor, features: Tensor) -> Iterator[Tensor]:
        """What every stage makes of the arguments of `forward`, down and up again: (B, its width, h, w)."""
        embedding = self.level(angle)
        x = self.enter(self._patches(u), plus=features)
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down):
            x = _run(stage, x, embedding)
            yield x
            if i < len(self.shrink):
                skips.append(x)
                x = self.shrink[i](x)
        for i in reversed(range(len(self.up))):
            grown = F.pixel_shuffle(self.grow[i](x), 2)
            x = grown.contiguous(memory_format=torch.channels_last).add_(skips[i])  # CUDA gives another format
            x = _run(self.up[i], x, embedding)
            yield x

    def _patches(self, x: Tensor) -> Tensor:
        g = self.granularity
        bottom, right = -x.shape[-2] % g, -x.shape[-1] % g
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        patches = F.pixel_unshuffle(x, self.config.patch)
        return patches.contiguous(memory_format=torch.channels_last)


def granularity(config: NetworkConfig) -> int:
    """Output pixels that one pixel of the network's coarsest level stands for."""
    return int(config.patch * 2 ** (len(config.widths) - 1))


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _scale_films(config: NetworkConfig) -> nn.Module:
    """From 1 / scale (B,) to what is added to the FiLM of all encoder blocks, at first 0: (B, blocks * 2 width)."""
    films = nn.Linear(EMBEDDING, config.encoder_blocks * 2 * config.widths[0])
    _zero(films)
    return nn.Sequential(Embedding(), films)


def _stage(width: int, blocks: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width, True) for _ in range(blocks))


def _run(stage: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    assert isinstance(stage, nn.ModuleList)
    for block in stage:
        x = block(x, embedding)
    return x
