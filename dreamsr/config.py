"""Configurations: frozen dataclasses that check their values.

Nothing here imports torch, so that a configuration is checked before anything heavy is loaded.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from dreamsr.errors import ConfigError

TILE = 1472
"""Default side of the tiles on a CPU, in output pixels."""
ETA_ROOT_END = 0.99
"""sqrt(eta) of ResShift's last row."""
Prediction = Literal["eps", "x0", "v", "flow"]
Grid = Literal["lambda", "time", "quadratic", "karras"]
Spread = Literal["time", "lambda"]
SamplerName = Literal["ddim", "ddpm", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m", "deis", "unipc", "resshift"]


def _require(condition: bool, key: str, expected: str, given: object) -> None:
    if not condition:
        raise ConfigError(f"{key} is {given!r}; expected {expected}")


@dataclass(frozen=True)
class ProcessConfig:
    """The noising process u_t = alpha u_0 + sigma eps with u = k (x - anchor)."""

    schedule: Literal["cosine", "linear", "flow", "resshift"] = "cosine"
    """`cosine`: alpha = cos(pi t / 2). `linear`: a table of linear betas. `flow`: alpha = 1 - t, sigma = t.
    `resshift`: a table of alpha = 1 - eta, sigma = kappa sqrt(eta)."""
    table: int = 1000
    """Number of rows of the table (schedules `linear` and `resshift` only)."""
    beta_start: float = 1e-4
    beta_end: float = 0.02
    kappa: float = 2.0
    """ResShift's noise at eta = 1, in units of u."""
    noise_start: float = 0.04
    """ResShift's sigma of the first row (kappa >= 1; below, its sqrt(eta))."""
    eta_power: float = 0.3
    """Exponent of ResShift's schedule: log sqrt(eta) is linear in t^power."""
    anchored: bool = True
    """Diffuse the residual to the bicubic picture (True) or the picture itself (False)."""
    k: float = 2.0
    """Factor on the residual; pixels live in [-1, 1]."""
    lambda_noise: float = -4.0
    """log(alpha / sigma) of the noisiest level (schedules `cosine` and `flow`; a table has its own)."""
    lambda_image: float = 4.5
    """log(alpha / sigma) of the cleanest level (schedules `cosine` and `flow`)."""

    def __post_init__(self) -> None:
        rows = 2 if self.schedule == "resshift" else 1
        _require(self.table >= rows, "process.table", f"at least {rows}", self.table)
        for key in ("k", "kappa", "noise_start", "eta_power"):
            _require(getattr(self, key) > 0, f"process.{key}", "a positive number", getattr(self, key))
        first = min(self.noise_start / self.kappa, self.noise_start)
        _require(first < ETA_ROOT_END, "process.noise_start", f"below {ETA_ROOT_END} kappa", self.noise_start)
        betas = (self.beta_start, self.beta_end)
        _require(0 < betas[0] <= betas[1] < 1, "process.beta_*", "0 < start <= end < 1", betas)
        ends = (self.lambda_noise, self.lambda_image)
        _require(ends[0] < ends[1], "process.lambda_*", "lambda_noise < lambda_image", ends)


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
        _require(len(self.widths) >= 1, "network.widths", "at least one width", self.widths)
        _require(min(self.widths) >= 1, "network.widths", "positive numbers", self.widths)
        good = len(self.depths) == len(self.widths) and min(self.depths) >= 1
        _require(good, "network.blocks", f"at least 1, once or for each of {len(self.widths)} levels", self.blocks)
        _require(self.encoder_blocks >= 0, "network.encoder_blocks", ">= 0", self.encoder_blocks)
        _require(self.patch in (1, 2, 4, 8), "network.patch", "1, 2, 4 or 8", self.patch)
        told = not self.scale_embedding or self.encoder_blocks >= 1
        _require(told, "network.encoder_blocks", "at least 1 with network.scale_embedding", self.encoder_blocks)

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
        _require(len(self.multipliers) >= 1, "network.multipliers", "at least one", self.multipliers)
        _require(min(self.multipliers) >= 1, "network.multipliers", "positive numbers", self.multipliers)
        _require(self.blocks >= 1, "network.blocks", "at least 1", self.blocks)
        _require(self.groups >= 1, "network.groups", "at least 1", self.groups)
        good = self.channels >= 2 and self.channels % 2 == 0 and self.channels % self.groups == 0
        _require(good, "network.channels", f"an even multiple of network.groups = {self.groups}", self.channels)
        step = 2 ** (len(self.multipliers) - 1)
        _require(self.size >= step and self.size % step == 0, "network.size", f"a multiple of {step}", self.size)
        sides = [self.size >> i for i in range(len(self.multipliers))]
        _require(set(self.attention) <= set(sides), "network.attention", f"sides out of {sides}", self.attention)
        _require(0 <= self.dropout < 1, "network.dropout", "at least 0 and below 1", self.dropout)


@dataclass(frozen=True)
class TunedGrid:
    """The sampler and the levels that `dreamsr tune` chose for a number of steps."""

    sampler: SamplerName
    lambdas: tuple[float, ...]
    """Increasing; as many as there are steps."""
    noise_scale: float
    weights: str
    """Digest of the weights that it was tuned for; with others it is not used."""
    objective: str
    data: str
    """The pictures it was tuned on, in words."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled when the user does not say otherwise."""

    sampler: SamplerName = "ddim"
    steps: int = 4
    grid: Grid = "lambda"
    """Spacing of the levels: uniform in lambda, in time, in the square root of time, or Karras et al.'s."""
    lambda_start: float = -4.0
    """The first level of the grid; a single step is taken at the noisiest level of the process instead."""
    lambda_end: float = 2.0
    """The last evaluated level of the grid; the step after it ends at sigma = 0."""
    noise_scale: float = 1.0
    """Factor on the noise that sampling starts from; above 1 it leaves more texture."""
    fidelity: float = 0.0
    """From 0, the sample, to 1, the first estimate of the picture: their mixture."""
    tuned: tuple[TunedGrid, ...] = ()
    """What `dreamsr tune` found, for certain numbers of steps and certain weights."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "sampling.steps", "at least 1", self.steps)
        ends = (self.lambda_start, self.lambda_end)
        _require(ends[0] < ends[1], "sampling.lambda_*", "lambda_start < lambda_end", ends)
        _require(self.noise_scale >= 0, "sampling.noise_scale", "at least 0", self.noise_scale)
        _require(0 <= self.fidelity <= 1, "sampling.fidelity", "between 0 and 1", self.fidelity)


@dataclass(frozen=True)
class PhotoConfig:
    """What happens to everyday pictures: every range is drawn from uniformly, for each picture anew.

    Shares say how many of the pictures something happens to.
    """

    blur_share: float = 0.6
    blur: tuple[float, ...] = (0.2, 0.9)
    """Standard deviations of a Gaussian along its two axes, in pixels of the reduced picture."""
    round_share: float = 0.5
    """Share of the blurs that are the same in all directions."""
    gauss_share: float = 0.3
    gauss: tuple[float, ...] = (1.0, 10.0)
    """Standard deviation of Gaussian noise, in levels of 8 bits."""
    grain_share: float = 0.0
    """Share of the Gaussian noises whose neighbouring pixels are alike, as after a reduction of a noisy picture."""
    grain: tuple[float, ...] = (0.4, 1.0)
    """Standard deviation of the Gaussian that such noise is smoothed by, in pixels."""
    poisson_share: float = 0.2
    poisson: tuple[float, ...] = (0.5, 6.0)
    """Standard deviation of Poisson noise where the picture is white, in levels of 8 bits."""
    grey_share: float = 0.4
    """Share of the noises that are the same in all channels."""
    jpeg_share: float = 0.75
    jpeg: tuple[float, ...] = (35.0, 95.0)
    """Quality."""
    subsampled_share: float = 0.7
    """Share of the JPEGs whose colours have half the resolution (4:2:0)."""

    def __post_init__(self) -> None:
        for key in ("blur", "gauss", "grain", "poisson", "jpeg"):
            ends, least = getattr(self, key), 1 if key == "jpeg" else 0
            good = len(ends) == 2 and least <= ends[0] <= ends[1]
            _require(good, f"photo.{key}", f"two numbers, from {least} on, the smaller one first", ends)
        _require(self.jpeg[1] <= 100, "photo.jpeg", "at most 100", self.jpeg)
        for key in ("blur", "round", "gauss", "grain", "poisson", "grey", "jpeg", "subsampled"):
            share = getattr(self, f"{key}_share")
            _require(0 <= share <= 1, f"photo.{key}_share", "between 0 and 1", share)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to rebuild and run a model, its weights aside."""

    name: str = "model"
    scale: int = 4
    """Output size / input size, by default and at most."""
    degradation: Literal["bicubic", "photo", "pairs"] = "bicubic"
    """How inputs came to be: by bicubic reduction, as everyday pictures do (`photo`), or given beside the originals."""
    prediction: Prediction = "x0"
    network: NetworkConfig | SR3Config = field(default_factory=NetworkConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    smallest_scale: float | None = None
    """The network is trained on every scale from here to `scale`; None: on `scale` alone."""
    photo: PhotoConfig = field(default_factory=PhotoConfig)
    """What happens to inputs of degradation `photo`."""

    def __post_init__(self) -> None:
        _require(self.scale >= 1, "model.scale", "at least 1", self.scale)
        least = self.least_scale
        _require(1 <= least <= self.scale, "model.smallest_scale", f"between 1 and {self.scale}", least)
        many = self.degradation == "pairs" and self.smallest_scale is not None
        _require(not many, "model.smallest_scale", "none, as pairs have one scale", least)

    def with_tuned(self, grids: Iterable[TunedGrid] = ()) -> "ModelConfig":
        """The same with these tuned grids in place of its own."""
        return replace(self, sampling=replace(self.sampling, tuned=tuple(grids)))

    @property
    def least_scale(self) -> float:
        """The smallest scale that the network knows."""
        return self.scale if self.smallest_scale is None else self.smallest_scale

    @property
    def scales(self) -> str:
        """`x4`, or `x1.5 to x4`."""
        return f"x{self.scale}" if self.smallest_scale is None else f"x{self.smallest_scale:g} to x{self.scale}"


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
            _require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        equal = self.batch % self.micro_batches == 0
        _require(equal, "micro_batches", f"a divisor of batch, {self.batch}", self.micro_batches)
        self._check_crop(self.model.network)
        for key in ("lr", "clip"):
            _require(getattr(self, key) > 0, key, "a positive number", getattr(self, key))
        for key in ("weight_decay", "dream_start", "energy"):
            _require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        _require(0 <= self.seed < 2**63, "seed", "at least 0 and below 2^63", self.seed)
        _require(self.warmup >= 0, "warmup", "at least 0", self.warmup)
        _require(0 <= self.cooldown <= 1, "cooldown", "between 0 and 1", self.cooldown)
        _require(0 <= self.ema < 1, "ema", "at least 0 and below 1", self.ema)
        _require(self.snr_cap >= 1, "snr_cap", "at least 1", self.snr_cap)
        _require(0 <= self.first_level <= 1, "first_level", "between 0 and 1", self.first_level)
        p = self.dream_p
        _require(p == "off" or (p >= 0 and math.isfinite(p)), "dream_p", "a number >= 0, or off", p)

    def _check_crop(self, network: NetworkConfig | SR3Config) -> None:
        if isinstance(network, SR3Config):
            _require(self.crop == network.size, "crop", f"model.network.size, {network.size}", self.crop)
        multiple = self.model.scale * (1 if isinstance(network, SR3Config) else network.patch)
        good = self.crop >= multiple and self.crop % multiple == 0
        _require(good, "crop", f"a multiple of {multiple}", self.crop)
