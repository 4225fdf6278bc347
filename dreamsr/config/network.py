"""The networks."""

from dataclasses import dataclass
from typing import Literal

from dreamsr.config.checks import require

MOST_BLOCKS, MOST_WIDTH = 1000, 2**16
"""Of a level and of the encoder: a file that asks for more is refused before a network is laid out."""


@dataclass(frozen=True)
class NetworkConfig:
    """PatchUNet: widths of its levels and numbers of residual blocks."""

    kind: Literal["patch-unet"] = "patch-unet"
    widths: tuple[int, ...] = (96, 160, 256)
    blocks: int | tuple[int, ...] = 2
    """Residual blocks a level and side: of every level, or a list for the levels in turn."""
    encoder_blocks: int = 6
    """Residual blocks of the encoder, which runs once a picture."""
    patch: int = 4
    """Side of the output patch that one pixel of the first level stands for."""
    scale_embedding: bool = False
    """Whether the encoder is told the scale: for models of many scales."""

    def __post_init__(self) -> None:
        require(len(self.widths) >= 1, "network.widths", "at least one width", self.widths)
        good = all(1 <= width <= MOST_WIDTH for width in self.widths)
        require(good, "network.widths", f"numbers from 1 to {MOST_WIDTH}", self.widths)
        good = len(self.depths) == len(self.widths) and all(1 <= depth <= MOST_BLOCKS for depth in self.depths)
        expected = f"1 to {MOST_BLOCKS}, once or for each of {len(self.widths)} levels"
        require(good, "network.blocks", expected, self.blocks)
        good = 0 <= self.encoder_blocks <= MOST_BLOCKS
        require(good, "network.encoder_blocks", f"0 to {MOST_BLOCKS}", self.encoder_blocks)
        require(self.patch in (1, 2, 4, 8), "network.patch", "1, 2, 4 or 8", self.patch)
        told = not self.scale_embedding or self.encoder_blocks >= 1
        require(told, "network.encoder_blocks", "at least 1 with network.scale_embedding", self.encoder_blocks)

    @property
    def depths(self) -> tuple[int, ...]:
        """Residual blocks of the levels, on each side."""
        return self.blocks if isinstance(self.blocks, tuple) else (self.blocks,) * len(self.widths)


@dataclass(frozen=True)
class SR3Config:
    """SR3UNet; the defaults are those of the published faces, 16 to 128 pixels."""

    kind: Literal["sr3-unet"] = "sr3-unet"
    channels: int = 64
    """Width of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    """Width of every level in `channels`; each has half the side of the one before."""
    blocks: int = 2
    """Residual blocks a level on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Sides of the levels whose blocks attend; the middle of the network always does."""
    groups: int = 32
    """Groups of every GroupNorm."""
    dropout: float = 0.2
    size: int = 128
    """Side of the pictures that the network is trained on and runs at, in pixels."""

    def __post_init__(self) -> None:
        require(len(self.multipliers) >= 1, "network.multipliers", "at least one", self.multipliers)
        good = all(1 <= factor <= MOST_WIDTH // max(1, self.channels) for factor in self.multipliers)
        expected = f"numbers from 1, and channels up to {MOST_WIDTH}"
        require(good, "network.multipliers", expected, self.multipliers)
        require(1 <= self.blocks <= MOST_BLOCKS, "network.blocks", f"1 to {MOST_BLOCKS}", self.blocks)
        require(self.groups >= 1, "network.groups", "at least 1", self.groups)
        good = self.channels >= 2 and self.channels % 2 == 0 and self.channels % self.groups == 0
        require(good, "network.channels", f"an even multiple of network.groups = {self.groups}", self.channels)
        step = 2 ** (len(self.multipliers) - 1)
        require(self.size >= step and self.size % step == 0, "network.size", f"a multiple of {step}", self.size)
        sides = [self.size >> i for i in range(len(self.multipliers))]
        require(set(self.attention) <= set(sides), "network.attention", f"sides out of {sides}", self.attention)
        require(0 <= self.dropout < 1, "network.dropout", "at least 0 and below 1", self.dropout)
