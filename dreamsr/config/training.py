"""A training run."""

import math
from dataclasses import dataclass, field
from typing import Literal

from dreamsr.config.checks import require
from dreamsr.config.model import ModelConfig
from dreamsr.config.network import NetworkConfig, SR3Config

Spread = Literal["time", "lambda"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run. `steps` alone defines the learning-rate schedule."""

    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 10_000
    batch: int = 32
    micro_batches: int = 1
    """Equal parts of a batch whose gradients are added: one after another in less memory, or on several GPUs."""
    crop: int = 128
    """Side of the high-resolution training crops in pixels."""
    shrink: float = 1.0
    """Largest factor by which crops are reduced from larger ones, as far as photos have room, in every other
    micro-batch; 1: none are."""
    lr: float = 5e-4
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the weights of convolutions, AdamW for the others."""
    warmup: int = 200
    """Steps of linear warm-up."""
    cooldown: float = 0.4
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the averaged weights a step (less at the beginning)."""
    loss: Literal["l1", "l2"] = "l2"
    dream_p: float | Literal["off"] = 1.0
    """DREAM's exponent: 0 rectifies fully, larger values less, `off` is plain diffusion."""
    dream_start: int = 0
    """The step at which DREAM begins."""
    energy: float = 0.0
    """Weight of the energy score of the model's own samples, two a picture; 0: none."""
    snr_cap: float = 1.0
    """Losses weigh min(1 + SNR, snr_cap), where SNR = (alpha / sigma)^2; 1: all levels weigh the same."""
    levels: Spread = "time"
    """What training levels are uniform in."""
    first_level: float = 0.1
    """Share of the samples that are drawn at the noisiest level, where sampling starts."""
    val_every: int = 1000
    """Steps between validations."""
    save_every: int = 500
    """Steps between saves of the training state."""
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("steps", "batch", "micro_batches", "val_every", "save_every"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        equal = self.batch % self.micro_batches == 0
        require(equal, "micro_batches", f"a divisor of batch, {self.batch}", self.micro_batches)
        self._check_crop(self.model.network)
        require(self.shrink >= 1 and math.isfinite(self.shrink), "shrink", "a number from 1 on", self.shrink)
        given = self.model.degradation == "pairs" and self.shrink > 1
        require(not given, "shrink", "1 for pairs, whose inputs are given", self.shrink)
        for key in ("lr", "clip"):
            require(getattr(self, key) > 0, key, "a positive number", getattr(self, key))
        for key in ("weight_decay", "dream_start", "energy"):
            require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        require(0 <= self.seed < 2**63, "seed", "at least 0 and below 2^63", self.seed)
        require(self.warmup >= 0, "warmup", "at least 0", self.warmup)
        require(0 <= self.cooldown <= 1, "cooldown", "between 0 and 1", self.cooldown)
        require(0 <= self.ema < 1, "ema", "at least 0 and below 1", self.ema)
        require(self.snr_cap >= 1, "snr_cap", "at least 1", self.snr_cap)
        require(0 <= self.first_level <= 1, "first_level", "between 0 and 1", self.first_level)
        p = self.dream_p
        require(p == "off" or (p >= 0 and math.isfinite(p)), "dream_p", "a number >= 0, or off", p)

    def _check_crop(self, network: NetworkConfig | SR3Config) -> None:
        if isinstance(network, SR3Config):
            require(self.crop == network.size, "crop", f"model.network.size, {network.size}", self.crop)
        multiple = self.model.scale * (1 if isinstance(network, SR3Config) else network.patch)
        good = self.crop >= multiple and self.crop % multiple == 0
        require(good, "crop", f"a multiple of {multiple}", self.crop)
