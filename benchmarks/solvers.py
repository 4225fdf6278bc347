"""Errors and orders of convergence of the samplers, against problems with a known solution.

    python benchmarks/solvers.py docs/samplers.md     # writes its table between the marks

Pictures of 64 independent pixels, float64, steps uniform in lambda that stop short of sigma = 0, so that no step
is cut to order 1. The tests measure the same numbers.
"""

import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pages
import torch
from oracles import gaussian, gaussian_flow, two_modes
from torch import Tensor

from dreamsr.core.process import level
from dreamsr.core.sampling import SAMPLERS, Denoise, Sampler, solve

ROWS: dict[str, Sampler] = {
    "ddim": SAMPLERS["ddim"],
    "x0, order 2, exact": Sampler(2),
    "eps, order 2, exact": Sampler(2, form="eps"),
    "dpmpp-2m": SAMPLERS["dpmpp-2m"],
    "dpmpp-3m": SAMPLERS["dpmpp-3m"],
    "deis": SAMPLERS["deis"],
    "unipc": SAMPLERS["unipc"],
}
LAMBDAS = (-5.02, 4.56)
"""t = 1 and 1e-3 of the linear schedule beta = .1 .. 20 in continuous time."""
TWO_MODES = (-4.0, 3.0)
STEPS = (10, 20, 40, 80, 160)
MARK = "<!-- measured: python benchmarks/solvers.py docs/samplers.md -->"


def gaussian_errors(sampler: Sampler, steps: Sequence[int]) -> list[float]:
    """Root mean square errors at the end for a normal distribution with its own mean and variance a pixel."""
    generator = torch.Generator().manual_seed(1)
    mean = torch.rand(64, generator=generator, dtype=torch.float64) * 1.2 - 0.6
    variance = 0.01 + 0.39 * torch.rand(64, generator=generator, dtype=torch.float64)
    u = torch.randn(8, 64, generator=generator, dtype=torch.float64)
    ends = level(torch.tensor(LAMBDAS, dtype=torch.float64))
    exact = gaussian_flow(mean, variance, u, ends[0], ends[1])
    return [_rms(_end(gaussian(mean, variance), u, LAMBDAS, n, sampler) - exact) for n in steps]


def two_mode_errors(sampler: Sampler, steps: Sequence[int]) -> list[float]:
    """The same for two normal modes, against 2500 steps of order 3."""
    u, exact = _two_modes()
    return [_rms(_end(two_modes, u, TWO_MODES, n, sampler) - exact) for n in steps]


@cache
def _two_modes() -> tuple[Tensor, Tensor]:
    u = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    return u, _end(two_modes, u, TWO_MODES, 2500, SAMPLERS["dpmpp-3m"])


def order(errors: Sequence[float]) -> float:
    """Observed order between two step counts, the second four times the first."""
    return math.log2(errors[0] / errors[-1]) / 2


def table() -> str:
    """Markdown."""
    rows = []
    for name, sampler in ROWS.items():
        errors = gaussian_errors(sampler, STEPS)
        orders = order(errors[2:]), order(two_mode_errors(sampler, (160, 640)))
        rows.append([f"`{name}`", *(f"{e:.1e}" for e in errors), *(f"{o:.2f}" for o in orders)])
    return pages.table(["sampler", *(f"N = {n}" for n in STEPS), "order", "order, two modes"], rows)


def _end(denoise: Denoise, u: Tensor, lambdas: tuple[float, float], steps: int, sampler: Sampler) -> Tensor:
    rows = level(torch.linspace(*lambdas, steps + 1, dtype=torch.float64))
    *_, last = solve(denoise, u, rows, sampler)
    return last.u


def _rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


if __name__ == "__main__":
    pages.replace(Path(sys.argv[1]), MARK, table())
