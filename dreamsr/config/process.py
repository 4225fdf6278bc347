"""The noising process."""

from dataclasses import dataclass
from typing import Literal

from dreamsr.config.checks import require

ETA_ROOT_END = 0.99
"""sqrt(eta) of ResShift's last row."""


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
        require(self.table >= rows, "process.table", f"at least {rows}", self.table)
        for key in ("k", "kappa", "noise_start", "eta_power"):
            require(getattr(self, key) > 0, f"process.{key}", "a positive number", getattr(self, key))
        first = min(self.noise_start / self.kappa, self.noise_start)
        require(first < ETA_ROOT_END, "process.noise_start", f"below {ETA_ROOT_END} kappa", self.noise_start)
        betas = (self.beta_start, self.beta_end)
        require(0 < betas[0] <= betas[1] < 1, "process.beta_*", "0 < start <= end < 1", betas)
        ends = (self.lambda_noise, self.lambda_image)
        require(ends[0] < ends[1], "process.lambda_*", "lambda_noise < lambda_image", ends)
