"""The integrator against closed forms."""

from collections.abc import Iterator
from typing import get_args

import pytest
import solvers
import torch
from oracles import ddpm_posterior, gaussian, points
from torch import Tensor

from dreamsr.config import ProcessConfig, SamplerName
from dreamsr.core import sampling
from dreamsr.core.process import Process, level
from dreamsr.core.sampling import SAMPLERS, Sampler, Step, ddpm_variance, solve

COSINE = Process(ProcessConfig())


def last(steps: Iterator[Step]) -> Step:
    *_, step = steps
    return step


def lambda_rows(start: float, end: float, steps: int) -> Tensor:
    """A uniform grid that stops short of the picture, so that no step is cut to order 1."""
    return level(torch.linspace(start, end, steps + 1, dtype=torch.float64))


LEAST_ORDERS = {
    "ddim": 0.95,
    "x0, order 2, exact": 1.9,
    "eps, order 2, exact": 1.9,
    "dpmpp-2m": 1.9,
    "dpmpp-3m": 2.8,
    "deis": 2.8,
    "unipc": 2.8,
}


@pytest.mark.parametrize("name", LEAST_ORDERS)
def test_order_of_convergence(name: str) -> None:
    assert solvers.order(solvers.gaussian_errors(solvers.ROWS[name], (40, 160))) > LEAST_ORDERS[name]


@pytest.mark.parametrize("name", LEAST_ORDERS)
def test_order_of_convergence_on_two_modes(name: str) -> None:
    """Not linear in u: the third-order samplers get a finer grid, where they have arrived at their order."""
    steps = (80, 320) if LEAST_ORDERS[name] < 2 else (160, 640)
    assert solvers.order(solvers.two_mode_errors(solvers.ROWS[name], steps)) > LEAST_ORDERS[name]


def test_every_deterministic_sampler_has_a_measured_order() -> None:
    deterministic = {name for name, sampler in SAMPLERS.items() if sampler.variance is None}
    assert deterministic == deterministic & LEAST_ORDERS.keys()
    assert solvers.ROWS.keys() == LEAST_ORDERS.keys()


def test_names_are_those_of_the_configuration() -> None:
    assert list(SAMPLERS) == list(get_args(SamplerName))


def test_the_sde_of_order_2_is_the_published_step() -> None:
    """DPM-Solver++ 2M SDE, arXiv 2211.01095, Algorithm 2 in the form with D_1 = (m_0 - m_1) / r."""
    rows = level(torch.tensor([-2.0, -0.7, 0.9], dtype=torch.float64))
    lam = torch.log(rows[:, 0] / rows[:, 1])
    generator = torch.Generator().manual_seed(5)
    u, m_0, m_1, z = torch.randn(4, 20, generator=generator, dtype=torch.float64)
    estimates = iter([m_1, m_0])
    first, second = solve(lambda *_: next(estimates), u, rows, SAMPLERS["dpmpp-2m-sde"], lambda _: z)
    h, r = lam[2] - lam[1], (lam[1] - lam[0]) / (lam[2] - lam[1])
    (_, s), (a_n, s_n) = rows[1], rows[2]
    noise = s_n * torch.sqrt(1 - torch.exp(-2 * h)) * z
    drift = a_n * (1 - torch.exp(-2 * h)) * (m_0 + (m_0 - m_1) / (2 * r))
    torch.testing.assert_close(second.u, s_n / s * torch.exp(-h) * first.u + drift + noise)


def test_weights_do_not_cancel_at_small_steps() -> None:
    """Moments of the kernel c e^(c x) over [0, h] tend to c h^(j + 1) / (j + 1)."""
    for c in (1.0, 2.0, -1.0):
        for h in (1e-9, 1e-5):
            expected = [c * h ** (j + 1) / (j + 1) for j in range(4)]
            assert sampling._moments(h, c, 4) == pytest.approx(expected, rel=2 * h)


@pytest.mark.parametrize("c", [1.0, 2.0, -1.0])
def test_series_and_recursion_of_the_moments_agree(c: float) -> None:
    below, above = ((1 + sign * 1e-9) * sampling._SERIES / abs(c) for sign in (-1, 1))
    assert sampling._moments(below, c, 4) == pytest.approx(sampling._moments(above, c, 4), rel=1e-7)


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"resshift"}))
@pytest.mark.parametrize("steps", [5, 20, 50])
def test_two_points_are_found(name: SamplerName, steps: int) -> None:
    """With the exact denoiser of two pictures every sample is one of them."""
    generator = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    sampler = SAMPLERS[name]
    noise = torch.randn(steps + 1, 16, 3, 8, 8, generator=generator, dtype=torch.float64)
    end = last(
        solve(
            points(a, b),
            COSINE.levels(steps)[0, 1] * noise[-1],
            COSINE.levels(steps),
            sampler,
            lambda i: noise[i],
        )
    ).u
    distance = torch.stack([(end - p).abs().amax((1, 2, 3)) for p in (a, b)])
    assert float(distance.amin(0).max()) < 1e-9
    nearest = distance.argmin(0)
    assert len(nearest.unique()) == 2
    if sampler.variance is None:
        # the flow does not cross the plane between the points
        alpha = COSINE.levels(steps)[0, 0]
        side = ((noise[-1] * COSINE.levels(steps)[0, 1] - alpha * (a + b) / 2) * (b - a)).sum((1, 2, 3))
        assert torch.equal(nearest, (side > 0).long())


@pytest.mark.parametrize("rows", [(1, 0), (5, 4), (100, 99), (999, 998), (999, 500)])
def test_ancestral_step_is_the_textbook_posterior(rows: tuple[int, int]) -> None:
    process = Process(ProcessConfig("linear", 1000, 1e-4, 0.02))
    levels = level(process.table)[list(rows)]
    generator = torch.Generator().manual_seed(3)
    u, u_0, z = torch.randn(3, 4, 10, generator=generator, dtype=torch.float64)
    step = last(solve(lambda *_: u_0, u, levels, Sampler(variance=ddpm_variance), lambda _: z))
    abar, abar_next = (float(a**2) for a, _ in levels)
    mean, variance = ddpm_posterior(u, u_0, abar, abar_next)
    torch.testing.assert_close(step.u, mean + variance**0.5 * z, rtol=0, atol=1e-9)


def test_the_posterior_at_t_1_is_the_estimate() -> None:
    """SR3's last step: weights 1 and 0, variance 0, and no noise is drawn."""
    sr3 = Process(ProcessConfig("linear", 2000, 1e-6, 1e-2, anchored=False, k=1.0))
    u, u_0 = torch.randn(2, 10, dtype=torch.float64)

    def noise(_: int) -> Tensor:
        raise AssertionError("noise was drawn")

    rows = sr3.levels_at(sr3.table[:1])
    step = last(solve(lambda *_: u_0, u, rows, Sampler(variance=ddpm_variance), noise))
    assert torch.equal(step.u, u_0)


def test_order_2_with_noise_is_exact_where_the_estimate_is_linear_in_lambda() -> None:
    """The ancestral kernel is e^(2 lambda): integral of 2 x e^(2 x) is (x - 1/2) e^(2 x)."""
    rows = lambda_rows(-1.0, 1.0, 2)
    lam = torch.log(rows[:, 0] / rows[:, 1])
    u = torch.zeros(1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)

    def denoise(_: Tensor, row: Tensor) -> Tensor:
        return torch.log(row[0] / row[1])[None]

    steps = list(solve(denoise, u, rows, Sampler(2, variance=ddpm_variance), lambda _: zero))
    h = lam[2] - lam[1]
    kept = rows[2, 1] / rows[1, 1] * torch.exp(-h) * steps[0].u
    exact = kept + rows[2, 0] * ((lam[2] - 0.5) - torch.exp(-2 * h) * (lam[1] - 0.5))
    torch.testing.assert_close(steps[1].u, exact)


def test_a_variance_of_0_is_the_ode() -> None:
    u, u_0 = torch.randn(2, 4, 10, dtype=torch.float64)
    levels = COSINE.levels(3)
    silent = last(solve(lambda *_: u_0, u, levels, Sampler()))
    zero = last(solve(lambda *_: u_0, u, levels, Sampler(variance=lambda *_: 0.0)))
    assert torch.equal(silent.u, zero.u)


@pytest.mark.parametrize("order", [1, 2])
def test_a_constant_estimate_gives_the_straight_solution(order: int) -> None:
    """With m constant, u_n = a_n m + (s_n / s) (u - a m) whatever the order."""
    u, m = torch.randn(2, 50, dtype=torch.float64)
    rows = lambda_rows(-3, 2, 7)
    end = last(solve(lambda *_: m, u, rows, Sampler(order))).u
    (a, s), (b, r) = rows[0], rows[-1]
    torch.testing.assert_close(end, b * m + r / s * (u - a * m))


def test_order_2_is_exact_where_the_estimate_is_linear_in_lambda() -> None:
    """m(lambda) = lambda integrates to closed form; only the first step, of order 1, is off."""
    rows = lambda_rows(-1.0, 1.0, 2)
    lam = torch.log(rows[:, 0] / rows[:, 1])
    u = torch.zeros(1, dtype=torch.float64)
    steps = list(solve(lambda _, row: torch.log(row[0] / row[1])[None], u, rows, Sampler(2)))
    # u_n = (s_n/s) u + s_n [e^x (x - 1)] between the two lambdas
    integral = torch.exp(lam[2]) * (lam[2] - 1) - torch.exp(lam[1]) * (lam[1] - 1)
    exact = rows[2, 1] / rows[1, 1] * steps[0].u + rows[2, 1] * integral
    torch.testing.assert_close(steps[1].u, exact)


def test_stochastic_sampling_keeps_the_variance_of_the_data() -> None:
    variance = torch.tensor([0.04], dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)

    def draw(_: int) -> Tensor:
        return torch.randn(200_000, 1, generator=generator, dtype=torch.float64)

    # the bias of the ancestral step is of first order: about 1 % here
    rows = lambda_rows(-5, 4, 800)
    denoise = gaussian(torch.zeros(1, dtype=torch.float64), variance)
    end = last(solve(denoise, draw(0), rows, Sampler(variance=ddpm_variance), draw))
    a, s = rows[-1]
    expected = float(a**2 * variance + s**2)
    assert float(end.u.var()) == pytest.approx(expected, rel=0.02)


def test_the_last_step_returns_the_estimate_and_every_step_is_yielded() -> None:
    calls: list[float] = []

    def denoise(u: Tensor, row: Tensor) -> Tensor:
        calls.append(float(row[1]))
        return torch.full_like(u, len(calls))

    steps = list(solve(denoise, torch.zeros(3), COSINE.levels(4), Sampler(2)))
    assert [step.i for step in steps] == [0, 1, 2, 3]
    assert torch.equal(steps[-1].u, torch.full((3,), 4.0))
    assert steps[-1].u.dtype == torch.float32
    assert calls == sorted(calls, reverse=True)


def test_every_step_has_noise_of_its_own() -> None:
    """All but the last, which ends without any."""
    asked: list[int] = []

    def noise(i: int) -> Tensor:
        asked.append(i)
        return torch.zeros(3)

    last(solve(lambda u, _: u, torch.zeros(3), COSINE.levels(4), Sampler(variance=ddpm_variance), noise))
    assert asked == [0, 1, 2]


def test_a_batch_equals_its_pictures_one_by_one() -> None:
    mean = torch.zeros(3, 8, 8, dtype=torch.float64)
    u = torch.randn(4, 3, 8, 8, dtype=torch.float64)

    def solver(v: Tensor) -> Tensor:
        return last(solve(gaussian(mean, mean + 0.1), v, COSINE.levels(6), Sampler(2))).u

    assert torch.equal(solver(u), torch.cat([solver(v[None]) for v in u]))
