"""The samplers, state by state, against those of diffusers, with a denoiser that is not linear in u."""

import importlib
from typing import Any, NamedTuple, cast

import pytest
import torch
from oracles import two_modes
from torch import Tensor

from dreamsr.config import Grid, Prediction, ProcessConfig
from dreamsr.core.denoiser import Denoiser
from dreamsr.core.process import Process, level
from dreamsr.core.sampling import SAMPLERS, Sampler, ddpm_variance, solve

# not imported by its name, or mypy would read all of it
diffusers: Any = importlib.import_module("diffusers")
# how it calls numpy
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
LINEAR = Process(ProcessConfig("linear", 1000, 1e-4, 0.02))
SHAPE = (4, 1, 8, 8)
STEPS = (5, 10, 20)
NAMES: dict[Prediction, str] = {
    "eps": "epsilon",
    "x0": "sample",
    "v": "v_prediction",
    "flow": "flow_prediction",
}


class Case(NamedTuple):
    """A scheduler with its options, and the sampler that it should be."""

    scheduler: str
    sampler: Sampler
    options: dict[str, Any]
    prediction: Prediction = "eps"
    tolerance: float = 1e-5
    """Their coefficients are float32."""


UNCLIPPED = {"clip_sample": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}
FLOW = {"use_flow_sigmas": True}
FULL = {"lower_order_final": False}
# an end short of sigma = 0, so that no step needs a lower order
SHORT = FULL | {"final_sigmas_type": "sigma_min"}
CASES = {
    "DDIM": Case("DDIM", SAMPLERS["ddim"], UNCLIPPED),
    "DDIM, x0": Case("DDIM", SAMPLERS["ddim"], UNCLIPPED, "x0"),
    "DDIM, v": Case("DDIM", SAMPLERS["ddim"], UNCLIPPED, "v"),
    "DDPM": Case("DDPM", SAMPLERS["ddpm"], UNCLIPPED),
    "Euler": Case("EulerDiscrete", SAMPLERS["ddim"], {}),
    "Euler, flow": Case("FlowMatchEulerDiscrete", SAMPLERS["ddim"], {}, "flow"),
    "2M": Case("DPMSolverMultistep", SAMPLERS["dpmpp-2m"], {}),
    "2M, short": Case("DPMSolverMultistep", SAMPLERS["dpmpp-2m"], SHORT),
    "2M, exact": Case("DPMSolverMultistep", Sampler(2), {"solver_type": "heun"}),
    "2M, v": Case("DPMSolverMultistep", SAMPLERS["dpmpp-2m"], {}, "v"),
    "2M, flow": Case("DPMSolverMultistep", SAMPLERS["dpmpp-2m"], FLOW, "flow"),
    "2M SDE": Case("DPMSolverMultistep", SAMPLERS["dpmpp-2m-sde"], SDE),
    "2M SDE, exact": Case("DPMSolverMultistep", Sampler(2, variance=ddpm_variance), SDE | {"solver_type": "heun"}),
    "DEIS 2": Case("DEISMultistep", Sampler(2, form="eps"), FULL | {"solver_order": 2}),
    # its weights are small differences of large antiderivatives
    "DEIS 3": Case("DEISMultistep", SAMPLERS["deis"], FULL | {"solver_order": 3}, "eps", 1e-4),
    "UniPC 1": Case("UniPCMultistep", Sampler(1, midpoint=True, corrector=True), {"solver_order": 1}),
    "UniPC 2": Case("UniPCMultistep", SAMPLERS["unipc"], {}),
    "UniPC 2, flow": Case("UniPCMultistep", SAMPLERS["unipc"], FLOW, "flow"),
    # the last step is four times as long as the one before: large weights of opposite signs
    "UniPC 3": Case(
        "UniPCMultistep", Sampler(3, midpoint=True, corrector=True), SHORT | {"solver_order": 3}, "eps", 1e-4
    ),
}


def scheduler(name: str, prediction: Prediction = "eps", **options: Any) -> Any:
    if name == "FlowMatchEulerDiscrete":
        return diffusers.FlowMatchEulerDiscreteScheduler()
    table = {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing", "prediction_type": NAMES[prediction]}
    return getattr(diffusers, f"{name}Scheduler")(**table, **options)


def prepare(case: Case, steps: int) -> tuple[Any, Tensor]:
    """Their scheduler, and the levels (alpha, sigma) at which it is."""
    theirs = scheduler(case.scheduler, case.prediction, **case.options)
    if case.scheduler == "FlowMatchEulerDiscrete":
        theirs.set_timesteps(sigmas=torch.linspace(0.98, 0.02, steps).tolist())
    else:
        theirs.set_timesteps(steps)
    if case.scheduler in ("DDIM", "DDPM"):
        return theirs, LINEAR.levels(steps, "time")
    sigmas = theirs.sigmas.double()
    if case.prediction == "flow":
        return theirs, torch.stack([1 - sigmas, sigmas], -1)
    if case.scheduler == "EulerDiscrete":
        return theirs, torch.stack([torch.ones_like(sigmas), sigmas], -1)
    return theirs, level(-sigmas.log())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("steps", STEPS)
def test_every_state_is_that_of_diffusers(name: str, steps: int) -> None:
    case = CASES[name]
    theirs, levels = prepare(case, steps)
    network = Denoiser(cast(Any, None), LINEAR, case.prediction)
    their_noise, our_noise = (torch.Generator().manual_seed(1) for _ in range(2))
    options = {"generator": their_noise} if case.sampler.variance else {}
    u = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * levels[0, 1]
    ours = solve(two_modes, u, levels, case.sampler, lambda _: torch.randn(SHAPE, generator=our_noise))
    state = u.float()
    for t, row, step in zip(theirs.timesteps, levels[:-1], ours, strict=True):
        u_0 = two_modes(state, row.float())
        state = theirs.step(network.target(u_0, state, row), t, state, **options).prev_sample
        torch.testing.assert_close(step.u, state.double(), rtol=case.tolerance, atol=case.tolerance)


@pytest.mark.parametrize(("grid", "karras"), [("time", False), ("karras", True)])
@pytest.mark.parametrize("steps", STEPS)
def test_grids(grid: Grid, karras: bool, steps: int) -> None:
    theirs = scheduler("DPMSolverMultistep", use_karras_sigmas=karras)
    theirs.set_timesteps(steps)
    alpha, sigma = LINEAR.levels(steps, grid).unbind(-1)
    # 1 - abar of the first row, 1e-4, has three digits in float32
    torch.testing.assert_close((sigma / alpha).float(), theirs.sigmas, rtol=1e-3, atol=0)


def test_3m_is_the_published_step_with_the_factor_2_of_its_second_difference() -> None:
    """D_2 is a divided difference, half the second derivative: implementations that leave out the 2 are of order 2."""
    lam = torch.tensor([-2.0, -1.1, 0.3, 0.9], dtype=torch.float64)
    rows = level(lam)
    u, m_2, m_1, m_0 = torch.randn(4, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    estimates = iter([m_2, m_1, m_0])
    *_, before, last = (step.u for step in solve(lambda *_: next(estimates), u, rows, SAMPLERS["dpmpp-3m"]))
    h_2, h_1, h = lam.diff()
    r_0, r_1 = h_1 / h, h_2 / h
    first, second = (m_0 - m_1) / r_0, (m_1 - m_2) / r_1
    d_1, d_2 = first + r_0 / (r_0 + r_1) * (first - second), (first - second) / (r_0 + r_1)
    phi_1 = torch.expm1(-h)
    phi_2 = phi_1 / h + 1
    phi_3 = phi_2 / h - 0.5
    (_, s), (a_n, s_n) = rows[2], rows[3]
    expected = s_n / s * before - a_n * (phi_1 * m_0 - phi_2 * d_1 + 2 * phi_3 * d_2)
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-12)
