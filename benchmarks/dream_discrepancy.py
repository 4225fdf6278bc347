"""The discrepancy between training and sampling: errors of u_0 at u_t made from the picture, and at sampled u_t."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from dream_runs import LAST, PAIRED, load
from torch import Tensor

from dreamsr.core.resize import bicubic
from dreamsr.core.sampling import SAMPLERS, Denoise, solve
from dreamsr.data.degrade import degrade
from dreamsr.files import images
from dreamsr.files.checkpoint import Model

LEVELS = 35
SIDE = 128


@dataclass(frozen=True)
class Gap:
    """Root mean square errors of the estimated picture at a level, in levels of 8 bits."""

    method: str
    seed: int
    lam: float
    """log(alpha / sigma)"""
    training: float
    """At u_t made from the true picture."""
    sampling: float
    """At u_t as sampling makes it."""


def errors(denoise: Denoise, u_0: Tensor, eps: Tensor, levels: Tensor) -> tuple[list[float], list[float]]:
    """Mean squared errors of the estimates of u_0 at every level but the last, as training and as sampling see them.

    levels: float64 (n + 1, 2), from noise to picture; both paths begin with the same noise `eps`, shaped as u_0.
    """
    training = [denoise(a * u_0 + s * eps, level) for level in levels[:-1] for a, s in (level.tolist(),)]
    sampling = [step.u_0 for step in solve(denoise, float(levels[0, 1]) * eps, levels, SAMPLERS["ddim"])]
    return [_mean_square(x - u_0) for x in training], [_mean_square(x - u_0) for x in sampling]


def gaps(out: Path, photos: Path) -> Iterator[Gap]:
    """Plain diffusion and p = 1 on the middles of every other photo of a folder."""
    hr = torch.stack([middle(images.read(path).color) for path in images.find(photos)[::2]])
    for trial in PAIRED:
        model = load(out, trial, LAST)
        lambdas = torch.linspace(*model.denoiser.process.span, LEVELS, dtype=torch.float64)
        for lam, training, sampling in zip(lambdas.tolist(), *_gap(model, hr, lambdas), strict=True):
            yield Gap(trial.method, trial.seed, round(lam, 4), round(training, 3), round(sampling, 3))


def middle(picture: Tensor) -> Tensor:
    """The central SIDE x SIDE pixels of (3, H, W)."""
    top, left = ((n - SIDE) // 2 for n in picture.shape[1:])
    return picture[:, top : top + SIDE, left : left + SIDE]


@torch.inference_mode()
def _gap(model: Model, hr: Tensor, lambdas: Tensor) -> list[list[float]]:
    denoiser = model.denoiser
    anchor = bicubic(degrade(hr, model.config.scale), (SIDE, SIDE))
    condition = denoiser.condition(anchor, torch.tensor([float(model.config.scale)]))
    eps = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    u_0, levels = denoiser.process.to_u(hr, anchor), denoiser.process.levels_at(lambdas)
    found = errors(lambda u, level: denoiser(u, level, condition), u_0, eps, levels)
    unit = 127.5 / denoiser.process.config.k
    return [[unit * square**0.5 for square in squares] for squares in found]


def _mean_square(x: Tensor) -> float:
    return float(x.square().mean())
