"""A sampling run as one module that can be traced: pictures of any size in, the solver's arithmetic as constants."""

import torch
from torch import Tensor, nn

from dreamsr.core.denoiser import Denoiser
from dreamsr.core.resize import bicubic
from dreamsr.core.sampling import Sampler, solve


def coefficients(levels: Tensor, sampler: Sampler, noise_scale: float = 1.0) -> list[list[float]]:
    """Row i holds the weights of (noise, estimate 0, ..., estimate i - 1) in the u that step i begins with.

    Without noise between the steps a solver is linear in all of these. So it is run once on coordinates, where the
    noise and every estimate are axes, and tells its own weights. levels: float64 (n + 1, 2); n rows.
    """
    axes = torch.eye(len(levels), dtype=torch.float64)
    estimates = iter(axes[1:])
    start = axes[0] * levels[0, 1] * noise_scale
    steps = solve(lambda u, level: next(estimates), start, levels, sampler)
    rows = [start.tolist(), *(step.u.tolist() for step in steps)]
    return [row[: i + 1] for i, row in enumerate(rows[:-1])]


class Unrolled(nn.Module):
    """(picture, noise) to the enlarged picture, all steps of a deterministic sampler inside."""

    def __init__(
        self,
        denoiser: Denoiser,
        levels: Tensor,
        sampler: Sampler,
        scale: int,
        *,
        noise_scale: float = 1.0,
        fidelity: float = 0.0,
    ) -> None:
        """fidelity: share of the first estimate in the result."""
        super().__init__()
        self.denoiser, self.levels, self.scale, self.fidelity = denoiser, levels, scale, fidelity
        self.network = denoiser.network  # a module of this one, so that tracing sees weights and not constants
        self.coefficients = coefficients(levels, sampler, noise_scale)

    def forward(self, picture: Tensor, noise: Tensor) -> Tensor:
        """picture: (1, 3, H, W) in [0, 1]; returns (1, 3, scale H, scale W) in [0, 1].

        noise: standard normal (1, 3, Y, X); Y and X are scale H and scale W, rounded up to the network's granularity.
        """
        height, width = self.scale * picture.shape[2], self.scale * picture.shape[3]
        anchor = _extended(bicubic(2 * picture - 1, (height, width)), (noise.shape[2], noise.shape[3]))
        condition = self.denoiser.condition(anchor, torch.tensor([float(self.scale)]))
        known = [noise]
        for level, weights in zip(self.levels, self.coefficients, strict=False):
            known.append(self.denoiser(_combined(weights, known), level, condition))
        u_0 = torch.lerp(known[-1], known[1], self.fidelity) if self.fidelity else known[-1]
        return (self.denoiser.process.to_x(u_0, anchor)[..., :height, :width] + 1) / 2


def _combined(weights: list[float], known: list[Tensor]) -> Tensor:
    u = weights[0] * known[0]
    for weight, x in zip(weights[1:], known[1:], strict=True):
        u = u + weight * x
    return u


def _extended(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Edges replicated up to `size` (height, width); by index, since a trace does not know how much is missing."""
    for axis, length in zip((2, 3), size, strict=True):
        x = x.index_select(axis, torch.arange(length).clamp(max=x.shape[axis] - 1))
    return x
