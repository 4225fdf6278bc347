"""A loss on what sampling ends with: the energy score of two samples and the truth.

A mean error teaches a network the mean of all pictures that an input allows. The energy score is least, in
expectation, where samples are distributed as the truth is, and asks for no discriminator:

    E |x - y| - E |x - x'| / 2        x, x': independent samples for one input; y: the truth

(Gneiting and Raftery 2007; for diffusion: De Bortoli et al., arXiv 2502.02483). As in DREAM, the states that a
sampler visits are made without gradient, and the estimate at the last of them learns. Pictures are compared as
they are, and as the averaged network sees them.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamsr.core import dream
from dreamsr.core.denoiser import Condition, Denoiser
from dreamsr.core.sampling import Sampler, solve

BLURS = (2, 4, 8)
"""Sides of the squares of pixels whose means part a picture into bands, from the finest on."""
WINDOWS = (1, 4)
"""Sides of the squares of pixels whose differences count together."""
FEATURE_WEIGHT = 0.06
"""Weight of a network's map beside a band of the pictures."""
_EPS = 1e-8
"""Keeps the root differentiable where samples are equal."""


def energy_score(a: Tensor, b: Tensor, truth: Tensor) -> Tensor:
    """(|a - truth| + |b - truth| - |a - b|) / 2; all are (B, C, H, W).

    |.| is the root mean square over the channels and a window: its mean over all windows, summed over the bands
    of a Laplacian pyramid. In the plain norm of a window texture of a wrong scale hardly counts.
    """
    return _score([*_bands(a)], [*_bands(b)], [*_bands(truth)], WINDOWS)


def feature_score(a: Sequence[Tensor], b: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """The same of what a network makes of the three: maps (B, C, h, w) of any sizes, compared pixel by pixel."""
    return _score(a, b, truth, (1,))


def _score(a: Sequence[Tensor], b: Sequence[Tensor], truth: Sequence[Tensor], windows: Sequence[int]) -> Tensor:
    return (_distance(a, truth, windows) + _distance(b, truth, windows) - _distance(a, b, windows)) / 2


def _distance(a: Sequence[Tensor], b: Sequence[Tensor], windows: Sequence[int]) -> Tensor:
    """Summed over the maps, a mean over the windows."""
    squares = [(x - y).float().square().mean(1, keepdim=True) + _EPS for x, y in zip(a, b, strict=True)]
    norms = [F.avg_pool2d(square, side, stride=1).sqrt().mean() for side in windows for square in squares]
    return torch.stack(norms).sum() / len(windows)


def _bands(x: Tensor) -> Iterator[Tensor]:
    """Pictures of the size of x that sum to x, from fine to coarse."""
    for side in BLURS:
        before = (side - 1) // 2
        margins = (before, side - 1 - before) * 2
        smooth = F.avg_pool2d(F.pad(x, margins, mode="replicate"), side, stride=1)
        yield x - smooth
        x = smooth
    yield x


def sample(
    denoiser: Denoiser,
    start: Tensor,
    levels: Tensor,
    sampler: Sampler,
    condition: Condition,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """u_0 at the end of a sampling run from `start` (B, 3, H, W), differentiable in the last estimate alone.

    levels: float64 (steps + 1, 2); `noise` as in `solve`.
    """
    known = condition.detach()

    def denoise(u: Tensor, level: Tensor) -> Tensor:
        if torch.equal(level, levels[-2]):
            return denoiser(u, level, condition)
        with torch.no_grad(), dream.eval_mode(denoiser.network):
            return denoiser(u, level, known)

    *_, last = solve(denoise, start, levels, sampler, noise)
    return last.u_0
