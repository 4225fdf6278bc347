"""The processes of the literature: their steps as published are those of the one solver on u = x - anchor."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from oracles import gaussian, gaussian_flow, two_modes
from torch import Tensor

from dreamsr.config import ProcessConfig, SamplerName
from dreamsr.core.process import Process
from dreamsr.core.sampling import SAMPLERS, Sampler, Step, solve

KAPPA = 2.0
COSINE = Process(ProcessConfig())
FLOW = Process(ProcessConfig("flow"))
JOURNAL = Process(ProcessConfig("resshift", 4, noise_start=0.2))
RESSHIFT = Process(ProcessConfig("resshift", 15))


def random(count: int) -> Tensor:
    return torch.randn(count, 200, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def rows(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.float64)


def last(steps: Iterator[Step]) -> Tensor:
    *_, step = steps
    return step.u


def etas(process: Process) -> list[float]:
    """From picture to noise."""
    return ((process.level(process.table)[:, 1] / process.config.kappa) ** 2).tolist()


@pytest.mark.parametrize(
    ("process", "index", "roots"),
    [(JOURNAL, [0, 1, 2, 3], [0.1, 0.5201, 0.7614, 0.99]), (RESSHIFT, [0, 1, 2, 14], [0.02, 0.1172, 0.1763, 0.99])],
)
def test_resshifts_published_table(process: Process, index: list[int], roots: list[float]) -> None:
    found = [math.sqrt(etas(process)[i]) for i in index]
    assert found == pytest.approx(roots, abs=5e-5)


@pytest.mark.parametrize("kappa", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("table", [2, 4, 15])
def test_every_row_of_resshift_is_its_formula(kappa: float, table: int) -> None:
    """sqrt(eta) = first (end / first)^((k / (T - 1))^p), alpha = 1 - eta, sigma = kappa sqrt(eta)."""
    process = Process(ProcessConfig("resshift", table, kappa=kappa, noise_start=0.04, eta_power=0.3))
    first = min(0.04 / kappa, 0.04)
    roots = [first * (0.99 / first) ** ((k / (table - 1)) ** 0.3) for k in range(table)]
    expected = rows(*((1 - root**2, kappa * root) for root in roots))
    torch.testing.assert_close(process.level(process.table), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("process", [JOURNAL, RESSHIFT])
def test_resshifts_step_is_bayes(process: Process) -> None:
    """q(u_n | u, u_0) from q(u_n | u_0) and the transition q(u | u_n) = N(u_n - d u_0, kappa^2 d), d = eta - eta_n."""
    u, u_0, z = random(3)
    for eta_n, eta in pairwise(etas(process)):
        d = eta - eta_n
        variance = KAPPA**2 / (1 / d + 1 / eta_n)
        mean = variance * ((u + d * u_0) / d + (1 - eta_n) * u_0 / eta_n) / KAPPA**2
        levels = rows((1 - eta, KAPPA * math.sqrt(eta)), (1 - eta_n, KAPPA * math.sqrt(eta_n)))
        step = last(solve(lambda *_: u_0, u, levels, SAMPLERS["resshift"], lambda _: z))
        torch.testing.assert_close(step, mean + math.sqrt(variance) * z, rtol=0, atol=1e-12)


def test_resshifts_transitions_compose_to_its_levels() -> None:
    """From u_0, T transitions have mean alpha u_0 and variance sigma^2, row by row."""
    mean, variance, eta_n = 1.0, 0.0, 0.0
    for eta, (alpha, sigma) in zip(etas(RESSHIFT), RESSHIFT.level(RESSHIFT.table).tolist(), strict=True):
        mean, variance, eta_n = mean - (eta - eta_n), variance + KAPPA**2 * (eta - eta_n), eta
        assert (mean, variance) == pytest.approx((alpha, sigma**2), abs=1e-12)


@pytest.mark.parametrize("process", [JOURNAL, RESSHIFT])
def test_sinsrs_step_is_order_1(process: Process) -> None:
    """arXiv 2311.14760: x_n = m x + k x_0 + j y."""
    x, x_0, y = random(3)
    for eta_n, eta in pairwise(etas(process)):
        m, mixed = math.sqrt(eta_n / eta), math.sqrt(eta * eta_n)
        j, k = eta_n - mixed, 1 - eta_n + mixed - m
        levels = rows((1 - eta, KAPPA * math.sqrt(eta)), (1 - eta_n, KAPPA * math.sqrt(eta_n)))
        step = last(solve(lambda *_: x_0 - y, x - y, levels, SAMPLERS["ddim"]))
        torch.testing.assert_close(step + y, m * x + k * x_0 + j * y, rtol=0, atol=1e-12)


def test_order_2_pays_on_resshifts_own_levels() -> None:
    """15 rows, a residual of standard deviation .1: a third of the error of order 1."""
    levels = RESSHIFT.levels(15, "time")
    torch.testing.assert_close(levels[:-1], RESSHIFT.level(RESSHIFT.table).flip(0))
    mean = torch.zeros(200, dtype=torch.float64)
    u = levels[0, 1] * random(20)
    exact = gaussian_flow(mean, mean + 0.01, u, levels[0], levels[-1])
    errors = [
        float((last(solve(gaussian(mean, mean + 0.01), u, levels, Sampler(order))) - exact).square().mean().sqrt())
        for order in (1, 2)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(("process", "share"), [(JOURNAL, 0.40), (RESSHIFT, 0.51)])
def test_resshifts_sampler_smooths(process: Process, share: float) -> None:
    """What it keeps of a residual's standard deviation .1, with the exact denoiser m = g u: the variance by steps."""
    levels = process.levels(process.config.table, "time")
    variance = float(levels[0, 1]) ** 2
    for (alpha, sigma), (alpha_n, sigma_n) in pairwise(levels.tolist()):
        g = 0.01 * alpha / (0.01 * alpha**2 + sigma**2)
        kept = sigma_n**2 / sigma**2
        variance *= (kept * (1 - alpha * g) + alpha_n * g) ** 2
        variance += sigma_n**2 * (1 - kept)
    noise = torch.randn(len(levels), 100_000, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    denoise = gaussian(torch.zeros(1), torch.tensor([0.01]))
    end = last(solve(denoise, noise[-1] * levels[0, 1], levels, SAMPLERS["resshift"], lambda i: noise[i]))
    assert float(end.std()) == pytest.approx(math.sqrt(variance), rel=0.01)
    assert math.sqrt(variance) / 0.1 == pytest.approx(share, abs=0.01)


T = torch.linspace(0.98, 0, 11, dtype=torch.float64)
EULER = {
    "rectified flow, du/dt = eps - u_0": torch.stack([1 - T, T], -1),
    "variance exploding, du/dsigma = eps": torch.stack([torch.ones(11, dtype=torch.float64), 10 * T], -1),
}


@pytest.mark.parametrize("name", EULER)
def test_eulers_method_is_order_1(name: str) -> None:
    """In both, the right side is (u - E[u_0 | u]) / sigma, and sigma grows with time."""
    levels = EULER[name]
    u = levels[0, 1] * random(1)[0]
    steps = solve(two_modes, u.clone(), levels, SAMPLERS["ddim"])
    for (now, then), step in zip(pairwise(levels), steps, strict=True):
        u = u + (then[1] - now[1]) * (u - two_modes(u, now)) / now[1]
        torch.testing.assert_close(step.u, u, rtol=0, atol=1e-12)


def test_the_time_grid_of_a_rectified_flow_has_equal_steps() -> None:
    start = float(FLOW.levels(1)[0, 1])
    expected = start * torch.linspace(1, 0, 9, dtype=torch.float64)
    torch.testing.assert_close(FLOW.levels(8, "time"), torch.stack([1 - expected, expected], -1))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_rddms_step(share: float) -> None:
    """Residual denoising diffusion, arXiv 2308.13712: x_t = x_0 + abar (y - x_0) + bbar eps; v^2 = share bbar_n^2."""
    x, x_0, y, z = random(4)
    (abar, bbar), (abar_n, bbar_n) = (0.7, 0.09), (0.4, 0.05)
    v = math.sqrt(share) * bbar_n
    residual = y - x_0
    eps = (x - x_0 - abar * residual) / bbar
    expected = x - (abar - abar_n) * residual - (bbar - math.sqrt(bbar_n**2 - v**2)) * eps + v * z
    levels = rows((1 - abar, bbar), (1 - abar_n, bbar_n))
    step = last(solve(lambda *_: x_0 - y, x - y, levels, Sampler(variance=lambda *_: v**2), lambda _: z))
    torch.testing.assert_close(step + y, expected, rtol=0, atol=1e-12)


def test_mean_reverting_sde() -> None:
    """IR-SDE, arXiv 2301.11699, with x_0 known: its probability-flow ODE by Runge and Kutta is a step of order 1.

    dx / dtheta = (y - x) - s^2 score,  alpha = e^-theta,  sigma = s sqrt(1 - alpha^2)
    """
    x, x_0, y = random(3)
    s, start, end, count = 50 / 255, 2.0, 0.5, 400

    def at(theta: float) -> tuple[float, float]:
        return math.exp(-theta), s * math.sqrt(1 - math.exp(-2 * theta))

    def slope(theta: float, x: Tensor) -> Tensor:
        alpha, sigma = at(theta)
        score = -(x - y - alpha * (x_0 - y)) / sigma**2
        drift: Tensor = (y - x) - s**2 * score
        return drift

    step = last(solve(lambda *_: x_0 - y, x - y, rows(at(start), at(end)), SAMPLERS["ddim"]))
    h = (end - start) / count
    for i in range(count):
        theta = start + i * h
        k_1 = slope(theta, x)
        k_2 = slope(theta + h / 2, x + h / 2 * k_1)
        k_3 = slope(theta + h / 2, x + h / 2 * k_2)
        x = x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + slope(theta + h, x + h * k_3))
    torch.testing.assert_close(step + y, x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"resshift"}))
def test_samplers_take_one_path_through_the_same_lambdas(name: SamplerName) -> None:
    """u / hypot(alpha, sigma) does not depend on the process."""
    lam = torch.linspace(-4, 3, 9, dtype=torch.float64)
    start, *noise = random(10)
    ends = []
    for process in (COSINE, FLOW, RESSHIFT):
        levels = process.level(lam)
        norms = levels.norm(dim=1)
        end = last(solve(two_modes, norms[0] * start, levels, SAMPLERS[name], lambda i: noise[i]))
        ends.append(end / norms[-1])
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-12)
